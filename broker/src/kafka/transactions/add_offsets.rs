//! AddOffsetsToTxn: the partition that keeps a group's offsets becomes part of a transaction.

use std::collections::BTreeSet;

use baton_core::Error;
use baton_core::transaction::message::KnownCodes;
use kafka_protocol::messages::{AddOffsetsToTxnRequest, AddOffsetsToTxnResponse};

use super::{allowed, code_of, producer};
use crate::authorizer::Verb;
use crate::kafka::errors;
use crate::kafka::groups;
use crate::kafka::service::{Call, Hangup, in_time};

pub(in crate::kafka) async fn serve(
    call: &Call,
    request: AddOffsetsToTxnRequest,
) -> Result<AddOffsetsToTxnResponse, Hangup> {
    let known = KnownCodes { producer_fenced: call.version >= 2, abortable: call.version >= 4 };
    if allowed(call, &request.transactional_id).is_err() {
        let code = errors::TRANSACTIONAL_ID_AUTHORIZATION_FAILED;
        return Ok(AddOffsetsToTxnResponse::default().with_error_code(code));
    }
    let code = match in_time(add(call, &request).await)? {
        Ok(()) => errors::NONE,
        Err(error) => code_of(&error, known),
    };
    Ok(AddOffsetsToTxnResponse::default().with_error_code(code))
}

async fn add(call: &Call, request: &AddOffsetsToTxnRequest) -> Result<(), Error> {
    groups::allowed(call, Verb::Fetch, &request.group_id)?;
    let producer = producer(request.producer_id, request.producer_epoch)?;
    // The topic may have to be made first.
    call.parts().groups.coordinator_of(&request.group_id, call.context.deadline).await?;
    let at = call.parts().groups.partition_of(&request.group_id)?;
    let transactions = &call.parts().transactions;
    transactions.add(&request.transactional_id, producer, BTreeSet::from([at]), call.asked()).await
}
