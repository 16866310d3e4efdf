//! Consumer groups, hosted on the partitions of one internal topic.
//!
//! ```text
//! listeners ─▶ Groups (who coordinates a group; one call per request)
//!                │ bounded queue
//!                ▼
//!             Serving, one task for each led partition: core GroupCoordinator::step
//!                │ Append, in the leader epoch in which it was loaded   ▲ durable on every
//!                ▼                                                      │ in-sync replica
//!             shard ────────────────────────────────────────────────────┘
//! ```
//!
//! | module | what it does |
//! |---|---|
//! | [`handle`] | what listeners ask: [`Groups`] |
//! | [`requests`] | what they may ask, with topics by their names |
//! | `seats` | which coordinators sit on this broker |
//! | `host` | starts a task for each partition that is here, and makes the topic |
//! | `term` | one coordinator, from its election to its end |
//! | `load` | reads what earlier coordinators left |
//! | `serving` | carries out what the core decides |
//! | `encode` | records as batches |
//! | `sweep` | which topics are gone |

mod encode;
pub mod handle;
mod host;
mod load;
pub mod requests;
mod seats;
mod serving;
mod sweep;
mod term;

use baton_core::group::settings::GroupSettings;

use crate::config::GroupsConfig;
use crate::mutation::Mutations;

pub use handle::{GroupParts, Groups};
pub use host::HostParts;
pub use requests::{CommittedAt, FetchedAt, JoinRefused, NewOffset, Place, PlaceResult};

/// The topic whose partitions hold the groups. Tools know it by Kafka's name.
pub const GROUPS_TOPIC: &str = "__consumer_offsets";

/// The core's settings as the broker's configuration has them.
#[must_use]
#[cfg_attr(not(feature = "mutations"), expect(unused_variables, reason = "all rules hold"))]
pub fn settings(config: &GroupsConfig, mutations: Mutations) -> GroupSettings {
    let size = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
    GroupSettings {
        session_ms_min: config.session_ms_min,
        session_ms_max: config.session_ms_max,
        initial_delay_ms: config.initial_delay_ms,
        offsets_retention_ms: i64::try_from(config.offsets_retention_ms).unwrap_or(i64::MAX),
        offset_metadata_bytes_max: size(config.offset_metadata_bytes_max),
        members_max: size(config.members_max),
        groups_max: size(config.groups_max),
        #[cfg(feature = "mutations")]
        mutation: mutations.group,
        ..GroupSettings::default()
    }
}
