//! Random walks, for bounds that no run can exhaust.

use stateright::Model;

use crate::action::Action;
use crate::bounds::Bounds;
use crate::explore::Trail;
use crate::heal;
use crate::model::Replication;

/// SplitMix64: the same seed gives the same walk, on every machine and for ever.
#[derive(Clone, Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// Faults are rarer than what follows from them, or each limit would be used up at once.
fn weight(action: &Action) -> u64 {
    match action {
        Action::Overtake(..) => 3,
        Action::Deliver(_) | Action::Sync(_) | Action::Apply(_) | Action::Answer(_) | Action::Learn(..) => 24,
        Action::Produce(_) | Action::Tick(_) | Action::Rejoin(_) | Action::Restart(_) => 12,
        Action::Heard(..) | Action::LearnMin(_) | Action::Retry(..) | Action::Elect(_) => 4,
        Action::Silent(..) | Action::LoseDisk(_) | Action::Damage(..) | Action::LoseAnswer(_) => 2,
        _ => 1,
    }
}

/// One walk of at most `steps`, and a healing run from its end.
///
/// # Errors
/// The way to a violation.
pub fn walk(model: &Replication, seed: u64, steps: usize) -> Result<usize, Box<Trail>> {
    let mut random = Random(seed);
    let mut state = model.initial();
    let mut taken = Vec::new();
    let mut actions = Vec::new();
    while taken.len() < steps {
        actions.clear();
        model.actions(&state, &mut actions);
        let total: u64 = actions.iter().map(weight).sum();
        if total == 0 {
            break;
        }
        let mut at = random.below(total);
        let chosen = actions.iter().find(|action| {
            let here = at < weight(action);
            at = at.wrapping_sub(weight(action));
            here
        });
        let Some(action) = chosen.copied() else { break };
        let Some(next) = model.next_state(&state, action) else { break };
        taken.push(action);
        state = next;
        if let Some(violation) = &state.violation {
            return Err(Box::new(Trail { property: "a walk", actions: taken, violation: violation.clone() }));
        }
    }
    let count = taken.len();
    heal::heal(model, &state)
        .map(|()| count)
        .map_err(|violation| Box::new(Trail { property: "a walk", actions: taken, violation }))
}

/// Walks from consecutive seeds: how many steps they took.
///
/// # Errors
/// The first seed that breaks a promise, and how.
pub fn walks(bounds: Bounds, first: u64, count: u64, steps: usize) -> Result<usize, (u64, Box<Trail>)> {
    let model = Replication::new(bounds);
    let mut total = 0;
    for seed in first..first + count {
        total += walk(&model, seed, steps).map_err(|trail| (seed, trail))?;
    }
    Ok(total)
}
