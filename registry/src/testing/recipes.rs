//! The recipes at work: one suite, run on every implementation.
//!
//! All cases share one tree, so each uses broker ids and topic names of its own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "it is a test")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use baton_core::ids::{BrokerId, CandidateSeq, DiskId, Generation, Incarnation, Member, TopicId, TopicPartition};
use baton_core::partition::{LeaderId, PartitionState};
use futures::future::join_all;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use super::contract::{Bench, retry};
use crate::api::{CreateMode, Registry, RegistryError};
use crate::recipes::cluster::ClusterError;
use crate::recipes::coordinator_election::{self as election, Term};
use crate::recipes::membership::{self, ClaimError, Identity, LiveBrokers};
use crate::recipes::partition_state::{self, Outcome, StateWrite};
use crate::recipes::topics::{self, NewTopic, TopicError};
use crate::recipes::{Fence, RecipeError, absences, candidates, cluster, layout, producer_ids, tombstones};
use crate::znode::{
    Absence, BrokerRegistration, Candidate, ClusterIdentity, CoordinatorCandidate, FeatureRange, Intent,
    PlannedPartition, Znode, candidate,
};

const PATIENCE: Duration = Duration::from_secs(30);

/// Every case by name, one after another on one server.
pub async fn run(bench: &dyn Bench) {
    macro_rules! cases {
        ($($case:ident),+ $(,)?) => {$(
            let began = Instant::now();
            $case(bench).await;
            eprintln!("recipes: {} passed in {:?}", stringify!($case), began.elapsed());
        )+};
    }
    cases!(
        the_layout_is_made_once,
        a_cluster_is_made_once_and_others_are_refused,
        a_broker_id_has_one_owner,
        a_broker_is_no_stranger_to_itself,
        a_broker_stays_registered_through_sessions_and_all_see_it,
        candidates_queue_in_order_and_stand_once,
        one_of_two_candidates_is_elected,
        a_broker_that_changed_is_not_admitted,
        many_writes_fail_only_where_they_must,
        topics_are_made_whole_and_deleted_whole,
        the_next_coordinator_finishes_what_was_begun,
        a_coordinator_does_not_wait_behind_itself,
        an_elected_coordinator_is_fenced_by_the_next,
        a_thousand_partitions_are_made_in_time,
        producer_ids_are_given_once,
        absences_keep_their_beginning,
    );
}

async fn open(bench: &dyn Bench) -> Arc<dyn Registry> {
    bench.connect().await.registry
}

fn member(broker: u32) -> Member {
    Member { broker: BrokerId(broker), disk: DiskId(u128::from(broker)), generation: Generation(0) }
}

fn candidate(broker: u32, nonce: u64) -> Candidate {
    Candidate { member: member(broker), incarnation: Incarnation(1), nonce }
}

fn plan(partitions: usize, brokers: &[u32]) -> Vec<PlannedPartition> {
    let members = brokers.iter().map(|broker| member(*broker)).collect();
    vec![PlannedPartition { members }; partitions]
}

fn new_topic(name: &str, partitions: usize) -> NewTopic {
    NewTopic {
        namespace: "default".to_owned(),
        name: name.to_owned(),
        config: BTreeMap::new(),
        plan: plan(partitions, &[1, 2, 3]),
    }
}

fn registration(incarnation: u64) -> BrokerRegistration {
    BrokerRegistration {
        disk: DiskId(1),
        incarnation: Incarnation(incarnation),
        features: FeatureRange { min: 1, max: 1 },
        draining: false,
        rack: None,
        endpoints: Vec::new(),
    }
}

/// Elected at once: nobody else stands.
async fn coordinate(registry: &dyn Registry, nonce: u64) -> Term {
    timeout(PATIENCE, election::campaign(registry, &coordinator(nonce))).await.unwrap().unwrap()
}

fn coordinator(nonce: u64) -> CoordinatorCandidate {
    CoordinatorCandidate { nonce, name: "c".to_owned(), host: "h".to_owned(), port: 1 }
}

async fn the_layout_is_made_once(bench: &dyn Bench) {
    let zk = open(bench).await;
    layout::prepare(&*zk).await.unwrap();
    producer_ids::allocate(&*zk, 10).await.unwrap();
    layout::prepare(&*zk).await.unwrap();
    assert_eq!(producer_ids::allocate(&*zk, 10).await.unwrap(), 10..20);
    assert_eq!(topics::list(&*zk).await.unwrap(), []);
    assert_eq!(election::current(&*zk).await.unwrap(), None);
}

async fn a_cluster_is_made_once_and_others_are_refused(bench: &dyn Bench) {
    let (a, b) = (open(bench).await, open(bench).await);
    let fresh = |n: u128| ClusterIdentity { uuid: Uuid::from_u128(n), feature_level: 1 };
    let expected = Uuid::from_u128(9);
    let emptied = cluster::open(&*a, fresh(1), Some(expected)).await;
    assert_eq!(emptied, Err(ClusterError::Missing { expected }));
    let (one, other) = futures::join!(cluster::open(&*a, fresh(1), None), cluster::open(&*b, fresh(2), None));
    let found = one.unwrap();
    assert_eq!(found, other.unwrap(), "two clusters were made");
    assert_eq!(cluster::open(&*a, fresh(3), Some(found.uuid)).await, Ok(found));
    let refused = cluster::open(&*a, fresh(3), Some(expected)).await;
    assert_eq!(refused, Err(ClusterError::Other { found: found.uuid, expected }));
}

fn identity(broker: u32, disk: u128) -> Identity {
    Identity { broker: BrokerId(broker), disk: DiskId(disk), incarnation: Incarnation(5) }
}

async fn a_broker_id_has_one_owner(bench: &dyn Bench) {
    let (first, second) = (bench.connect().await, open(bench).await);
    let patience = Duration::from_millis(300);
    let claim = |zk: Arc<dyn Registry>, disk, remembered: Vec<_>| async move {
        membership::claim(&*zk, identity(40, disk), &remembered, patience).await
    };
    claim(first.registry.clone(), 1, vec![]).await.unwrap();
    claim(first.registry.clone(), 1, vec![]).await.unwrap();
    let refused = claim(second.clone(), 2, vec![]).await;
    let taken = |result: &Result<(), ClaimError>| matches!(result, Err(ClaimError::Taken { claim, .. }) if claim.disk == DiskId(1));
    assert!(taken(&refused), "{refused:?}");
    // The ghost of one's own remembered session is no obstacle.
    let ghost = first.registry.session_id().unwrap();
    claim(second.clone(), 2, vec![ghost]).await.unwrap();
    // Somebody who waits gets it when the owner ends.
    let waiting = membership::claim(&*first.registry, identity(40, 3), &[], PATIENCE);
    let (result, ()) = futures::join!(waiting, second.close());
    result.unwrap();
}

/// After an outage the ensemble gives old sessions their whole time again: a broker finds the
/// claim that it made itself, by a session that it has no more.
async fn a_broker_is_no_stranger_to_itself(bench: &dyn Bench) {
    let (old, new) = (open(bench).await, open(bench).await);
    membership::claim(&*old, identity(41, 1), &[], PATIENCE).await.unwrap();
    membership::claim(&*new, identity(41, 1), &[], Duration::ZERO).await.unwrap();
    let restarted = Identity { incarnation: Incarnation(6), ..identity(41, 1) };
    let refused = membership::claim(&*old, restarted, &[], Duration::ZERO).await;
    assert!(matches!(refused, Err(ClaimError::Taken { .. })), "{refused:?}");
    old.close().await;
    new.close().await;
}

async fn see(
    view: &mut watch::Receiver<Arc<LiveBrokers>>,
    what: &str,
    wanted: impl FnMut(&Arc<LiveBrokers>) -> bool,
) -> Arc<LiveBrokers> {
    timeout(PATIENCE, view.wait_for(wanted)).await.expect(what).unwrap().clone()
}

async fn a_broker_stays_registered_through_sessions_and_all_see_it(bench: &dyn Bench) {
    let (broker, observer) = (bench.connect().await, open(bench).await);
    let id = BrokerId(50);
    let (publish, mut view) = watch::channel(Arc::default());
    let following = tokio::spawn(membership::follow(observer.clone(), publish));
    let (change, registration_of) = watch::channel(registration(5));
    let maintaining = tokio::spawn(membership::maintain(
        broker.registry.clone(),
        identity(50, 1),
        Vec::new(),
        PATIENCE,
        registration_of,
    ));
    let there = see(&mut view, "the broker", |v| v.brokers.contains_key(&id)).await;
    assert!(there.known && !there.brokers[&id].registration.draining);
    change.send_modify(|registration| registration.draining = true);
    let draining = |v: &Arc<LiveBrokers>| v.brokers.get(&id).is_some_and(|b| b.registration.draining);
    let before = see(&mut view, "draining", draining).await.brokers[&id].clone();
    assert_eq!(before.version, 1);
    bench.expire(&broker).await;
    let again = |v: &Arc<LiveBrokers>| v.brokers.get(&id).is_some_and(|b| b.czxid > before.czxid);
    let after = see(&mut view, "the broker in its next session", again).await;
    assert_eq!(after.brokers[&id].version, 0);
    broker.registry.close().await;
    see(&mut view, "the end", |v| !v.brokers.contains_key(&id)).await;
    timeout(PATIENCE, maintaining).await.unwrap().unwrap().unwrap();
    observer.close().await;
    timeout(PATIENCE, following).await.unwrap().unwrap();
}

/// A topic of one partition, for brokers 1, 2, 3.
async fn one_partition(zk: &dyn Registry, name: &str, nonce: u64) -> TopicPartition {
    let term = coordinate(zk, nonce).await;
    let topic = topics::create(zk, term.fence, &new_topic(name, 1)).await.unwrap();
    election::withdraw(zk, &coordinator(nonce)).await.unwrap();
    TopicPartition { topic, partition: 0 }
}

async fn candidates_queue_in_order_and_stand_once(bench: &dyn Bench) {
    let (a, b) = (bench.connect().await, open(bench).await);
    let zk = &*a.registry;
    let partition = one_partition(zk, "queue", 1).await;
    let first = candidates::queue(zk, partition, &candidate(1, 11)).await.unwrap();
    let second = candidates::queue(&*b, partition, &candidate(2, 22)).await.unwrap();
    assert!(first < second);
    let queue = candidates::list(zk, partition).await.unwrap();
    let order: Vec<_> = queue.iter().map(|q| (q.sequence, q.candidate.nonce)).collect();
    assert_eq!(order, [(first, 11), (second, 22)]);
    assert_eq!(Some(queue[1].owner), b.session_id());
    candidates::delete(zk, partition, first).await.unwrap();
    candidates::delete(zk, partition, first).await.unwrap();

    // A node whose creation got no answer is found again; its late double goes.
    let mine = candidate(1, 12);
    let mode = CreateMode::EphemeralSequential;
    let prefix = candidate::prefix(partition);
    for _ in 0..2 {
        let unheard = bench.create_unheard(&a, &prefix, mine.encode(), mode).await;
        assert!(unheard.unwrap_err().outcome_unknown());
        retry(|| zk.sync("/")).await;
    }
    let adopted = candidates::adopt(zk, partition, &mine).await.unwrap().unwrap();
    let queue = candidates::list(zk, partition).await.unwrap();
    let sequences: Vec<CandidateSeq> = queue.iter().map(|q| q.sequence).collect();
    assert_eq!(sequences, [second, adopted]);
    // The same data on another session is not mine.
    assert_eq!(candidates::adopt(&*b, partition, &mine).await.unwrap(), None);

    let ghosts = [a.registry.session_id().unwrap()];
    let gone = TopicPartition { topic: TopicId(0xffff), partition: 0 };
    let deleted = candidates::delete_ghosts(&*b, &[partition, gone], &ghosts).await.unwrap();
    assert_eq!(deleted, 1);
    assert_eq!(candidates::list(zk, partition).await.unwrap().len(), 1);
    let nowhere = candidates::queue(zk, gone, &mine).await;
    assert!(matches!(nowhere, Err(RecipeError::Registry(RegistryError::NoNode(_)))));
}

async fn state_of(zk: &dyn Registry, partition: TopicPartition) -> (PartitionState, i32) {
    let found = partition_state::read_synced(zk, partition).await.unwrap().unwrap();
    (found.state, found.version)
}

fn leader(broker: u32, candidate: CandidateSeq) -> LeaderId {
    LeaderId { broker: BrokerId(broker), disk: DiskId(u128::from(broker)), incarnation: Incarnation(1), candidate }
}

async fn one_of_two_candidates_is_elected(bench: &dyn Bench) {
    let (a, b) = (open(bench).await, open(bench).await);
    let partition = one_partition(&*a, "elect", 2).await;
    let (state, version) = state_of(&*a, partition).await;
    assert_eq!((state.leader, state.hint, state.isr.len()), (None, Some(BrokerId(1)), 3));
    let seq_a = candidates::queue(&*a, partition, &candidate(1, 1)).await.unwrap();
    let seq_b = candidates::queue(&*b, partition, &candidate(2, 2)).await.unwrap();
    let elect = |broker, sequence| {
        let next = state.elected(leader(broker, sequence), 1);
        StateWrite::elect(partition, version, next, sequence)
    };
    let (write_a, write_b) = (elect(1, seq_a), elect(2, seq_b));
    let (one, other) = futures::join!(partition_state::write(&*a, &write_a), partition_state::write(&*b, &write_b));
    let done = Outcome::Done { version: version + 1 };
    assert!(
        (one == done && other == Outcome::Conflict) || (other == done && one == Outcome::Conflict),
        "{one:?} and {other:?}"
    );
    let (elected, version) = state_of(&*b, partition).await;
    let winner = elected.leader.unwrap();
    assert_eq!(winner.broker, BrokerId(if one == done { 1 } else { 2 }));

    // Resigning towards somebody who is gone does not happen.
    let (winner_zk, to) = if one == done { (&a, seq_b) } else { (&b, seq_a) };
    let resigned = PartitionState { leader: None, hint: Some(BrokerId(9)), ..elected };
    let resign = StateWrite::resign(partition, version, resigned, to);
    candidates::delete(&**winner_zk, partition, to).await.unwrap();
    assert_eq!(partition_state::write(&**winner_zk, &resign).await, Outcome::CandidateGone);
    let missing = TopicPartition { topic: TopicId(0xffff), partition: 0 };
    let nowhere = StateWrite { partition: missing, guards: vec![], ..resign };
    assert_eq!(partition_state::write(&*a, &nowhere).await, Outcome::Missing);
    assert_eq!(partition_state::read(&*a, missing).await.unwrap(), None);
    // An election needs its own candidate as well.
    a.close().await;
    b.sync("/").await.unwrap();
    assert_eq!(partition_state::write(&*b, &write_a).await, Outcome::CandidateGone);
}

async fn a_broker_that_changed_is_not_admitted(bench: &dyn Bench) {
    let (zk, follower) = (open(bench).await, open(bench).await);
    let partition = one_partition(&*zk, "admit", 3).await;
    let id = BrokerId(60);
    membership::claim(&*follower, identity(60, 1), &[], PATIENCE).await.unwrap();
    membership::register(&*follower, id, &registration(5)).await.unwrap();
    let live = membership::read_all(&*zk).await.unwrap();
    let seen = live.brokers[&id].version;
    let (state, version) = state_of(&*zk, partition).await;
    let admit = StateWrite::change_isr(partition, version, state, &[(id, seen)]);
    let draining = BrokerRegistration { draining: true, ..registration(5) };
    membership::register(&*follower, id, &draining).await.unwrap();
    assert_eq!(partition_state::write(&*zk, &admit).await, Outcome::BrokerChanged);
    let again = StateWrite::change_isr(partition, version, admit.state, &[(id, seen + 1)]);
    assert_eq!(partition_state::write(&*zk, &again).await, Outcome::Done { version: 1 });
    follower.close().await;
    zk.sync("/").await.unwrap();
    let gone = StateWrite { version: 1, ..again };
    assert_eq!(partition_state::write(&*zk, &gone).await, Outcome::BrokerChanged);
}

async fn many_writes_fail_only_where_they_must(bench: &dyn Bench) {
    let zk = open(bench).await;
    let term = coordinate(&*zk, 4).await;
    let topic = topics::create(&*zk, term.fence, &new_topic("many", 170)).await.unwrap();
    let partition = |partition| TopicPartition { topic, partition };
    let all: Vec<TopicPartition> = (0..170).map(partition).collect();
    let queued =
        join_all(all.iter().map(|p| async { candidates::queue(&*zk, *p, &candidate(1, 1)).await.unwrap() })).await;
    let states = partition_state::read_many(&*zk, &all).await;
    let mut writes: Vec<StateWrite> = all
        .iter()
        .zip(states)
        .zip(&queued)
        .map(|((p, found), sequence)| {
            let found = found.unwrap().unwrap();
            let next = found.state.elected(leader(1, *sequence), 1);
            StateWrite::elect(*p, found.version, next, *sequence)
        })
        .collect();
    writes[3].version = 7;
    writes[60].guards = StateWrite::elect(all[60], 0, PartitionState::default(), CandidateSeq(99)).guards;
    writes[169].partition.partition = 999;
    writes[169].guards.clear();
    let outcomes = partition_state::write_many(&*zk, &writes).await;
    assert_eq!(outcomes.len(), writes.len());
    for (n, outcome) in outcomes.into_iter().enumerate() {
        let expected = match n {
            3 => Outcome::Conflict,
            60 => Outcome::CandidateGone,
            169 => Outcome::Missing,
            _ => Outcome::Done { version: 1 },
        };
        assert_eq!(outcome, expected, "write {n}");
    }
    // Of the coordinator, all at once.
    let (state, version) = state_of(&*zk, all[0]).await;
    let fence = Fence::new(term.fence.version - 1);
    let stale = StateWrite::coordinate(all[0], version, state.clone(), fence);
    assert_eq!(partition_state::write(&*zk, &stale).await, Outcome::Fenced);
    let good = StateWrite::coordinate(all[0], version, state, term.fence);
    let written = partition_state::write_many(&*zk, &[good]).await;
    assert_eq!(written, [Outcome::Done { version: version + 1 }]);
    topics::delete(&*zk, term.fence, topic, 1).await.unwrap();
    zk.close().await;
    assert_eq!(
        partition_state::write_many(&*zk, &writes[..2]).await,
        [Outcome::Failed(RegistryError::Closed), Outcome::Failed(RegistryError::Closed)]
    );
}

async fn topics_are_made_whole_and_deleted_whole(bench: &dyn Bench) {
    let zk = open(bench).await;
    let fence = coordinate(&*zk, 5).await.fence;
    let id = topics::create(&*zk, fence, &new_topic("whole", 3)).await.unwrap();
    assert_eq!(topics::find(&*zk, "default", "whole").await.unwrap(), Some(id));
    let again = topics::create(&*zk, fence, &new_topic("whole", 3)).await;
    assert_eq!(again, Err(TopicError::Exists(id)));
    let config = BTreeMap::from([("retention.ms".to_owned(), "1".to_owned())]);
    topics::set_config(&*zk, fence, id, config.clone()).await.unwrap();
    topics::grow(&*zk, fence, id, plan(2, &[3, 4])).await.unwrap();
    let topic = topics::read(&*zk, id).await.unwrap().unwrap();
    assert_eq!((topic.node.partitions, &topic.node.intent), (5, &Intent::None));
    assert_eq!(topic.node.config, config);
    let (grown, _) = state_of(&*zk, TopicPartition { topic: id, partition: 4 }).await;
    assert_eq!(grown.assignment.replicas, [BrokerId(3), BrokerId(4)]);

    let partition = TopicPartition { topic: id, partition: 0 };
    candidates::queue(&*zk, partition, &candidate(1, 1)).await.unwrap();
    // Its copies may have got new homes while it was away: it still has to learn of the deletion.
    let away = Absence { since_unix_ms: 5 };
    absences::note(&*zk, fence, BrokerId(9), away).await.unwrap();
    topics::delete(&*zk, fence, id, 77).await.unwrap();
    assert_eq!(topics::read(&*zk, id).await.unwrap(), None);
    assert_eq!(topics::find(&*zk, "default", "whole").await.unwrap(), None);
    assert_eq!(partition_state::read(&*zk, partition).await.unwrap(), None);
    let missing = topics::delete(&*zk, fence, id, 77).await;
    assert_eq!(missing, Err(TopicError::NotFound));
    // The name is free, the id is not.
    let successor = topics::create(&*zk, fence, &new_topic("whole", 1)).await.unwrap();
    assert!(successor > id);

    let (grave, _) = tombstones::read(&*zk, id).await.unwrap().unwrap();
    assert_eq!(grave.brokers, [1, 2, 3, 4, 9].map(BrokerId));
    absences::clear(&*zk, fence, BrokerId(9)).await.unwrap();
    assert_eq!((grave.name.as_str(), grave.deleted_unix_ms), ("whole", 77));
    let brokers = [1, 2, 3, 4, 4, 9].map(BrokerId);
    for result in join_all(brokers.map(|b| tombstones::acknowledge(&*zk, id, b))).await {
        result.unwrap();
    }
    assert_eq!(tombstones::read(&*zk, id).await.unwrap(), None);
    topics::delete(&*zk, fence, successor, 78).await.unwrap();
    let graves = tombstones::list(&*zk).await.unwrap().len();
    assert!(graves > 0);
    assert_eq!(tombstones::prune(&*zk, fence, 0).await.unwrap(), graves);
    assert_eq!(tombstones::list(&*zk).await.unwrap(), []);
    zk.close().await;
}

async fn the_next_coordinator_finishes_what_was_begun(bench: &dyn Bench) {
    let first = open(bench).await;
    let old = coordinate(&*first, 6).await.fence;
    let begun = topics::intend_creation(&*first, old, &new_topic("begun", 120)).await.unwrap();
    let doomed = topics::create(&*first, old, &new_topic("doomed", 120)).await.unwrap();
    topics::intend_deletion(&*first, old, doomed, 1).await.unwrap();
    // Half of one's partitions are there, half of the other's are gone.
    for (id, missing) in [(begun, true), (doomed, false)] {
        for n in (0..120).step_by(2) {
            let path = crate::znode::partition::path(TopicPartition { topic: id, partition: n });
            if missing {
                let root = crate::znode::partition::topic_path(id);
                let _ = first.create(&root, bytes::Bytes::new(), CreateMode::Persistent).await;
                let state = topics::initial_state(&plan(1, &[1, 2, 3])[0]).encode();
                first.create(&path, state, CreateMode::Persistent).await.unwrap();
            } else {
                first.delete(&path, None).await.unwrap();
            }
        }
    }
    first.close().await;
    let second = open(bench).await;
    let fence = coordinate(&*second, 7).await.fence;
    let unfinished = topics::unfinished(&*second).await.unwrap();
    let ids: BTreeSet<TopicId> = unfinished.iter().map(|topic| topic.id).collect();
    assert_eq!(ids, BTreeSet::from([begun, doomed]));
    let stale = topics::finish(&*second, old, begun).await;
    assert_eq!(stale, Err(TopicError::Recipe(RecipeError::Fenced)));
    for id in ids {
        topics::finish(&*second, fence, id).await.unwrap();
        topics::finish(&*second, fence, id).await.unwrap();
    }
    assert_eq!(topics::unfinished(&*second).await.unwrap(), []);
    let all: Vec<TopicPartition> = (0..120).map(|partition| TopicPartition { topic: begun, partition }).collect();
    let states = partition_state::read_many(&*second, &all).await;
    assert!(states.iter().all(|state| state.as_ref().unwrap().is_some()));
    assert_eq!(topics::read(&*second, doomed).await.unwrap(), None);
    assert!(tombstones::read(&*second, doomed).await.unwrap().is_some());
    topics::delete(&*second, fence, begun, 1).await.unwrap();
    second.close().await;
}

/// A node that could not be withdrawn stands before the next campaign of the same session.
async fn a_coordinator_does_not_wait_behind_itself(bench: &dyn Bench) {
    let (zk, other) = (open(bench).await, open(bench).await);
    coordinate(&*zk, 20).await;
    coordinate(&*zk, 21).await;
    let (_, candidate) = election::current(&*other).await.unwrap().unwrap();
    assert_eq!(candidate.nonce, 21);
    election::withdraw(&*zk, &coordinator(22)).await.unwrap();
    coordinate(&*other, 23).await;
    zk.close().await;
    other.close().await;
}

async fn an_elected_coordinator_is_fenced_by_the_next(bench: &dyn Bench) {
    let (a, b) = (bench.connect().await, open(bench).await);
    let first = coordinate(&*a.registry, 8).await;
    let (term, candidate) = election::current(&*b).await.unwrap().unwrap();
    assert_eq!((term.epoch, candidate.nonce), (first.epoch, 8));
    let waiting = tokio::spawn({
        let b = b.clone();
        async move { election::campaign(&*b, &coordinator(9)).await }
    });
    let lost = tokio::spawn({
        let (a, first) = (a.registry.clone(), first.clone());
        async move { election::lost(&*a, &first).await }
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!waiting.is_finished(), "two coordinators");
    assert!(!lost.is_finished());
    bench.expire(&a).await;
    let second = timeout(PATIENCE, waiting).await.unwrap().unwrap().unwrap();
    assert!(second.epoch > first.epoch);
    timeout(PATIENCE, lost).await.expect("the old one never knew").unwrap();
    // The old one has a new session and could write, but for the fence.
    retry(|| a.registry.sync("/")).await;
    let zombie = topics::create(&*a.registry, first.fence, &new_topic("zombie", 1)).await;
    assert_eq!(zombie, Err(TopicError::Recipe(RecipeError::Fenced)));
    assert_eq!(topics::find(&*b, "default", "zombie").await.unwrap(), None);
    election::withdraw(&*b, &coordinator(9)).await.unwrap();
    assert_eq!(election::current(&*b).await.unwrap(), None);
}

async fn a_thousand_partitions_are_made_in_time(bench: &dyn Bench) {
    let zk = open(bench).await;
    let fence = coordinate(&*zk, 10).await.fence;
    let began = Instant::now();
    let id = topics::create(&*zk, fence, &new_topic("thousand", 1000)).await.unwrap();
    let made = began.elapsed();
    topics::delete(&*zk, fence, id, 1).await.unwrap();
    eprintln!("recipes: 1000 partitions made in {made:?}, made and deleted in {:?}", began.elapsed());
    assert!(made < Duration::from_secs(5));
    zk.close().await;
}

async fn producer_ids_are_given_once(bench: &dyn Bench) {
    let (a, b) = (open(bench).await, open(bench).await);
    let blocks = join_all((0..20).map(|n| {
        let zk = if n % 2 == 0 { a.clone() } else { b.clone() };
        async move { producer_ids::allocate(&*zk, 100).await.unwrap() }
    }))
    .await;
    let mut starts: Vec<i64> = blocks.iter().map(|block| block.start).collect();
    starts.sort_unstable();
    assert!(starts.windows(2).all(|pair| pair[1] >= pair[0] + 100), "{starts:?}");
    assert!(blocks.iter().all(|block| block.end - block.start == 100));
}

async fn absences_keep_their_beginning(bench: &dyn Bench) {
    let zk = open(bench).await;
    let fence = coordinate(&*zk, 12).await.fence;
    let since = |since_unix_ms| Absence { since_unix_ms };
    absences::note(&*zk, fence, BrokerId(3), since(100)).await.unwrap();
    absences::note(&*zk, fence, BrokerId(3), since(200)).await.unwrap();
    let all = absences::read_all(&*zk).await.unwrap();
    assert_eq!(all, BTreeMap::from([(BrokerId(3), since(100))]));
    let stale = Fence::new(fence.version + 1);
    assert_eq!(absences::clear(&*zk, stale, BrokerId(3)).await, Err(RecipeError::Fenced));
    absences::clear(&*zk, fence, BrokerId(3)).await.unwrap();
    absences::clear(&*zk, fence, BrokerId(3)).await.unwrap();
    assert_eq!(absences::read_all(&*zk).await.unwrap(), BTreeMap::new());
    zk.close().await;
}
