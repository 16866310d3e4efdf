//! What elections and producers are told, and when.

use baton_core::Error;
use baton_core::partition::{Assignment, PartitionState, VersionedState};
use baton_core::replica::{Acks, Input, RoleView};

use super::*;
use crate::log::contract::id;
use crate::shard::input::{ProduceCall, Produced, RegistryCall};

/// One copy of a partition, and what its shard asks for.
struct Asked {
    bench: Bench,
    calls: mpsc::UnboundedReceiver<RegistryCall>,
}

impl Asked {
    async fn opened() -> Self {
        let mut bench = Bench::new(&MemoryDisk::new(identity()), MemoryOptions::default());
        let (registry, calls) = mpsc::unbounded_channel();
        bench.shard.parts.registry = registry;
        bench.open(id(0)).await;
        bench.settle().await;
        Self { bench, calls }
    }

    /// The registry names this process as the leader of the first epoch.
    fn leads(&mut self, version: i32, isr: Vec<Member>) {
        let me = LeaderId {
            broker: ME,
            disk: identity().disk,
            incarnation: Incarnation(7),
            candidate: baton_core::ids::CandidateSeq(0),
        };
        let assignment = Assignment { replicas: vec![ME, LEADER], ..Assignment::default() };
        let state = PartitionState { leader: Some(me), epoch: Epoch(1), isr, assignment, ..PartitionState::default() };
        let input = Input::State(VersionedState { state, version });
        self.bench.input(ShardInput::Replica { id: id(0), input });
    }

    /// Which partitions elections were asked to look at since the last time.
    fn elections(&mut self) -> Vec<TopicPartition> {
        let role = |call| match call {
            RegistryCall::Role(id) => Some(id),
            _ => None,
        };
        std::iter::from_fn(|| self.calls.try_recv().ok()).filter_map(role).collect()
    }

    fn shown(&self) -> PartitionStatus {
        *self.bench.partition(id(0)).status.borrow()
    }
}

/// Elections run beside the shard: told in the middle of a turn, they would decide on what was
/// shown before it.
#[tokio::test(start_paused = true)]
async fn elections_are_asked_once_there_is_something_to_see() {
    let mut asked = Asked::opened().await;
    asked.elections();
    asked.leads(1, vec![asked.shown().member]);
    assert_eq!(asked.shown().role, RoleView::Idle);
    assert!(asked.elections().is_empty(), "nothing is shown yet");
    asked.bench.shard.end_turn();
    assert!(asked.shown().leads());
    assert_eq!(asked.elections(), [id(0)]);
    asked.bench.settle().await;
    asked.elections();
    asked.bench.shard.end_turn();
    assert!(asked.elections().is_empty(), "nothing is new");

    asked.bench.input(ShardInput::Replica { id: id(0), input: Input::StorageFailed("EIO".into()) });
    assert!(asked.elections().is_empty());
    asked.bench.shard.end_turn();
    assert_eq!(asked.shown().role, RoleView::Halted);
    assert_eq!(asked.elections(), [id(0)], "its candidate has to go");
}

/// It gave its epoch up, and a later version of the state names it in that epoch all the same:
/// it does not lead, and somebody has to see that nobody does.
#[tokio::test(start_paused = true)]
async fn a_later_version_of_an_epoch_that_was_given_up_is_looked_at() {
    let mut asked = Asked::opened().await;
    let me = asked.shown().member;
    asked.leads(1, vec![me, Member { broker: LEADER, ..me }]);
    asked.bench.settle().await;
    asked.bench.shard.env.registry_connected = false;
    asked.bench.shard.env.now_ms += 10_000;
    asked.bench.shard.step(id(0), Input::Tick);
    asked.bench.shard.end_turn();
    assert_eq!(asked.shown().role, RoleView::Idle);
    asked.elections();
    asked.leads(2, vec![me]);
    asked.bench.shard.end_turn();
    assert_eq!((asked.shown().role, asked.shown().version), (RoleView::Idle, 2));
    assert_eq!(asked.elections(), [id(0)]);
}

/// A campaign found it: of several partitions that one turn acknowledged, the last ones still
/// showed their old end when a producer that was told already asked for it.
#[tokio::test(start_paused = true)]
async fn an_acknowledged_record_is_below_the_end_that_is_shown() {
    let mut asked = Asked::opened().await;
    asked.leads(1, vec![asked.shown().member]);
    asked.bench.settle().await;
    let bytes = produced(0, 5, 0, 1, 0).bytes;
    let shown = asked.bench.partition(id(0)).status.subscribe();
    let (tell, mut told) = mpsc::unbounded_channel();
    let reply = Box::new(move |result: Result<Produced, Error>| {
        let end = shown.borrow().latest;
        tell.send((result.map(|produced| produced.base), end)).unwrap();
    });
    let header = BatchHeader::parse(&bytes).unwrap();
    asked.bench.input(ShardInput::Produce(ProduceCall {
        id: id(0),
        acks: Acks::All,
        epoch: None,
        transaction: None,
        header,
        bytes,
        reply,
    }));
    asked.bench.settle().await;
    asked.bench.shard.end_turn();
    assert_eq!(told.try_recv().unwrap(), (Ok(Offset(0)), Some(Offset(5))));
}
