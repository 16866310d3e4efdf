//! The decisions of the core that whole clusters never take here, each with its reason. What is
//! tested by messages and by the core's own walks is not less tested for that.

use std::collections::BTreeMap;

/// Names of branches, and why no run reaches them.
pub const UNREACHABLE: &[(&str, &str)] = &[
    ("follower.append_does_not_continue", IN_ORDER),
    ("follower.append_while_not_ready", "a leader sends nothing before the first acknowledgement of a flow"),
    ("leader.ack_beyond_what_was_sent", "only a follower that breaks the protocol acknowledges more"),
    ("leader.hello_of_damaged_member", FOUND_ON_OPENING),
    ("leader.hello_overtaken", IN_ORDER),
    ("leader.refuses_many_waiting", "100,000 records of one partition would have to wait"),
    ("producer.evicted", "one partition would need more producers than a log remembers"),
    ("producer.expired", "a producer is forgotten after days"),
];

const IN_ORDER: &str = "a connection brings messages in the order in which they were sent, or breaks";
const FOUND_ON_OPENING: &str = "a copy that lost something is found on opening, and greets as another member";

/// The branches that were never taken, apart from those that cannot be.
#[must_use]
pub fn surprising(counts: &BTreeMap<String, u64>) -> Vec<&str> {
    let never = counts.iter().filter(|(_, count)| **count == 0).map(|(name, _)| name.as_str());
    never.filter(|name| UNREACHABLE.iter().all(|(known, _)| known != name)).collect()
}

/// What is listed as unreachable, and was reached all the same.
#[must_use]
pub fn reached_after_all(counts: &BTreeMap<String, u64>) -> Vec<&'static str> {
    let reached = |name: &str| counts.get(name).is_some_and(|count| *count > 0);
    UNREACHABLE.iter().map(|(name, _)| *name).filter(|name| reached(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use baton_core::branches::NAMES;

    #[test]
    fn the_core_has_these_names() {
        assert!(UNREACHABLE.iter().all(|(name, _)| NAMES.contains(name)));
    }
}
