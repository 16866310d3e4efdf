//! What every test run exhausts, and that each rule is missed once it is gone.

use std::collections::HashMap;

use baton_model::bounds::Bounds;
use baton_model::explore::{Effort, explore, retell};
use baton_model::model::Replication;
use baton_model::state::State;
use baton_model::{mutants, presets, walk};
use stateright::{Checker, Model};

fn told(bounds: Bounds, trail: &baton_model::explore::Trail) -> String {
    format!("{}\n{}", retell(bounds, &trail.actions).join("\n"), trail.violation)
}

#[test]
fn small_bounds_are_exhausted_without_a_violation() {
    for preset in presets::PRESETS.iter().filter(|preset| preset.small) {
        let bounds = (preset.bounds)();
        let report = explore(bounds, &Effort { seconds: 300, ..Effort::default() });
        if let Some(trail) = &report.trail {
            panic!("{}:\n{}", preset.name, told(bounds, trail));
        }
        assert!(report.exhausted, "{} was not exhausted in 300 s", preset.name);
        let (states, steps, seconds) = (report.unique, report.generated, report.elapsed.as_secs_f64());
        println!("{:<24} {states:>9} states {steps:>9} steps {seconds:>6.1} s", preset.name);
    }
}

/// Stateright's own checker and this package's visit the same states.
#[test]
fn another_checker_counts_the_same_states() {
    for name in ["all-delayed", "lost-disk", "unclean", "min-changes"] {
        let bounds = (presets::find(name).expect("a preset").bounds)();
        let theirs = Replication::new(bounds).checker().spawn_bfs().join().unique_state_count();
        let ours = explore(bounds, &Effort { dominance: false, ..Effort::default() });
        assert!(ours.exhausted, "{name}");
        assert_eq!(ours.unique, theirs, "{name}");
    }
}

/// A leader that commits and then asks for another change of the in-sync replicas, all in one
/// step, had enough of them when it committed.
#[test]
fn what_is_committed_is_judged_by_those_who_counted_then() {
    use baton_model::action::Action;
    let broker = baton_model::names::broker;
    let way = [
        Action::Silent(broker(0), broker(1)),
        Action::Expire(broker(0)),
        Action::Answer(0),
        Action::Rejoin(broker(0)),
        Action::Crash(broker(2)),
        Action::Produce(broker(0)),
        Action::LoseDisk(broker(2)),
        Action::Restart(broker(2)),
        Action::Learn(broker(2), 1),
        Action::Apply(0),
        Action::Answer(0),
    ];
    let model = Replication::new((presets::find("main-min2").expect("a preset").bounds)());
    let mut state = model.initial();
    for action in way {
        let mut possible = Vec::new();
        model.actions(&state, &mut possible);
        assert!(possible.contains(&action), "{action}: {possible:?}");
        state = model.next_state(&state, action).expect("a step");
        assert_eq!(state.violation, None, "{action}");
    }
    assert_eq!(state.ledger.committed.len(), 1);
}

#[test]
fn every_rule_is_missed_when_it_is_gone() {
    let all = mutants::MUTANTS.iter().chain(mutants::DEEP);
    let missed: Vec<&str> = all.filter(|mutant| mutant.hunt().is_none()).map(|mutant| mutant.name).collect();
    assert!(missed.is_empty(), "nothing notices that these are gone: {missed:?}");
}

#[test]
fn walks_within_wide_bounds_are_clean() {
    let bounds = mutants::walk_bounds();
    if let Err((seed, trail)) = walk::walks(bounds, 0, 2_000, 200) {
        panic!("seed {seed}:\n{}", told(bounds, &trail));
    }
}

/// What a fingerprint leaves out, and that brokers change names in it, is sound only if states
/// that share one go on alike.
#[test]
fn states_with_the_same_fingerprint_have_the_same_successors() {
    let named = |name| (presets::find(name).expect("a preset").bounds)();
    for name in ["all-delayed", "crash", "expiry", "resign"] {
        let model = Replication::new(named(name));
        let mut seen: HashMap<u64, Vec<u64>> = HashMap::new();
        let mut waiting = vec![model.initial()];
        let mut compared = 0;
        while let Some(state) = waiting.pop() {
            let found = successors(&model, &state);
            let mut fingerprints: Vec<u64> = found.iter().map(|next| next.fingerprint).collect();
            fingerprints.sort_unstable();
            fingerprints.dedup();
            if let Some(known) = seen.get(&state.fingerprint) {
                assert_eq!(*known, fingerprints, "{name}: two states with one fingerprint go on differently");
                compared += 1;
                continue;
            }
            seen.insert(state.fingerprint, fingerprints);
            // Every way to a state, not only the first one, as long as there is room.
            waiting.extend(found.into_iter().filter(|next| !seen.contains_key(&next.fingerprint) || compared < 3_000));
            if seen.len() > 6_000 {
                break;
            }
        }
        assert!(compared > 100, "{name}: {compared} compared");
    }
}

fn successors(model: &Replication, state: &State) -> Vec<State> {
    let mut actions = Vec::new();
    model.actions(state, &mut actions);
    actions.into_iter().filter_map(|action| model.next_state(state, action)).collect()
}
