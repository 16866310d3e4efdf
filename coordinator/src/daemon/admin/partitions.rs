//! Reassign, elect the preferred leader, elect uncleanly.

use std::time::Duration;

use baton_core::event::EventKind;
use baton_core::partition::{PartitionState, VersionedState};
use baton_core::{BrokerId, Error, ErrorCode, Generation, Member, TopicPartition};
use baton_proto::v1;
use baton_registry::recipes::RecipeError;
use baton_registry::recipes::partition_state::{self, Outcome, StateWrite};
use tokio::time::{Instant, sleep};

use super::Admin;
use super::topics::who;
use crate::daemon::brokers::peer_address;
use crate::daemon::plan::create::check_live;
use crate::daemon::plan::preferred;
use crate::daemon::plan::reassign::{self, plan_reassignment};
use crate::daemon::term::{Term, may_retry};

/// How often it is looked whether a leader has handed over.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// How often a leader that has not handed over is asked once more.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// The partition of this name and number.
fn partition_of(term: &Term, name: &str, partition: u32) -> Result<TopicPartition, Error> {
    term.view().read(|snapshot| {
        let topic = snapshot.topic(name)?;
        if partition >= topic.node.partitions {
            let cause = format!("the topic has {} partitions, counted from 0", topic.node.partitions);
            return Err(Error::new(ErrorCode::UnknownPartition, cause).topic(name).partition(partition));
        }
        Ok(TopicPartition { topic: topic.id, partition })
    })
}

/// The state as it is now, after everything that was written before.
async fn read(term: &Term, id: TopicPartition, deadline: Instant) -> Result<VersionedState, Error> {
    loop {
        match partition_state::read_synced(term.registry(), id).await {
            Ok(Some(known)) => return Ok(known),
            Ok(None) => {
                let cause = "the partition is being created or deleted";
                return Err(Error::new(ErrorCode::ReplicaNotAvailable, cause).partition(id.partition));
            }
            Err(error) if may_retry(&error) && term.pause(deadline).await => {}
            Err(error) => return Err(term.failed(&error).partition(id.partition)),
        }
    }
}

/// Reads, decides and writes until it is written, or there is nothing (more) to write. What an
/// attempt with an unknown outcome did shows in the next reading.
async fn change(
    term: &Term,
    id: TopicPartition,
    deadline: Instant,
    decide: impl Fn(&PartitionState) -> Result<Option<PartitionState>, Error>,
) -> Result<Option<(PartitionState, PartitionState)>, Error> {
    let mut written = None;
    loop {
        let known = read(term, id, deadline).await?;
        let Some(state) = decide(&known.state)? else {
            return Ok(written);
        };
        let write = StateWrite::coordinate(id, known.version, state.clone(), term.fence);
        match partition_state::write(term.registry(), &write).await {
            Outcome::Done { version } => {
                let new = VersionedState { state: state.clone(), version };
                term.history().record_changes(&term.view().set_states(vec![(id, Some(new))]));
                return Ok(Some((known.state, state)));
            }
            Outcome::Fenced => return Err(term.failed(&RecipeError::Fenced)),
            Outcome::Failed(error) => return Err(term.failed(&error.into())),
            Outcome::Unknown => written = Some((known.state, state)),
            Outcome::Conflict | Outcome::Missing | Outcome::CandidateGone | Outcome::BrokerChanged => {}
        }
        if !term.pause(deadline).await {
            let cause = "the partition's state changed again and again";
            return Err(Error::new(ErrorCode::RequestTimedOut, cause).partition(id.partition));
        }
    }
}

pub async fn reassign(admin: Admin, request: v1::ReassignRequest) -> Result<(), Error> {
    let Admin { term, deadline } = admin;
    let wanted: Vec<_> = request.replicas.iter().copied().map(BrokerId).collect();
    let _changing = term.changes.lock().await;
    let id = partition_of(&term, &request.topic, request.partition)?;
    let place = |error: Error| error.topic(&request.topic).partition(request.partition);
    let changed = change(&term, id, deadline, |state| {
        let plan = term.view().read(|snapshot| {
            let min_insync = snapshot.min_insync_of(id.topic);
            plan_reassignment(snapshot, state, &wanted, min_insync)
        });
        Ok(plan?.map(|assignment| PartitionState { assignment, ..state.clone() }))
    });
    let Some((old, new)) = changed.await.map_err(place)? else { return Ok(()) };
    let kind = if wanted.is_empty() { EventKind::ReassignmentCancelled } else { EventKind::Reassigned };
    let event = term.history().event(kind).topic(&request.topic).partition(request.partition).epoch(new.epoch);
    let event = event
        .seen(format!("replicas: {}", reassign::list(&old.assignment.replicas)))
        .decided(format!("replicas: {}", reassign::list(&reassign::target_of(&new.assignment))))
        .result(format!(
            "joining: {}; leaving: {}",
            reassign::list(&new.assignment.adding),
            reassign::list(&new.assignment.removing)
        ));
    term.history().record(event.who(who(&request.who)));
    Ok(())
}

/// Only a leader can give leadership away: it is asked to, and the answer waits until it did.
pub async fn elect_preferred(admin: Admin, request: v1::ElectPreferredRequest) -> Result<(), Error> {
    let Admin { term, deadline } = admin;
    let id = partition_of(&term, &request.topic, request.partition)?;
    let place = |error: Error| error.topic(&request.topic).partition(request.partition);
    let known = read(&term, id, deadline).await.map_err(place)?;
    let state = known.state;
    let nobody = || place(Error::new(ErrorCode::NoLeader, "nobody leads the partition"));
    let leader = state.leader.ok_or_else(nobody)?.broker;
    let target = reassign::target_of(&state.assignment);
    let Some(preferred) = target.first().copied().filter(|preferred| *preferred != leader) else {
        return Ok(());
    };
    let address = term.view().read(|snapshot| {
        preferred::wanted(snapshot, id, &state).ok_or_else(|| {
            let cause = format!(
                "broker {preferred}, the preferred leader, is not alive and in sync, or copies are on their way"
            );
            Error::new(ErrorCode::ReplicaNotAvailable, cause)
        })?;
        let live = snapshot.brokers.get(&leader).ok_or_else(nobody)?;
        peer_address(leader, &live.registration)
    });
    let address = address.map_err(place)?;
    term.shared.brokers.resign(&address, id, state.epoch, preferred).await.map_err(place)?;
    let event = term.history().event(EventKind::PreferredElection).topic(&request.topic).partition(id.partition);
    let event = event.epoch(state.epoch).broker(preferred).seen(format!("broker {leader} leads"));
    let event = event.decided(format!("asked it to hand over to broker {preferred}")).who(who(&request.who));
    term.history().record(event);
    let mut asked = Instant::now();
    while Instant::now() < deadline {
        let now = read(&term, id, deadline).await.map_err(place)?.state;
        if asked.elapsed() >= ASK_AGAIN {
            // A leader passes over what it cannot do yet: its own change of the in-sync replicas
            // may be on its way. Whoever cannot be reached now may be later.
            let _ = term.shared.brokers.resign(&address, id, state.epoch, preferred).await;
            asked = Instant::now();
        }
        match now.leader {
            Some(leader) if leader.broker == preferred => return Ok(()),
            Some(leader) if now.epoch > state.epoch => {
                let cause = format!("broker {} was elected instead", leader.broker);
                return Err(place(Error::new(ErrorCode::ReplicaNotAvailable, cause)));
            }
            _ => sleep(LOOK_AGAIN).await,
        }
    }
    Err(place(Error::new(ErrorCode::RequestTimedOut, format!("broker {leader} has not handed over yet"))))
}

/// Believes one copy, whatever others acknowledged. Who may lead or acknowledge in the epochs
/// before is fenced first; whoever cannot be reached is named in the history.
pub async fn elect_unclean(admin: Admin, request: v1::ElectUncleanRequest) -> Result<(), Error> {
    let Admin { term, deadline } = admin;
    if !request.accept_data_loss {
        let cause = "an unclean election gives up acknowledged records; repeat it with the flag that accepts that";
        return Err(Error::new(ErrorCode::InvalidRequest, cause));
    }
    let chosen = BrokerId(request.broker);
    let _changing = term.changes.lock().await;
    let id = partition_of(&term, &request.topic, request.partition)?;
    let place = |error: Error| error.topic(&request.topic).partition(request.partition);
    let before = read(&term, id, deadline).await.map_err(place)?.state;
    let member = chosen_member(&term, &before, chosen).map_err(place)?;
    if before.isr == [member] && before.leader.is_some_and(|leader| leader.broker == chosen) {
        // It is what everybody believes already: an attempt whose answer was lost did it.
        return Ok(());
    }
    let (member, unreached) = fence_all(&term, id, &before, member).await;
    if unreached.contains(&chosen) {
        let cause = format!("broker {chosen}, whose copy is to be believed, cannot be reached");
        return Err(place(Error::new(ErrorCode::Unreachable, cause)));
    }
    let changed = change(&term, id, deadline, |state| {
        // Written by an attempt of unknown outcome; others may have joined the chosen one since.
        if state.last_unclean_epoch > before.last_unclean_epoch {
            return Ok(None);
        }
        // Whoever was elected in between is not fenced, and may have acknowledged more.
        if state.epoch != before.epoch {
            return Err(elected_meanwhile(&before, state));
        }
        if !state.assignment.replicas.contains(&chosen) {
            return Err(not_assigned(chosen));
        }
        let epoch = state.epoch.next();
        Ok(Some(PartitionState {
            leader: None,
            hint: Some(chosen),
            epoch,
            isr: vec![member],
            assignment: state.assignment.clone(),
            last_unclean_epoch: epoch,
        }))
    });
    let Some((old, new)) = changed.await.map_err(place)? else { return Ok(()) };
    let in_sync: Vec<_> = old.isr.iter().map(|member| member.broker).collect();
    let event = term.history().event(EventKind::UncleanElection).topic(&request.topic).partition(id.partition);
    let event = event.broker(chosen).epoch(new.epoch).seen(format!("in sync: {}", reassign::list(&in_sync)));
    let event = event.decided(format!("the copy of broker {chosen} is believed; loss is accepted"));
    let event = event.result(format!("not fenced, because they could not be reached: {}", reassign::list(&unreached)));
    term.history().record(event.who(who(&request.who)));
    Ok(())
}

fn elected_meanwhile(before: &PartitionState, now: &PartitionState) -> Error {
    let who = now.leader.map_or_else(|| "nobody leads".to_owned(), |leader| format!("broker {} leads", leader.broker));
    let cause = format!(
        "the epoch was {} and is {} by now, and {who}: see whether loss still has to be accepted, and repeat it",
        before.epoch, now.epoch
    );
    Error::new(ErrorCode::FencedEpoch, cause).epoch(now.epoch.0)
}

fn not_assigned(broker: BrokerId) -> Error {
    Error::new(ErrorCode::UnknownBroker, format!("broker {broker} holds no copy of the partition"))
}

/// The copy to believe, as far as the registry knows it.
fn chosen_member(term: &Term, state: &PartitionState, chosen: BrokerId) -> Result<Member, Error> {
    if !state.assignment.replicas.contains(&chosen) {
        return Err(not_assigned(chosen));
    }
    term.view().read(|snapshot| {
        check_live(snapshot, chosen)?;
        let missing = || Error::new(ErrorCode::UnknownBroker, format!("broker {chosen} is not alive"));
        let disk = snapshot.brokers.get(&chosen).ok_or_else(missing)?.registration.disk;
        let listed = state.isr_member(chosen).filter(|member| member.disk == disk);
        Ok(listed.copied().unwrap_or(Member { broker: chosen, disk, generation: Generation(0) }))
    })
}

/// Fences every broker that holds a copy, the chosen one as well: its answer names the
/// generation of the copy. Returns who could not be reached.
async fn fence_all(
    term: &Term,
    id: TopicPartition,
    state: &PartitionState,
    mut chosen: Member,
) -> (Member, Vec<BrokerId>) {
    let mut brokers = state.assignment.replicas.clone();
    brokers.extend(state.leader.map(|leader| leader.broker));
    brokers.sort_unstable();
    brokers.dedup();
    let addresses: Vec<_> = term.view().read(|snapshot| {
        let address = |broker: &BrokerId| {
            let live = snapshot.brokers.get(broker)?;
            peer_address(*broker, &live.registration).ok()
        };
        brokers.iter().map(|broker| (*broker, address(broker))).collect()
    });
    let calls = addresses.into_iter().map(|(broker, address)| async move {
        let answer = match address {
            Some(address) => term.shared.brokers.fence(&address, id, state.epoch).await.ok(),
            None => None,
        };
        (broker, answer)
    });
    let mut unreached = Vec::new();
    for (broker, answer) in futures::future::join_all(calls).await {
        match answer {
            None => unreached.push(broker),
            Some(fenced) if broker == chosen.broker => {
                chosen.generation = fenced.generation.unwrap_or(chosen.generation);
            }
            Some(_) => {}
        }
    }
    (chosen, unreached)
}
