//! Named branches of the protocol, counted where they are taken: so that a simulation can say
//! which decisions its seeds never reached. Without the feature `branches` nothing is compiled.
//!
//! The counts belong to the thread, as a simulation runs in one.

/// Every branch that is named with [`reached!`](crate::branches). A name that is not here does
/// not compile, and a test finds one that is no longer used.
pub const NAMES: &[&str] = &[
    "detector.asks_others",
    "detector.heard_though_unregistered",
    "detector.notes_another_incarnation",
    "detector.notes_draining",
    "detector.port_refused",
    "detector.silence_confirmed",
    "detector.silent_after_session",
    "detector.takes_no_late_answer",
    "detector.unregistered_while_silent",
    "election.detector_pauses",
    "election.elects_after_candidate_gone",
    "election.elects_after_detector",
    "election.elects_itself_again",
    "election.elects_without_leader",
    "election.goes_first_as_named",
    "election.ineligible_leaves_queue",
    "election.lets_healthy_leader_return",
    "election.lets_named_one_go_first",
    "election.old_generation_leaves_queue",
    "election.queues",
    "election.waits_for_its_turn",
    "follower.acknowledges",
    "follower.announced",
    "follower.announced_again",
    "follower.announcement_is_old",
    "follower.append_does_not_continue",
    "follower.append_of_another_flow",
    "follower.append_while_not_ready",
    "follower.asks_registry_before_truncating",
    "follower.begins_generation",
    "follower.empties_damaged_copy",
    "follower.greets_again_after_mismatch",
    "follower.greets_again_unanswered",
    "follower.has_nothing_to_truncate",
    "follower.hello_not_yet",
    "follower.hello_was_fenced",
    "follower.pauses_on_full_disk",
    "follower.reply_is_old",
    "follower.restarts_at_leaders_start",
    "follower.restarts_below_own_start",
    "follower.truncates",
    "follower.truncates_after_unclean",
    "follower.waits_for_epoch_on_disk",
    "follower.waits_for_log",
    "isr.conflict",
    "isr.counts_until_confirmed",
    "isr.dead_leaves",
    "isr.expands",
    "isr.follower_behind_leaves",
    "isr.joining_pauses_after_refusal",
    "isr.keeps_min",
    "isr.leader_among_removed_hands_over",
    "isr.leader_isolated_steps_down",
    "isr.leader_starved_resigns",
    "isr.other_identity_leaves",
    "isr.other_identity_replaces",
    "isr.reassignment_settles",
    "isr.reassignment_waits",
    "isr.refused",
    "isr.refused_after_unknown",
    "isr.removed_or_draining_leaves",
    "isr.resigned",
    "isr.resigning_given_up",
    "isr.resigning_refused",
    "isr.resigning_waits_for_successor",
    "isr.silent_leaves",
    "isr.unknown_outcome",
    "isr.unknown_outcome_found_undone",
    "isr.written_again_after_unknown",
    "leader.ack_beyond_what_was_sent",
    "leader.ack_of_another_flow",
    "leader.ack_of_older_epoch",
    "leader.ack_while_closed",
    "leader.adopts_state",
    "leader.begins_epoch",
    "leader.commit_waits_for_epoch_on_disk",
    "leader.commit_waits_for_min",
    "leader.duplicate_answered",
    "leader.duplicate_waits",
    "leader.elected_again_keeps_waiting",
    "leader.flow_stands_still",
    "leader.follower_becomes_live",
    "leader.follower_reads_from_log",
    "leader.follower_window_full",
    "leader.forgets_removed_follower",
    "leader.hello_before_epoch_on_disk",
    "leader.hello_diverged_over_several_epochs",
    "leader.hello_finds_log_changing",
    "leader.hello_of_damaged_member",
    "leader.hello_of_dead_process",
    "leader.hello_of_older_epoch",
    "leader.hello_of_unassigned",
    "leader.hello_overtaken",
    "leader.hello_restarts_copy",
    "leader.hello_truncates",
    "leader.hello_under_another_identity",
    "leader.hello_while_not_leading",
    "leader.high_watermark_rises",
    "leader.marker_again",
    "leader.marker_fenced",
    "leader.marker_late",
    "leader.outsiders_greet_again",
    "leader.read_found_log_moved",
    "leader.refuses_few_alive",
    "leader.refuses_in_transaction",
    "leader.refuses_many_waiting",
    "leader.refuses_not_leading",
    "leader.refuses_while_cutting",
    "leader.refuses_while_resigning",
    "leader.tells_high_watermark",
    "leader.verifies_transaction",
    "partition.old_leader_kept_for_min",
    "partition.old_leader_leaves",
    "producer.duplicate",
    "producer.evicted",
    "producer.expired",
    "producer.fenced",
    "producer.forgotten",
    "producer.new_epoch",
    "producer.out_of_order",
    "producer.window_starts_anew",
    "replica.append_failed",
    "replica.completion_of_older_term",
    "replica.damaged_copy_does_not_lead",
    "replica.fenced_by_later_epoch",
    "replica.found_damaged",
    "replica.found_damaged_again",
    "replica.full_leader_passes_on",
    "replica.given_up_epoch_not_resumed",
    "replica.halted",
    "replica.log_start_moves",
    "replica.nobody_leads",
    "replica.refuses_while_halted",
    "replica.same_state_again_while_idle",
    "replica.state_named_earlier_incarnation",
    "replica.state_of_older_epoch",
    "replica.tells_leader_of_later_epoch",
    "replica.trim_of_older_copy",
];

/// Counts that this branch was taken.
macro_rules! reached {
    ($name:literal) => {
        #[cfg(any(test, feature = "branches"))]
        {
            const INDEX: usize = $crate::branches::counting::index_of($name);
            $crate::branches::counting::note(INDEX);
        }
    };
}
pub(crate) use reached;

#[cfg(any(test, feature = "branches"))]
pub(crate) mod counting {
    use std::cell::RefCell;

    use super::NAMES;

    thread_local! {
        static COUNTS: RefCell<[u64; NAMES.len()]> = const { RefCell::new([0; NAMES.len()]) };
    }

    /// The place of a name in the list; evaluated while compiling.
    pub const fn index_of(name: &str) -> usize {
        let mut index = 0;
        while !equal(NAMES[index].as_bytes(), name.as_bytes()) {
            index += 1;
            assert!(index < NAMES.len(), "this branch is not in the list of names");
        }
        index
    }

    const fn equal(a: &[u8], b: &[u8]) -> bool {
        if a.len() != b.len() {
            return false;
        }
        let mut i = 0;
        while i < a.len() {
            if a[i] != b[i] {
                return false;
            }
            i += 1;
        }
        true
    }

    pub fn note(index: usize) {
        COUNTS.with_borrow_mut(|counts| counts[index] = counts[index].saturating_add(1));
    }

    pub fn all() -> [u64; NAMES.len()] {
        COUNTS.with_borrow(|counts| *counts)
    }

    pub fn clear() {
        COUNTS.with_borrow_mut(|counts| counts.fill(0));
    }
}

/// How often this thread took each branch, in the order of [`NAMES`].
#[cfg(any(test, feature = "branches"))]
#[must_use]
pub fn counts() -> Vec<(&'static str, u64)> {
    NAMES.iter().copied().zip(counting::all()).collect()
}

/// The branches that this thread never took.
#[cfg(any(test, feature = "branches"))]
#[must_use]
pub fn unreached() -> Vec<&'static str> {
    counts().into_iter().filter(|(_, count)| *count == 0).map(|(name, _)| name).collect()
}

/// Begins to count anew in this thread.
#[cfg(any(test, feature = "branches"))]
pub fn reset() {
    counting::clear();
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn sources(dir: &Path, text: &mut String) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, text);
            } else if path.extension().is_some_and(|e| e == "rs") && !path.ends_with("branches.rs") {
                text.push_str(&std::fs::read_to_string(path).unwrap());
            }
        }
    }

    #[test]
    fn every_name_is_used_at_one_place_or_more() {
        let mut text = String::new();
        sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut text);
        let unused: Vec<_> = NAMES.iter().filter(|name| !text.contains(&format!("reached!(\"{name}\")"))).collect();
        assert!(unused.is_empty(), "listed and used nowhere: {unused:?}");
    }

    #[test]
    fn names_are_sorted_and_unique() {
        assert!(NAMES.windows(2).all(|pair| pair[0] < pair[1]));
    }

    #[test]
    fn counts_belong_to_the_thread() {
        reset();
        reached!("replica.halted");
        assert!(counts().contains(&("replica.halted", 1)));
        assert!(!unreached().contains(&"replica.halted"));
        let elsewhere = std::thread::scope(|scope| scope.spawn(unreached).join().unwrap());
        assert_eq!(elsewhere.len(), NAMES.len());
        reset();
        assert_eq!(unreached().len(), NAMES.len());
    }
}
