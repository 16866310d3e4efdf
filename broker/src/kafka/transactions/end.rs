//! EndTxn: a transaction is committed or aborted.

use baton_core::Error;
use baton_core::transaction::message::KnownCodes;
use baton_core::transaction::{Producer, Protocol};
use kafka_protocol::messages::{EndTxnRequest, EndTxnResponse, ProducerId};

use super::{allowed, code_of, producer};
use crate::kafka::errors;
use crate::kafka::service::{Call, Hangup, in_time};

/// The first version in which the producer's epoch rises with every transaction (KIP-890).
const SECOND_PROTOCOL: i16 = 5;

pub(in crate::kafka) async fn serve(call: &Call, request: EndTxnRequest) -> Result<EndTxnResponse, Hangup> {
    let known = KnownCodes { producer_fenced: call.version >= 2, abortable: call.version >= SECOND_PROTOCOL };
    let refused =
        |code| EndTxnResponse::default().with_error_code(code).with_producer_id(ProducerId(-1)).with_producer_epoch(-1);
    if allowed(call, &request.transactional_id).is_err() {
        return Ok(refused(errors::TRANSACTIONAL_ID_AUTHORIZATION_FAILED));
    }
    Ok(match in_time(end(call, &request).await)? {
        Ok(next) if call.version >= SECOND_PROTOCOL => {
            EndTxnResponse::default().with_producer_id(ProducerId(next.id.0)).with_producer_epoch(next.epoch.0)
        }
        Ok(_) => refused(errors::NONE),
        Err(error) => refused(code_of(&error, known)),
    })
}

async fn end(call: &Call, request: &EndTxnRequest) -> Result<Producer, Error> {
    let producer = producer(request.producer_id, request.producer_epoch)?;
    let protocol = if call.version >= SECOND_PROTOCOL { Protocol::Second } else { Protocol::First };
    let id = &request.transactional_id;
    call.parts().transactions.end(id, producer, request.committed, protocol, call.asked()).await
}
