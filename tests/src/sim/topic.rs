//! The topics that the clients use, and what is promised for each.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A topic of the load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Topic {
    /// Nothing acknowledged may be lost, whatever happens.
    Orders,
    /// An operator may elect uncleanly here, and one replica is enough for an acknowledgement:
    /// what was acknowledged before an unclean election may be lost by it, and nothing else.
    Drafts,
}

impl Topic {
    pub const ALL: [Self; 2] = [Self::Orders, Self::Drafts];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Orders => "orders",
            Self::Drafts => "drafts",
        }
    }

    /// The one with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|topic| topic.name() == name)
    }

    /// Partitions at first.
    #[must_use]
    pub const fn partitions(self) -> u32 {
        match self {
            Self::Orders => 4,
            Self::Drafts => 2,
        }
    }

    /// `min.insync.replicas` at first.
    #[must_use]
    pub const fn min_insync(self) -> u32 {
        match self {
            Self::Orders => 2,
            Self::Drafts => 1,
        }
    }
}

/// A partition of the load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    pub topic: Topic,
    pub partition: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic.name(), self.partition)
    }
}
