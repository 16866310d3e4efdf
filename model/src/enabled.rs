//! What can happen next, within the bounds.

use baton_core::ids::BrokerId;
use baton_core::replica::{RoleView, WriteKind, WriteOutcome};

use crate::action::Action;
use crate::bounds::Limits;
use crate::disk::LogOp;
use crate::model::Replication;
use crate::names;
use crate::network::Link;
use crate::node::{Node, Process};
use crate::registry::Write;
use crate::state::{State, Used};

pub fn enabled(model: &Replication, state: &State, out: &mut Vec<Action>) {
    let (limits, used) = (&model.bounds.limits, &state.used);
    deliveries(model, state, out);
    writes(model, state, out);
    for node in &state.nodes {
        match &node.process {
            Some(process) => running(model, state, node, process, out),
            None => dead(limits, state, node, out),
        }
        let session = state.registry.registered[node.place].is_some();
        if session && used.expiries < limits.expiries && expiry_matters(model, state, node) {
            out.push(Action::Expire(node.broker()));
        }
        if used.uncleans < limits.uncleans && may_be_chosen(state, node) {
            out.push(Action::Unclean(node.broker()));
        }
    }
    if used.min_changes < limits.min_changes {
        let others = (1..=model.bounds.replicas).filter(|min| *min != state.min_insync);
        out.extend(others.map(Action::SetMin));
    }
    reassignments(limits, state, out);
}

/// A session that ends takes its writes with it, and a leader's place in the queue. Whoever
/// neither leads nor is named as leader only reads and elects no more until it is back, as it
/// might do with its session, too; but a write that lets it in, or hands over to it, is refused.
/// So it is enough if such a session ends while such a write is under way.
fn expiry_matters(model: &Replication, state: &State, node: &Node) -> bool {
    let broker = node.broker();
    let registry = &state.registry;
    let leads = node.leads() || registry.state.leader.is_some_and(|leader| leader.broker == broker);
    let needs =
        |w: &Write| w.from == broker || w.toward == Some(broker) || w.joining.iter().any(|m| m.broker == broker);
    !model.reduced || leads || registry.writes.iter().any(needs)
}

fn deliveries(model: &Replication, state: &State, out: &mut Vec<Action>) {
    for (at, (link, _)) in state.network.iter().enumerate() {
        let before = state.network[..at].iter().filter(|(other, _)| other == link).count();
        match before {
            0 => out.push(Action::Deliver(*link)),
            count if model.bounds.reorders => out.push(Action::Overtake(*link, count as u8)),
            _ => {}
        }
    }
}

fn writes(model: &Replication, state: &State, out: &mut Vec<Action>) {
    let (limits, used) = (&model.bounds.limits, &state.used);
    for (at, write) in state.registry.writes.iter().enumerate() {
        if write.outcome.is_none() {
            let outcome = state.registry.judge(write, model.bounds.outside.join_unchecked);
            let changes = write.kind == WriteKind::Isr && matches!(outcome, WriteOutcome::Done { .. });
            if !changes || used.isr_changes < limits.isr_changes {
                out.push(Action::Apply(at));
            }
        } else {
            out.push(Action::Answer(at));
        }
        let unknown = write.outcome == Some(WriteOutcome::Unknown);
        if !write.forgotten && !unknown && used.unknowns < limits.unknowns {
            out.push(Action::LoseAnswer(at));
        }
    }
}

fn running(model: &Replication, state: &State, node: &Node, process: &Process, out: &mut Vec<Action>) {
    let (limits, used) = (&model.bounds.limits, &state.used);
    let at = node.broker();
    match process.replica.role() {
        RoleView::Leader { resigning } => leading(model, state, node, process, resigning, out),
        RoleView::Follower { leader, .. } => following(state, process, at, leader, out),
        RoleView::Idle | RoleView::Halted => {}
    }
    if let Some(op) = process.ops.front() {
        out.push(Action::Sync(at));
        if matches!(op, LogOp::Append { .. }) && used.full_disks < limits.full_disks {
            out.push(Action::FullDisk(at));
        }
    }
    if process.connected {
        readings(model, state, process, at, out);
        if state.registry.state.epoch.0 < u32::from(limits.epochs) && is_up_to_date(state, process) {
            out.push(Action::Elect(at));
        }
    } else {
        out.push(Action::Rejoin(at));
    }
    if process.replica.min_insync() != usize::from(state.min_insync) {
        out.push(Action::LearnMin(at));
    }
    if used.crashes < limits.crashes {
        out.push(Action::Crash(at));
    }
    if used.resets < limits.resets {
        for other in state.nodes.iter().filter(|n| n.process.is_some() && n.place != node.place) {
            out.push(Action::Reset(at, other.broker()));
        }
    }
}

fn is_up_to_date(state: &State, process: &Process) -> bool {
    process.replica.known().is_some_and(|known| known.version == state.registry.version)
}

/// A newer state, or the same one if the process asked for it.
fn readings(model: &Replication, state: &State, process: &Process, at: BrokerId, out: &mut Vec<Action>) {
    let known = process.replica.known().map(|known| known.version);
    let latest = state.registry.version;
    if known < Some(latest) || process.reads {
        out.push(Action::Learn(at, latest));
    }
    if model.bounds.late_reads {
        let earlier = state.registry.earlier.iter().map(|(version, _)| *version);
        let back = model.bounds.mutations.has(baton_core::replica::Mutation::StateGoesBack);
        out.extend(earlier.filter(|v| known < Some(*v) || back).map(|v| Action::Learn(at, v)));
    }
}

fn leading(model: &Replication, state: &State, node: &Node, process: &Process, resigning: bool, out: &mut Vec<Action>) {
    let (limits, used) = (&model.bounds.limits, &state.used);
    let at = node.broker();
    if !resigning {
        if used.writes < limits.writes {
            out.push(Action::Produce(at));
        }
        if used.retries < limits.retries {
            out.extend((1..=used.writes).map(|id| Action::Retry(at, id)));
        }
    }
    opinions(model, state, node, process, out);
    let listed = |other: BrokerId| process.replica.known().is_some_and(|k| k.state.isr_member(other).is_some());
    if !resigning && used.resigns < limits.resigns {
        let others = state.nodes.iter().map(|n| n.broker()).filter(|other| *other != at && listed(*other));
        out.extend(others.map(|other| Action::Resign(at, other)));
    }
    if model.bounds.ticks {
        out.push(Action::Tick(at));
    }
    if used.isolations < limits.isolations {
        out.push(Action::Isolate(at));
    }
}

/// What the detector says matters only where it makes the leader write at once. Later it would
/// come to the same as after the answer; and a leader that does not know the latest state
/// could as well have written before that state came to be. Once no change of the in-sync
/// replicas may be carried out any more, no opinion asks for one.
fn opinions(model: &Replication, state: &State, node: &Node, process: &Process, out: &mut Vec<Action>) {
    let Some(known) = process.replica.known() else { return };
    let waits = process.replica.awaited_attempt().is_some();
    let spent = state.used.isr_changes >= model.bounds.limits.isr_changes;
    if waits || known.version != state.registry.version || spent {
        return;
    }
    let isr = &known.state.isr;
    for other in state.nodes.iter().filter(|n| n.place != node.place) {
        let listed = isr.iter().any(|m| m.broker == other.broker());
        if !process.hears(other.place) {
            out.push(Action::Heard(node.broker(), other.broker()));
        } else if listed && isr.len() > shrinkable(model, process) {
            out.push(Action::Silent(node.broker(), other.broker()));
        }
    }
}

/// The in-sync replicas shrink only where there are more than this many.
fn shrinkable(model: &Replication, process: &Process) -> usize {
    let below = model.bounds.mutations.has(baton_core::replica::Mutation::ShrinkBelowMin);
    if below { 1 } else { process.replica.min_insync() }
}

/// A follower whose Hello got no answer that helps asks again once it would get one.
fn following(state: &State, process: &Process, at: BrokerId, leader: BrokerId, out: &mut Vec<Action>) {
    let between = |link: &Link| (link.from == at && link.to == leader) || (link.from == leader && link.to == at);
    let quiet = !state.network.iter().any(|(link, _)| between(link));
    let target = state.nodes[names::index(leader)].process.as_ref();
    let answers = target.is_some_and(|p| p.leads() && p.replica.epoch() >= process.replica.epoch());
    if process.replica.would_greet() && quiet && answers {
        out.push(Action::Tick(at));
    }
}

fn dead(limits: &Limits, state: &State, node: &Node, out: &mut Vec<Action>) {
    let used = &state.used;
    let at = node.broker();
    out.push(Action::Restart(at));
    if !may_lose(state, node) {
        return;
    }
    if used.disk_losses < limits.disk_losses {
        out.push(Action::LoseDisk(at));
    }
    if used.damages < limits.damages {
        let records = node.stable.records.len() as u8;
        out.extend((0..=records).map(|keep| Action::Damage(at, keep)));
    }
}

/// Whether somebody else's copy is in sync and intact, and no write of the dead broker may yet
/// leave it as the only member.
fn may_lose(state: &State, node: &Node) -> bool {
    let registry = &state.registry;
    let intact = |n: &&std::sync::Arc<Node>| n.place != node.place && registry.state.in_isr(&n.member());
    let writes = registry.writes.iter().any(|w| w.from == node.broker() && w.outcome.is_none());
    !writes && state.nodes.iter().any(|n| intact(&n))
}

/// The operator is shown copies that are not damaged and not being refilled.
fn may_be_chosen(state: &State, node: &Node) -> bool {
    let assigned = state.registry.state.assignment.replicas.contains(&node.broker());
    let whole = node.process.as_ref().is_none_or(|process| {
        process.ops.is_empty() && process.replica.member() == node.member() && !process.replica.is_damaged()
    });
    assigned && whole && !node.damaged
}

fn reassignments(limits: &Limits, state: &State, out: &mut Vec<Action>) {
    let Used { reassigns, .. } = state.used;
    let assignment = &state.registry.state.assignment;
    let settled = assignment.adding.is_empty() && assignment.removing.is_empty();
    let spare = names::broker(names::BROKERS_MAX - 1);
    if reassigns >= limits.reassigns || !settled || assignment.replicas.contains(&spare) {
        return;
    }
    out.extend(assignment.replicas.iter().map(|leaving| Action::Reassign(*leaving)));
}
