//! Histories of what clients sent, were told and read, and the checker that holds them against
//! what Baton promises.
//!
//! | module | what is there |
//! |---|---|
//! | [`event`] | the events, and their form as JSON Lines |
//! | [`record`] | writing a history: into memory or into a file |
//! | [`read`] | reading history files, and checking them |
//! | [`check`] | the checker |
//! | [`report`] | the kinds of anomalies, and what was found |
//! | [`version`] | which behaviour a result belongs to |
//! | [`synthetic`] | histories of a broker that does everything right, of any length |
//!
//! # The format
//!
//! A history is one file or several, each JSON Lines: one object a line, `\n` after each, UTF-8,
//! at most [`read::LINE_BYTES_MAX`] bytes a line. The first line of each file says what it is:
//!
//! ```json
//! {"baton_history":1,"source":"producer-3"}
//! ```
//!
//! Every other line is an object with one key, the event's name; [`event::Event`] has one variant
//! for each, with its fields:
//!
//! ```json
//! {"producer":{"producer":"p1","idempotent":true}}
//! {"send":{"producer":"p1","partition":"orders/0","sequence":0,"payload":17,"sent_us":1000}}
//! {"ack":{"producer":"p1","partition":"orders/0","sequence":0,"offset":5,"epoch":3,"received_us":1900}}
//! {"fail":{"producer":"p1","partition":"orders/0","sequence":1,"received_us":1950,"reason":"refused"}}
//! {"unknown":{"producer":"p1","partition":"orders/0","sequence":2,"received_us":1990,"reason":"timed out"}}
//! {"poll":{"consumer":"c1","partition":"orders/0","from":5,"high_watermark":6,"sent_us":2000,"received_us":2100,"records":[[5,17,3]]}}
//! {"poll_failed":{"consumer":"c1","partition":"orders/0","received_us":2200,"reason":"OFFSET_OUT_OF_RANGE"}}
//! {"commit":{"group":"g","partition":"orders/0","offset":6,"generation":1,"sent_us":2300,"received_us":2400}}
//! {"commit_failed":{"group":"g","partition":"orders/0","offset":6,"generation":1,"sent_us":2300,"received_us":2400,"reason":"fenced"}}
//! {"joined":{"group":"g","member":"m1","generation":1,"partitions":["orders/0"],"sent_us":2200,"received_us":2250}}
//! {"resumed":{"group":"g","member":"m1","partition":"orders/0","generation":1,"offset":0,"log_start":0,"received_us":2260}}
//! {"committed":{"group":"g","partition":"orders/0","offset":6,"sent_us":2500,"received_us":2600}}
//! {"unclean":{"partition":"orders/0","epoch":4,"at_us":2700}}
//! {"replica":{"broker":1,"partition":"orders/0","log_start":0,"high_watermark":6,"end":6,"at_us":2800,"from":5,"to":6,"records":[[5,17,3]]}}
//! {"final":{"partition":"orders/0","log_start":0,"end":6,"at_us":2900}}
//! ```
//!
//! Rules for whoever writes one:
//! - Times are microseconds on a clock that all processes share, up to the skew that the checker
//!   is told ([`check::Options::skew_us`]).
//! - A payload is a number of 64 bits by which a record's value is known again; no two sends of a
//!   history have the same. [`payload_id`] makes one of a value. A record that is none of this
//!   history's has `null` there.
//! - The events of one client stand in one file, or in several that are given in their order, in
//!   the order in which they happened to it: a send before its outcome, sequences rising within
//!   (producer, partition).
//! - A process that is killed leaves sends without an outcome (they count as unknown) and perhaps
//!   half a line at the end of its file.
//! - Who tells of a group's members (`joined`) tells of all of them, and of every commit, also of
//!   those that failed (`commit_failed`): what is committed must be what somebody committed.
//! - What was acknowledged is held against what anybody read. A loss shows only where `final`
//!   says that everything from `log_start` to `end` has been read; acknowledged records of a
//!   partition without it that nobody read are counted as unverified.
#![forbid(unsafe_code)]

pub mod check;
pub mod event;
pub mod read;
pub mod record;
pub mod report;
pub mod synthetic;
pub mod version;

pub use check::{Checker, Invalid, Options};
pub use event::{Event, payload_id};
pub use read::{ReadError, check_files};
pub use record::{History, Recorder};
pub use report::{Anomaly, Counts, Kind, Report};
