//! A batch that would open a transaction in a partition is appended only after the coordinator
//! has said that the transaction goes on and has this partition in it, so that the partition
//! will get its marker (KIP-890). Between the answer and the append the transaction may end:
//! its marker takes the guard away, and the batch has to be asked about again.

use std::collections::BTreeMap;

use super::{EndMarker, Standing, TransactionTable};
use crate::batch::BatchHeader;
use crate::error::ErrorCode;
use crate::ids::{Epoch, ProducerEpoch, ProducerId};
use crate::transaction::message::Protocol;

/// Stands for one transaction of one producer that is being asked about, by one leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Guard {
    leader_epoch: Epoch,
    number: u64,
}

/// What the leader does with a client's batch that [`crate::producer::ProducerTable::check`] let pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use]
pub enum Admission {
    Append,
    /// Ask the coordinator, and come again with this. Of a client of the second protocol the
    /// partition is added to the transaction ([`crate::transaction::message::Input::Add`]), of
    /// an older one it must be there ([`crate::transaction::message::Input::Verify`]).
    Verify(Guard),
    Refused(ErrorCode),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Asked {
    guard: Guard,
    epoch: ProducerEpoch,
    /// Of the batches that came: a later one must not be the first that is stored of a
    /// producer that nothing is known of, or the earlier ones could never be.
    lowest_sequence: i32,
}

/// What the leader of one partition has asked coordinators about, and did not append yet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Verification {
    leader_epoch: Epoch,
    asked: BTreeMap<ProducerId, Asked>,
    /// By age, to forget the oldest: its batches are asked about again.
    by_number: BTreeMap<u64, ProducerId>,
    next: u64,
    asked_max: usize,
}

impl Verification {
    /// For the leader of this epoch, with room for at most `asked_max` producers, and one.
    #[must_use]
    pub fn new(leader_epoch: Epoch, asked_max: usize) -> Self {
        let (asked, by_number) = (BTreeMap::new(), BTreeMap::new());
        Self { leader_epoch, asked, by_number, next: 0, asked_max: asked_max.max(1) }
    }

    /// What to do with a batch. `known`: the partition knows sequence numbers of its producer.
    /// `guard`: the coordinator has been asked under it, and agreed.
    pub fn admit(
        &mut self,
        table: &TransactionTable,
        known: bool,
        header: &BatchHeader,
        protocol: Protocol,
        guard: Option<Guard>,
    ) -> Admission {
        match table.standing(header) {
            Standing::Plain | Standing::Joins => Admission::Append,
            Standing::Refused(code) => Admission::Refused(code),
            Standing::Begins => self.admit_first(known, header, protocol, guard),
        }
    }

    fn admit_first(
        &mut self,
        known: bool,
        header: &BatchHeader,
        protocol: Protocol,
        guard: Option<Guard>,
    ) -> Admission {
        let asked = self.asked.get(&header.producer_id).copied();
        match asked {
            Some(asked) if asked.epoch > header.producer_epoch => Admission::Refused(ErrorCode::InvalidProducerEpoch),
            Some(asked) if asked.epoch == header.producer_epoch && guard == Some(asked.guard) => {
                let first = match protocol {
                    Protocol::First => asked.lowest_sequence,
                    // The sequence numbers begin anew with each transaction.
                    Protocol::Second => 0,
                };
                if !known && header.base_sequence > first {
                    return Admission::Refused(ErrorCode::OutOfOrderSequence);
                }
                Admission::Append
            }
            Some(asked) if asked.epoch == header.producer_epoch => {
                let lowest_sequence = asked.lowest_sequence.min(header.base_sequence);
                self.asked.insert(header.producer_id, Asked { lowest_sequence, ..asked });
                Admission::Verify(asked.guard)
            }
            _ => Admission::Verify(self.ask(header)),
        }
    }

    fn ask(&mut self, header: &BatchHeader) -> Guard {
        self.forget(header.producer_id);
        if self.asked.len() >= self.asked_max
            && let Some((_, oldest)) = self.by_number.pop_first()
        {
            self.asked.remove(&oldest);
        }
        let guard = Guard { leader_epoch: self.leader_epoch, number: self.next };
        self.next += 1;
        let asked = Asked { guard, epoch: header.producer_epoch, lowest_sequence: header.base_sequence };
        self.asked.insert(header.producer_id, asked);
        self.by_number.insert(guard.number, header.producer_id);
        guard
    }

    /// A batch of this producer was appended.
    pub fn began(&mut self, header: &BatchHeader) {
        if header.attributes.transactional() {
            self.forget(header.producer_id);
        }
    }

    /// A marker was appended: what was asked about the transaction that it ends is worth
    /// nothing any more. See [`TransactionTable::check_marker`] for `raised`.
    pub fn ended(&mut self, marker: &EndMarker, raised: bool) {
        let id = marker.producer.id;
        let over =
            |asked: &Asked| asked.epoch < marker.producer.epoch || !raised && asked.epoch == marker.producer.epoch;
        if self.asked.get(&id).is_some_and(over) {
            self.forget(id);
        }
    }

    fn forget(&mut self, id: ProducerId) {
        if let Some(asked) = self.asked.remove(&id) {
            self.by_number.remove(&asked.guard.number);
        }
    }
}
