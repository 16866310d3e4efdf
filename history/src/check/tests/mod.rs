//! Correct histories are clean; every kind of anomaly is found wherever it is planted.

mod plants;
mod rules;

use proptest::prelude::*;

use crate::event::Event;
use crate::record::History;
use crate::report::Kind;
use crate::synthetic::{Numbers, Shape, generate};
use crate::{Options, Report, check_files};

fn history(shape: Shape) -> History {
    let mut events = Vec::new();
    generate(shape, |event| events.push(event.into_owned()));
    History { events }
}

fn checked(history: &History) -> Report {
    history.check(Options::default()).unwrap()
}

fn shapes() -> impl Strategy<Value = Shape> {
    (any::<u64>(), 0_u64..600, 1_u32..4, 1_u32..4, 1_u32..4, 1_usize..30, any::<bool>()).prop_map(
        |(seed, operations, partitions, producers, consumers, poll_records_max, replicas)| Shape {
            seed,
            operations,
            partitions,
            producers,
            consumers,
            poll_records_max,
            replicas,
        },
    )
}

proptest! {
    #[test]
    fn correct_histories_are_clean(shape in shapes()) {
        let report = checked(&history(shape));
        prop_assert!(report.clean() && report.permitted.is_empty(), "{report}");
        prop_assert_eq!(report.counts.operations, shape.operations);
        prop_assert_eq!(report.counts.verified, report.counts.acknowledged);
        prop_assert_eq!(report.counts.unverified, 0);
    }

    #[test]
    fn every_anomaly_is_found_wherever_it_is(seed in any::<u64>()) {
        for kind in Kind::ALL {
            let mut planted = history(Shape::small(seed));
            let implied = plants::plant(*kind, &mut planted.events, &mut Numbers::new(seed ^ 0x5eed));
            let report = checked(&planted);
            prop_assert!(report.count(*kind) > 0, "{kind} is not found: {report}");
            for found in report.anomalies.keys() {
                prop_assert!(found == kind || implied.contains(found), "{kind} was planted, {found} is found: {report}");
            }
            let named = report.anomalies[kind].examples.iter().all(|found| !found.events.is_empty() && !found.what.is_empty());
            prop_assert!(named, "{report}");
        }
    }

    #[test]
    fn a_file_gives_the_same_verdict_as_the_memory(seed in any::<u64>(), kind in 0..Kind::ALL.len()) {
        let mut planted = history(Shape::small(seed));
        plants::plant(Kind::ALL[kind], &mut planted.events, &mut Numbers::new(seed));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("history.jsonl");
        planted.write(&path, "test").unwrap();
        let mut of_file = check_files(&[&path], Options::default()).unwrap();
        let prefix = format!("{}:", path.display());
        for example in of_file.anomalies.values_mut().chain(of_file.permitted.values_mut()).flat_map(|found| &mut found.examples) {
            for event in &mut example.events {
                let line: u64 = event.strip_prefix(&prefix).unwrap().parse().unwrap();
                *event = (line - 2).to_string();
            }
        }
        prop_assert_eq!(of_file, checked(&planted));
    }

    #[test]
    fn clients_may_write_files_of_their_own(seed in any::<u64>(), planted in any::<bool>()) {
        let mut whole = history(Shape::small(seed));
        if planted {
            plants::plant(Kind::Lost, &mut whole.events, &mut Numbers::new(seed));
        }
        // Readers first: what they read is only known later.
        let (readers, mut apart): (Vec<_>, Vec<_>) = whole.events.iter().cloned().partition(|event| !is_of_producer(event));
        apart.splice(0..0, readers);
        let counts = |report: &Report| -> Vec<(Kind, u64)> {
            report.anomalies.iter().map(|(kind, found)| (*kind, found.count)).collect()
        };
        prop_assert_eq!(counts(&checked(&History { events: apart })), counts(&checked(&whole)));
    }
}

fn is_of_producer(event: &Event<'_>) -> bool {
    matches!(event, Event::Producer(_) | Event::Send(_) | Event::Ack(_) | Event::Fail(_) | Event::Unknown(_))
}

#[test]
fn names_and_explanations_are_there_once() {
    let names: std::collections::BTreeSet<_> = Kind::ALL.iter().map(|kind| kind.name()).collect();
    assert_eq!(names.len(), Kind::ALL.len());
    for kind in Kind::ALL {
        assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
        assert!(kind.explanation().ends_with('.'), "{kind}");
    }
}

#[test]
fn the_same_seed_gives_the_same_history() {
    assert_eq!(history(Shape::small(5)), history(Shape::small(5)));
    assert_ne!(history(Shape::small(5)), history(Shape::small(6)));
}
