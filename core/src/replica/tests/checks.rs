//! The invariants of the protocol, looked at after every step.

use std::collections::BTreeMap;

use crate::batch::BatchHeader;
use crate::ids::{BrokerId, Epoch, Incarnation, Offset, ProducerId};
use crate::replica::tests::cluster::Cluster;
use crate::replica::tests::node::Image;
use crate::replica::{RequestId, Role, StoredBatch};

pub type Identity = (ProducerId, i32);
pub type Checked = Result<(), String>;

pub fn identity(batch: &StoredBatch) -> Identity {
    let header = BatchHeader::parse(&batch.bytes).unwrap();
    (header.producer_id, header.base_sequence)
}

/// What was promised so far.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    pub committed: BTreeMap<Offset, StoredBatch>,
    pub end: Offset,
    places: BTreeMap<Identity, Offset>,
    next: BTreeMap<ProducerId, i32>,
    leaders: BTreeMap<Epoch, (BrokerId, Incarnation)>,
    latest: BTreeMap<Epoch, Offset>,
    abandoned: bool,
    /// The highest log start that a client was told of.
    pub promised_start: Offset,
    pub asked: BTreeMap<RequestId, Identity>,
    /// Something has changed that invariants 1 and 4 depend on.
    pub dirty: bool,
}

impl Ledger {
    /// An operator chose this copy: what it lacks is announced as lost.
    pub fn abandon_what_is_not_in(&mut self, image: &Image) {
        let kept =
            |(at, batch): &(&Offset, &StoredBatch)| **at < image.start || image.batches.iter().any(|b| b == *batch);
        let end = self.committed.iter().take_while(kept).last().map_or(Offset::ZERO, |(_, b)| b.end());
        self.committed.retain(|at, _| *at < end);
        self.places.retain(|_, at| *at < end);
        self.next.clear();
        for batch in self.committed.values() {
            let header = BatchHeader::parse(&batch.bytes).unwrap();
            self.next.insert(header.producer_id, header.last_sequence() + 1);
        }
        self.end = end;
        self.latest.clear();
        self.abandoned = true;
        self.promised_start = self.promised_start.min(image.start);
    }

    /// Invariants 2 and 10: one value per offset, one offset per value, in order.
    fn commit(&mut self, batch: &StoredBatch) -> Checked {
        let id = identity(batch);
        let place = self.places.insert(id, batch.base);
        if let Some(place) = place {
            return Err(format!("10: {id:?} is committed at {place} and at {}", batch.base));
        }
        let header = BatchHeader::parse(&batch.bytes).unwrap();
        let expected = self.next.insert(id.0, header.last_sequence() + 1).unwrap_or(0);
        if expected != id.1 && !self.abandoned {
            return Err(format!("10: {id:?} is committed, and {expected} is next"));
        }
        self.committed.insert(batch.base, batch.clone());
        self.end = batch.end();
        self.dirty = true;
        Ok(())
    }

    /// Invariant 2, for what the client was told.
    pub fn acknowledged(&mut self, request: RequestId, base: Offset) -> Checked {
        let Some(id) = self.asked.remove(&request) else {
            return Err(format!("{request:?} was answered twice"));
        };
        match self.committed.get(&base) {
            Some(batch) if identity(batch) == id => Ok(()),
            other => Err(format!("2: {id:?} acknowledged at {base}, where {other:?} is")),
        }
    }
}

impl Cluster {
    /// After a step of `broker`.
    pub fn check(&mut self, broker: BrokerId) -> Checked {
        self.check_leader(broker)?;
        self.check_high_watermark(broker)?;
        self.check_unions()?;
        self.check_log_start(broker)?;
        if std::mem::take(&mut self.ledger.dirty) {
            self.check_completeness()?;
            self.check_matching(broker)?;
        }
        Ok(())
    }

    /// Invariant 3: one leader per epoch. Invariant 8: what clients see never goes back.
    fn check_leader(&mut self, broker: BrokerId) -> Checked {
        let Some(process) = &self.nodes[&broker].process else {
            return Ok(());
        };
        let Role::Leader(leader) = &process.replica.role else {
            return Ok(());
        };
        let me = (broker, process.incarnation);
        let first = self.ledger.leaders.entry(leader.epoch).or_insert(me);
        if *first != me {
            return Err(format!("3: {first:?} and {me:?} lead in epoch {}", leader.epoch));
        }
        if let Some(latest) = process.replica.latest() {
            let before = self.ledger.latest.range(..=leader.epoch).map(|(_, o)| *o).max();
            if before.is_some_and(|before| before > latest) {
                return Err(format!("8: clients saw {before:?} and now {latest}"));
            }
            self.ledger.latest.insert(leader.epoch, latest);
        }
        Ok(())
    }

    /// Invariant 5: whatever lies below a high watermark is committed. Only a leader commits.
    fn check_high_watermark(&mut self, broker: BrokerId) -> Checked {
        let Some(process) = &self.nodes[&broker].process else {
            return Ok(());
        };
        let (high, image) = (process.replica.high_watermark(), &process.image);
        if process.replica.is_damaged() {
            return Ok(());
        }
        let leads = matches!(process.replica.role, Role::Leader(_));
        if let Role::Leader(leader) = &process.replica.role
            && high > self.ledger.end
            && leader.isr.len() < process.replica.min_insync()
        {
            return Err(format!("{broker} commits {high} below its minimum"));
        }
        for batch in image.batches.iter().filter(|b| b.base < high) {
            match self.ledger.committed.get(&batch.base) {
                Some(known) if known == batch => {}
                None if leads && batch.base == self.ledger.end && batch.end() <= high => {
                    self.ledger.commit(batch)?;
                }
                // Given up by the operator, and not cut off yet.
                _ if batch.epoch < self.registry.latest().state.last_unclean_epoch => {}
                other => return Err(format!("5: {broker} has {batch:?} below {high}, committed is {other:?}")),
            }
        }
        let abandoned = self.registry.latest().state.last_unclean_epoch;
        let last = image.batches.last();
        let given_up = abandoned > Epoch::NONE && last.is_none_or(|b| b.epoch < abandoned);
        if high > self.ledger.end && !given_up {
            return Err(format!("5: {broker} has high watermark {high} beyond {}", self.ledger.end));
        }
        Ok(())
    }

    /// Invariant 12: whoever is in sync begins where clients were told that the log begins.
    fn check_log_start(&mut self, broker: BrokerId) -> Checked {
        let Some(process) = &self.nodes[&broker].process else {
            return Ok(());
        };
        let state = self.registry.latest().state;
        let abandoned = process.replica.epoch() < state.last_unclean_epoch;
        if let Some(start) = process.replica.start_everywhere().filter(|_| !abandoned)
            && start > self.ledger.promised_start
        {
            self.ledger.promised_start = start;
            self.ledger.dirty = true;
            self.coverage.entry("log start everywhere").and_modify(|n| *n += 1).or_insert(1);
        }
        if !self.ledger.dirty {
            return Ok(());
        }
        for member in &state.isr {
            let node = self.nodes.get(&member.broker).filter(|n| n.member() == *member && !n.damaged);
            if let Some(node) = node.filter(|n| n.stable.start < self.ledger.promised_start) {
                let (start, promised) = (node.stable.start, self.ledger.promised_start);
                return Err(format!("12: {member:?} is in sync from {start}, and clients were told {promised}"));
            }
        }
        Ok(())
    }

    /// Invariant 6: a leader counts everybody whom the registry lists.
    fn check_unions(&self) -> Checked {
        let state = self.registry.latest().state;
        let counts_too_few = |process: &crate::replica::tests::node::Process| {
            let Role::Leader(leader) = &process.replica.role else { return false };
            let named = state.leader.is_some_and(|l| l.incarnation == process.incarnation);
            let all = || leader.isr.iter().chain(leader.pending.iter().flat_map(|p| p.targets()));
            named && leader.epoch == state.epoch && !state.isr.iter().all(|m| all().any(|k| k == m))
        };
        let wrong = self.nodes.values().find(|n| n.process.as_ref().is_some_and(counts_too_few));
        wrong.map_or(Ok(()), |node| Err(format!("6: {} counts fewer than {:?}", node.broker, state.isr)))
    }

    /// Invariant 1: whatever is committed is on the disk of every in-sync replica.
    fn check_completeness(&self) -> Checked {
        for member in &self.registry.latest().state.isr {
            let Some(node) = self.nodes.get(&member.broker).filter(|n| n.member() == *member) else {
                continue;
            };
            for image in [&node.stable, node.image()] {
                let lacks = |(at, batch): &(&Offset, &StoredBatch)| {
                    **at >= image.start
                        && image
                            .batches
                            .binary_search_by_key(at, |b| &b.base)
                            .is_ok_and(|i| image.batches[i] != **batch)
                        || **at >= image.end()
                };
                if let Some((at, _)) = self.ledger.committed.iter().find(lacks) {
                    return Err(format!("1: {member:?} is in sync and lacks {at}"));
                }
            }
        }
        Ok(())
    }

    /// Invariant 4: equal epochs at one offset mean equal logs up to there.
    fn check_matching(&self, broker: BrokerId) -> Checked {
        let mine = &self.nodes[&broker].image().batches;
        for other in self.nodes.values().filter(|n| n.broker != broker) {
            let theirs = &other.image().batches;
            let find = |b: &StoredBatch| theirs.iter().find(|t| t.base == b.base);
            let agree = |b: &&StoredBatch| find(b).is_some_and(|t| t.epoch == b.epoch);
            let Some(top) = mine.iter().rev().find(agree).map(|b| b.base) else {
                continue;
            };
            let differs = |b: &&StoredBatch| b.base <= top && find(b).is_some_and(|t| t != *b);
            if let Some(batch) = mine.iter().find(differs) {
                return Err(format!("4: {broker} and {} differ at {}", other.broker, batch.base));
            }
        }
        Ok(())
    }
}
