//! Transactions: a thin layer between the wire and [`crate::transaction::Transactions`].

mod add_offsets;
mod add_partitions;
mod commit_offsets;
mod describe;
mod describe_producers;
mod end;
mod list;
mod write_markers;

use baton_core::transaction::Producer;
use baton_core::transaction::message::KnownCodes;
use baton_core::{Error, ErrorCode, ProducerEpoch, ProducerId};

use super::service::Call;
use crate::authorizer::{Resource, Verb};

pub(super) use add_offsets::serve as add_offsets;
pub(super) use add_partitions::serve as add_partitions;
pub(super) use commit_offsets::serve as commit_offsets;
pub(super) use describe::serve as describe;
pub(super) use describe_producers::serve as describe_producers;
pub(super) use end::serve as end;
pub(super) use list::serve as list;
pub(super) use write_markers::serve as write_markers;

/// Transactional ids, partitions and the like of one request.
const NAMES_MAX: usize = 10_000;

/// The code of what a coordinator says, in a version that knows these. What passes makes the
/// client ask again, or look for the coordinator anew.
pub(super) fn code_of(error: &Error, known: KnownCodes) -> i16 {
    let error = Error { code: known.nearest(error.code), ..error.clone() };
    super::groups::code_of(&error)
}

/// Whether a client may use the transactional id.
pub(super) fn allowed(call: &Call, id: &str) -> Result<(), Error> {
    call.authorize(Verb::Produce, Resource::TransactionalId(id))
}

/// # Errors
/// `INVALID_PRODUCER_ID_MAPPING`: no producer ever has such an id.
fn producer(id: kafka_protocol::messages::ProducerId, epoch: i16) -> Result<Producer, Error> {
    if id.0 < 0 || epoch < 0 {
        return Err(Error::new(ErrorCode::InvalidProducerMapping, "a producer has an id and an epoch from 0 on"));
    }
    Ok(Producer { id: ProducerId(id.0), epoch: ProducerEpoch(epoch) })
}
