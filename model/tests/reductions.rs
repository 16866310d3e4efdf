//! What fingerprints leave out, and states that others stand for, hide nothing: every view of
//! the cluster that the invariants have is reached with the reductions, too.

use std::collections::{BTreeSet, HashSet};
use std::hash::{Hash, Hasher};

use baton_model::bounds::{Bounds, Delays, Limits};
use baton_model::hasher::Digest;
use baton_model::model::Replication;
use baton_model::state::State;
use baton_model::visited::Visited;
use stateright::Model;

/// What the invariants look at: the registry, every log and role, and what was promised. Which
/// of brokers 2 and 3 is which does not matter.
fn view(state: &State) -> u64 {
    let renamed = |swap: bool| {
        let place = |place: usize| if swap && (1..3).contains(&place) { 3 - place } else { place };
        let broker = |broker: baton_core::ids::BrokerId| place(broker.0 as usize - 1);
        let registry = &state.registry.state;
        let mut isr: Vec<(usize, bool)> = registry
            .isr
            .iter()
            .map(|m| (broker(m.broker), state.nodes[m.broker.0 as usize - 1].member() == *m))
            .collect();
        isr.sort_unstable();
        let mut digest = Digest::default();
        (registry.epoch, registry.leader.map(|l| broker(l.broker)), isr, &state.ledger.committed).hash(&mut digest);
        let mut nodes = vec![0; state.nodes.len()];
        for node in &state.nodes {
            let mut one = Digest::default();
            (&node.stable.records, node.stable.epoch, &node.image().records).hash(&mut one);
            if let Some(process) = &node.process {
                let replica = &process.replica;
                let leads = replica.counted_members().map(|members| members.len());
                (leads, replica.confirmed_members(), replica.epoch(), replica.high_watermark()).hash(&mut one);
            }
            nodes[place(node.place)] = one.finish();
        }
        nodes.hash(&mut digest);
        digest.finish()
    };
    renamed(false).min(renamed(true))
}

/// All views, and how many states there were.
fn views(model: &Replication) -> (BTreeSet<u64>, usize) {
    let (mut found, mut all) = (BTreeSet::new(), HashSet::new());
    let mut few = Visited::new(true);
    let mut waiting = vec![model.initial()];
    while let Some(state) = waiting.pop() {
        let new = if model.reduced { few.insert(state.core, &state.used) } else { all.insert(state.fingerprint) };
        if !new {
            continue;
        }
        assert_eq!(state.violation, None);
        found.insert(view(&state));
        let mut actions = Vec::new();
        model.actions(&state, &mut actions);
        waiting.extend(actions.into_iter().filter_map(|action| model.next_state(&state, action)));
    }
    (found, few.len().max(all.len()))
}

#[test]
fn reductions_hide_no_view_of_the_cluster() {
    let limits = |writes, epochs, isr_changes| Limits { writes, epochs, isr_changes, ..Limits::default() };
    let instant = |min_insync, limits| Bounds { min_insync, limits, delays: Delays::NONE, ..Bounds::default() };
    let cases = [
        instant(1, Limits { crashes: 1, ..limits(1, 2, 1) }),
        instant(1, Limits { expiries: 2, ..limits(1, 1, 1) }),
        instant(2, Limits { crashes: 1, disk_losses: 1, ..limits(1, 1, 2) }),
        instant(1, Limits { resigns: 1, expiries: 1, ..limits(1, 2, 0) }),
        instant(1, Limits { expiries: 1, ..limits(1, 2, 1) }),
        instant(1, Limits { uncleans: 1, unknowns: 1, ..limits(1, 1, 1) }),
        Bounds { limits: limits(1, 2, 0), ..Bounds::default() },
        Bounds { lazy_disks: true, late_reads: true, ..instant(1, Limits { crashes: 1, ..limits(1, 2, 0) }) },
    ];
    for bounds in cases {
        let (all, states) = views(&Replication::plain(bounds));
        let (few, fewer) = views(&Replication::new(bounds));
        println!("{states} states, {fewer} with reductions, {} views: {:?}", all.len(), bounds.limits);
        assert_eq!(all.len(), few.len(), "{bounds:?}");
        assert!(all == few, "{bounds:?}");
        assert!(fewer < states, "{bounds:?}");
    }
}
