//! ListTransactions: the transactional ids that this broker coordinates.

use baton_core::ProducerId as CoreProducerId;
use baton_core::transaction::message::KnownCodes;
use baton_core::transaction::metadata::TransactionState as State;
use baton_core::transaction::{TransactionFilter, TransactionListing};
use kafka_protocol::messages::list_transactions_response::TransactionState;
use kafka_protocol::messages::{ListTransactionsRequest, ListTransactionsResponse, ProducerId, TransactionalId};

use super::{NAMES_MAX, allowed, code_of};
use crate::kafka::errors;
use crate::kafka::names::text;
use crate::kafka::service::Call;

/// The version of the API is newer than all codes.
const ALL_CODES: KnownCodes = KnownCodes { producer_fenced: true, abortable: true };

const STATES: [State; 6] = [
    State::Empty,
    State::Ongoing,
    State::PrepareCommit,
    State::PrepareAbort,
    State::CompleteCommit,
    State::CompleteAbort,
];

pub(in crate::kafka) async fn serve(call: &Call, request: ListTransactionsRequest) -> ListTransactionsResponse {
    let (mut filter, mut unknown) = (TransactionFilter::default(), Vec::new());
    let filtered = !request.state_filters.is_empty();
    for name in request.state_filters.into_iter().take(NAMES_MAX) {
        match STATES.iter().find(|state| state.name() == name.as_str()) {
            Some(state) => drop(filter.states.insert(*state)),
            None => unknown.push(name),
        }
    }
    if filtered && filter.states.is_empty() {
        return ListTransactionsResponse::default().with_unknown_state_filters(unknown);
    }
    let producers = request.producer_id_filters.iter().take(NAMES_MAX);
    filter.producers = producers.map(|id| CoreProducerId(id.0)).collect();
    filter.open_for_ms = Some(request.duration_filter).filter(|ms| call.version >= 1 && *ms >= 0);
    let (listed, problem) = call.parts().transactions.list(filter, call.context.deadline).await;
    let line = |listing: TransactionListing| {
        TransactionState::default()
            .with_transactional_id(TransactionalId(text(&listing.id)))
            .with_producer_id(ProducerId(listing.producer.0))
            .with_transaction_state(text(listing.state.name()))
    };
    ListTransactionsResponse::default()
        .with_error_code(problem.map_or(errors::NONE, |error| code_of(&error, ALL_CODES)))
        .with_unknown_state_filters(unknown)
        .with_transaction_states(listed.into_iter().filter(|one| allowed(call, &one.id).is_ok()).map(line).collect())
}
