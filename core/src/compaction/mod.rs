//! Compaction: of every key the last record stays, and of a deleted key nothing.
//!
//! ```text
//!  start                clean_to                     end ≤ high watermark
//!    │ one record a key    │ dirty: keys repeat          │ left alone
//!    └──── 2. rewritten by the map ───────────────┐
//!                          └── 1. keys ▶ offset map ◀────┘
//! ```
//! A round reads the dirty part and notes where each key is last ([`OffsetMap`]); then it
//! reads all of it and drops what a later record replaces ([`clean`]). When the map is full
//! the round ends there, and the next one goes on. Each copy is compacted by its own broker:
//! records are removed, never moved, so that copies hold the same record at the same offset or
//! none.
//!
//! **The log keeps no gaps.** A batch that lost records keeps its first and last offset, its
//! epoch and its producer's numbers. One that lost all of them becomes an empty batch, and
//! neighbouring empty ones of one epoch become one, so that a gap in a log is always damage.
//! What the headers of a producer's latest batches say is kept, empty or not: duplicates are
//! recognised by a copy that was filled from a compacted one.
//!
//! **Tombstones** (a key with a null value) stay for `delete.retention.ms` after they were
//! first compacted; the time when they may go is written into their batch (KIP-534).

mod cleaning;
mod offset_map;
#[cfg(test)]
mod tests;

pub use cleaning::{Cleaned, Rules, clean, cut_empty, index};
pub use offset_map::OffsetMap;

/// What the records of one batch may inflate to; a batch beyond it is left as it is.
pub const INFLATED_BYTES_MAX: usize = 256 << 20;
