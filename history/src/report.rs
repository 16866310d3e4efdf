//! The kinds of anomalies, and what was found.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

macro_rules! kinds {
    ($($kind:ident $name:literal $explanation:literal)*) => {
        /// What must not be. The name is stable: programs and ledgers keep it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
        pub enum Kind {
            $(#[doc = $explanation] #[serde(rename = $name)] $kind,)*
        }

        impl Kind {
            pub const ALL: &[Self] = &[$(Self::$kind),*];

            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$kind => $name),* }
            }

            /// One sentence for people.
            #[must_use]
            pub fn explanation(self) -> &'static str {
                match self { $(Self::$kind => $explanation),* }
            }
        }
    };
}

kinds! {
    Lost "lost" "A record was acknowledged and is nowhere."
    Displaced "displaced" "A record was acknowledged at one offset and is at another one only."
    AcknowledgedTwice "acknowledged_twice" "One record was acknowledged at two offsets."
    AcknowledgedOver "acknowledged_over" "Two records were acknowledged at one offset."
    Duplicate "duplicate" "A record is there more than once."
    Reordered "reordered" "A producer's records of one partition are in another order than it sent them."
    RealTime "real_time" "A record that was acknowledged before another one was sent stands behind it."
    ReadLost "read_lost" "A record was read and is not there any more."
    ReadFailed "read_failed" "A record was read that its producer was told is not stored."
    Phantom "phantom" "A record was read that nobody sent."
    Misplaced "misplaced" "A record was read in another partition than it was sent to."
    ValuesDiffer "values_differ" "Two readers read different records at one offset."
    ReplicasDiffer "replicas_differ" "Below its high watermark a replica differs from another one or from what was read."
    Hole "hole" "An offset between the ends of a partition holds nothing."
    EpochBack "epoch_back" "The leader epoch of the records falls along the log."
    StaleAcknowledgement "stale_acknowledgement" "A record was acknowledged in an epoch after a larger one was seen, or before the one that wrote it."
    Skipped "skipped" "A poll left out offsets."
    Repeated "repeated" "A poll gave offsets again, or not in their order."
    HighWatermarkBack "high_watermark_back" "A consumer saw the high watermark go back."
    BeyondHighWatermark "beyond_high_watermark" "A poll gave a record at or above the high watermark that it told."
    PollFailed "poll_failed" "A consumer was told an error."
    CommitBack "commit_back" "A group's committed offset went back."
    StaleCommit "stale_commit" "A commit of an older generation was accepted after one of a newer generation, or after a member was in it."
    Redelivered "redelivered" "A member was handed what its group had committed in an earlier generation."
    PassedOver "passed_over" "A group went on beyond what any of its members committed."
    SharedPartition "shared_partition" "Two members had one partition in the same generation."
    GenerationBack "generation_back" "A member came into a generation after another one was in a later one."
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Anomaly {
    pub kind: Kind,
    pub partition: String,
    pub offsets: Vec<u64>,
    /// What happened, with names and numbers.
    pub what: String,
    /// The events that show it: `file:line`, or the number in a history in memory, from 0 on.
    pub events: Vec<String>,
}

/// How often a kind was found, and the first examples.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Found {
    pub count: u64,
    /// At most as many as the checker was told to keep.
    pub examples: Vec<Anomaly>,
}

/// What a history holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    pub events: u64,
    /// Records that were handed to a client.
    pub operations: u64,
    pub acknowledged: u64,
    pub failed: u64,
    /// Neither: also those without any outcome.
    pub unknown: u64,
    /// Records in polls.
    pub records_read: u64,
    pub polls: u64,
    pub commits: u64,
    pub replica_dumps: u64,
    pub unclean_elections: u64,
    pub partitions: u64,
    pub producers: u64,
    pub consumers: u64,
    pub groups: u64,
    /// Acknowledged, and found where it was acknowledged.
    pub verified: u64,
    /// Acknowledged, read by nobody, and nobody says that everything was read.
    pub unverified: u64,
    /// Acknowledged, and since removed by retention before anybody read it.
    pub expired: u64,
}

/// The verdict on a history.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    pub counts: Counts,
    /// What must not be.
    pub anomalies: BTreeMap<Kind, Found>,
    /// What would be an anomaly, but for an unclean election that allowed it, or because its
    /// producer is not idempotent.
    pub permitted: BTreeMap<Kind, Found>,
    /// What a reader should know: half a line at the end of a file.
    pub remarks: Vec<String>,
}

impl Report {
    /// Nothing was found that must not be.
    #[must_use]
    pub fn clean(&self) -> bool {
        self.anomalies.is_empty()
    }

    #[must_use]
    pub fn count(&self, kind: Kind) -> u64 {
        self.anomalies.get(&kind).map_or(0, |found| found.count)
    }

    #[must_use]
    pub fn permitted(&self, kind: Kind) -> u64 {
        self.permitted.get(&kind).map_or(0, |found| found.count)
    }
}

/// Everything for a test that fails: counts, kinds, and examples.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = &self.counts;
        let (n, acknowledged, verified) = (counts.operations, counts.acknowledged, counts.verified);
        writeln!(f, "{n} operations, {acknowledged} acknowledged, {verified} verified")?;
        for (heading, found) in [("anomalies", &self.anomalies), ("permitted", &self.permitted)] {
            for (kind, Found { count, examples }) in found {
                writeln!(f, "{heading}: {kind}: {count}: {}", kind.explanation())?;
                for Anomaly { partition, what, events, .. } in examples {
                    writeln!(f, "  {partition}: {what} ({})", events.join(", "))?;
                }
            }
        }
        Ok(())
    }
}
