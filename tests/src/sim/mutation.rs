//! Every rule that can be switched off, by name.

use baton_broker::mutation::{Mutation as Broker, Mutations as BrokerMutations};
use baton_client::mutation::Mutation as Client;
use baton_coordinator::daemon::Mutations as CoordinatorMutations;
use baton_core::group::Mutation as Group;
use baton_core::replica::Mutation as Core;
use baton_core::transaction::Mutation as Transaction;
use baton_registry::recipes::FenceMutation as Fence;

/// A bug that is put in on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    Core(Core),
    Broker(Broker),
    Group(Group),
    Transaction(Transaction),
    Coordinator(Fence),
    Client(Client),
}

macro_rules! all {
    ($($part:ident: $($name:ident)*;)*) => {
        /// All of them, in the order of the crates.
        pub const ALL: &[Planted] = &[$($(Planted::$part($part::$name),)*)*];
    };
}

use Fence as Coordinator;

all! {
    Core:
        TruncateToHighWatermark SingleStepSearch AckWithoutEpoch AckWithoutFlow AckWhileClosed AckBeyondSent
        AckFromAnotherDisk AckFromAnotherIncarnation AckOutlivesHello AckOutlivesRemoval HelloWithoutEpoch HelloOvertaken
        HelloOfDamagedMember ReplyWithoutEpoch ReplyWithoutFlow AppendAnywhere AppendWithoutEpoch AppendWithoutFlow
        AppendWithoutPreviousEpoch JoinOfAnotherProcess ExpandBeforeEpochStart ExpandAfterEpochStart
        ShrinkBeforeConfirmation IgnorePendingExpansion ForgetUnknownWrite UnversionedWrite ShrinkBelowMin
        CommitBelowMin WinnerOutsideIsr IneligibleStays AckBeforeFsync CommitBeforeFsync ForgetHighestEpoch
        CommitBeforeEpochSaved ServeBeforeEpochSaved StateGoesBack ResumeLeadership ResumeEpoch
        JoinBelowLogStart PromiseLogStartEarly ForgetProducersBelowStart;
    Broker:
        AcknowledgeBeforeFsync IgnoreFsyncError IgnoreFullDisk EpochSavedEarly ReadAboveHighWatermark FetchOffByOne
        ProducersLostAtRestart ProducersLostAtTruncation BelieveDamage IgnoreTombstone LoseWatch
        BelieveUnknownElection ForgetUnknownWrite KeepCandidate CloseWhileInSync DeleteUnlisted;
    Group: CommitOfAnyGeneration ForgetOffsets;
    Transaction: AnswerBeforeDecided TurnDecisions DropDecisions;
    Coordinator: Open UnversionedStates;
    Client: NumberRetriesAnew KeepMetadata SkipAtFailover;
}

impl Planted {
    /// The one with this name, such as `broker.FetchOffByOne`.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        ALL.iter().copied().find(|planted| planted.name() == name)
    }

    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::Core(rule) => format!("core.{rule:?}"),
            Self::Broker(rule) => format!("broker.{rule:?}"),
            Self::Group(rule) => format!("group.{rule:?}"),
            Self::Transaction(rule) => format!("transaction.{rule:?}"),
            Self::Coordinator(rule) => format!("coordinator.{rule:?}"),
            Self::Client(rule) => format!("client.{rule:?}"),
        }
    }

    #[must_use]
    pub fn of_broker(planted: Option<Self>) -> BrokerMutations {
        match planted {
            Some(Self::Core(rule)) => BrokerMutations::of_core(rule),
            Some(Self::Broker(rule)) => BrokerMutations::only(rule),
            Some(Self::Group(rule)) => BrokerMutations::of_group(rule),
            Some(Self::Transaction(rule)) => BrokerMutations::of_transaction(rule),
            _ => BrokerMutations::default(),
        }
    }

    #[must_use]
    pub fn of_coordinator(planted: Option<Self>) -> CoordinatorMutations {
        let fence = if let Some(Self::Coordinator(rule)) = planted { Some(rule) } else { None };
        CoordinatorMutations { fence }
    }

    #[must_use]
    pub fn of_client(planted: Option<Self>) -> Option<Client> {
        if let Some(Self::Client(rule)) = planted { Some(rule) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_lead_back() {
        let names: BTreeSet<String> = ALL.iter().map(|planted| planted.name()).collect();
        assert_eq!(names.len(), ALL.len());
        assert!(ALL.iter().all(|planted| Planted::named(&planted.name()) == Some(*planted)));
    }
}
