//! Identities of the model: a broker's number, and how often it began anew. Both are packed
//! into the identifiers of the protocol, so that renaming a broker renames all that is its.

use std::cell::Cell;

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
}

/// Serial numbers above this one are never met within bounds that are exhausted.
const SERIALS: usize = 32;

/// Which serial numbers of disks, processes and sessions anybody remembers, one bit each.
#[derive(Clone, Debug, Default)]
pub struct Remembered {
    disks: [Cell<u32>; BROKERS_MAX],
    incarnations: [Cell<u32>; BROKERS_MAX],
    candidates: [Cell<u32>; BROKERS_MAX],
}

fn note(kind: &[Cell<u32>; BROKERS_MAX], packed: u64) {
    let (index, serial) = ((packed & 0xff) as usize - 1, packed >> 8);
    kind[index].set(kind[index].get() | 1 << serial.min(SERIALS as u64 - 1));
}

/// Takes part in hashing only to see which identities there are.
impl Names for Remembered {
    fn broker(&self, broker: BrokerId) -> BrokerId {
        broker
    }

    fn disk(&self, disk: DiskId) -> DiskId {
        note(&self.disks, disk.0 as u64);
        disk
    }

    fn incarnation(&self, incarnation: Incarnation) -> Incarnation {
        note(&self.incarnations, incarnation.0);
        incarnation
    }

    fn candidate(&self, candidate: CandidateSeq) -> CandidateSeq {
        note(&self.candidates, candidate.0 as u64);
        candidate
    }

    fn sorted(&self) -> bool {
        false
    }

    fn exact(&self) -> bool {
        false
    }

    fn ticks(&self) -> bool {
        false
    }
}

impl Places for Remembered {
    fn place(&self, index: usize) -> usize {
        index
    }

    fn compares_flows(&self) -> bool {
        true
    }
}

/// Names that know the places of a state's array, too.
pub trait Places: Names {
    fn place(&self, index: usize) -> usize;

    /// Whether a number of a flow is only ever compared with the follower's own.
    fn compares_flows(&self) -> bool;
}

/// How a state is hashed: brokers renamed, and each serial number replaced by its rank among
/// those that anybody remembers, as they are only compared with each other.
#[derive(Clone, Debug)]
pub struct Canon<'a> {
    pub renaming: Renaming,
    /// None: serial numbers are hashed as they are.
    pub remembered: Option<&'a Remembered>,
    pub ticks: bool,
    pub compares_flows: bool,
}

impl Canon<'_> {
    fn unpack(&self, packed: u64, kind: impl Fn(&Remembered) -> &[Cell<u32>; BROKERS_MAX]) -> u64 {
        let (index, serial) = ((packed & 0xff) as usize - 1, packed >> 8);
        let rank = match self.remembered {
            Some(remembered) if serial < SERIALS as u64 - 1 => {
                u64::from((kind(remembered)[index].get() & ((1 << serial) - 1)).count_ones())
            }
            _ => serial,
        };
        rank << 8 | (self.renaming.place(index) as u64 + 1)
    }
}

impl Names for Canon<'_> {
    fn broker(&self, broker: BrokerId) -> BrokerId {
        BrokerId(self.renaming.place(index(broker)) as u32 + 1)
    }

    fn disk(&self, disk: DiskId) -> DiskId {
        DiskId(u128::from(self.unpack(disk.0 as u64, |r| &r.disks)))
    }

    fn incarnation(&self, incarnation: Incarnation) -> Incarnation {
        Incarnation(self.unpack(incarnation.0, |r| &r.incarnations))
    }

    fn candidate(&self, candidate: CandidateSeq) -> CandidateSeq {
        CandidateSeq(self.unpack(candidate.0 as u64, |r| &r.candidates) as i64)
    }

    fn sorted(&self) -> bool {
        self.renaming.sorted
    }

    fn exact(&self) -> bool {
        self.remembered.is_none()
    }

    fn ticks(&self) -> bool {
        self.ticks
    }
}

impl Places for Canon<'_> {
    fn place(&self, index: usize) -> usize {
        self.renaming.place(index)
    }

    fn compares_flows(&self) -> bool {
        self.compares_flows
    }
}
