//! Identities of the model: a broker's number, and how often it began anew. Both are packed
//! into the identifiers of the protocol, so that renaming a broker renames all that is its.

use baton_core::ids::{BrokerId, CandidateSeq, DiskId, Incarnation};
use baton_core::replica::Names;

/// Three replicas and one that stands by.
pub const BROKERS_MAX: usize = 4;

#[must_use]
pub fn broker(index: usize) -> BrokerId {
    BrokerId(index as u32 + 1)
}

/// The place of a broker in the state's array.
#[must_use]
pub fn index(broker: BrokerId) -> usize {
    broker.0 as usize - 1
}

#[must_use]
pub fn disk(index: usize, serial: u8) -> DiskId {
    DiskId(u128::from(pack(index, serial)))
}

#[must_use]
pub fn incarnation(index: usize, serial: u8) -> Incarnation {
    Incarnation(pack(index, serial))
}

#[must_use]
pub fn candidate(index: usize, serial: u8) -> CandidateSeq {
    CandidateSeq(pack(index, serial) as i64)
}

fn pack(index: usize, serial: u8) -> u64 {
    u64::from(serial) << 8 | (index as u64 + 1)
}

/// One way to rename the brokers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Renaming {
    /// The new place of each broker.
    to: [u8; BROKERS_MAX],
    sorted: bool,
}

impl Renaming {
    /// Nobody is renamed, and the order of members is kept.
    pub const NONE: Self = Self { to: [0, 1, 2, 3], sorted: false };

    /// Brokers 2 and 3 change names, or nobody does. Broker 1 is told apart for ever: it leads
    /// in the first epoch.
    #[must_use]
    pub fn all(symmetric: bool) -> &'static [Self] {
        const fn of(to: [u8; BROKERS_MAX]) -> Renaming {
            Renaming { to, sorted: true }
        }
        const ALL: &[Renaming] = &[of([0, 1, 2, 3]), of([0, 2, 1, 3])];
        if symmetric { ALL } else { &[Self::NONE] }
    }

    #[must_use]
    pub fn place(&self, index: usize) -> usize {
        usize::from(self.to[index])
    }

    fn unpack(&self, packed: u64) -> u64 {
        let index = (packed & 0xff) as usize;
        packed & !0xff | (u64::from(self.to[index - 1]) + 1)
    }
}

impl Names for Renaming {
    fn broker(&self, broker: BrokerId) -> BrokerId {
        BrokerId(u32::from(self.to[index(broker)]) + 1)
    }

    fn disk(&self, disk: DiskId) -> DiskId {
        DiskId(u128::from(self.unpack(disk.0 as u64)))
    }

    fn incarnation(&self, incarnation: Incarnation) -> Incarnation {
        Incarnation(self.unpack(incarnation.0))
    }

    fn candidate(&self, candidate: CandidateSeq) -> CandidateSeq {
        CandidateSeq(self.unpack(candidate.0 as u64) as i64)
    }

    fn sorted(&self) -> bool {
        self.sorted
    }
}
