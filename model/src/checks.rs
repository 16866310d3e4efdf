//! The invariants, looked at after every step. Their numbers are those of the protocol's page.

use std::sync::Arc;

use baton_core::ids::{Epoch, Offset};
use baton_core::partition::PartitionState;

use crate::disk::{Image, Record};
use crate::node::{Node, Process};
use crate::state::{Checked, Ledger, Violation};
use crate::step::World;

impl Ledger {
    fn get(&self, offset: u64) -> Option<Record> {
        self.committed.get(usize::try_from(offset).ok()?).copied()
    }
}

impl World<'_> {
    fn ledger(&mut self) -> &mut Ledger {
        Arc::make_mut(&mut self.state.ledger)
    }

    /// After each step of a replica: what its leader commits is promised from now on.
    pub fn note_commits(&mut self, place: usize) -> Checked {
        let node = Arc::clone(&self.state.nodes[place]);
        let Some(process) = node.process.as_ref().filter(|p| p.leads()) else {
            return Ok(());
        };
        let high = process.replica.high_watermark().0;
        while (self.state.ledger.committed.len() as u64) < high {
            self.commit(&node, process)?;
        }
        self.note_leader(&node, process)?;
        self.note_shown(process)
    }

    /// Invariants 9, 10 and 12, for the next offset that this leader commits.
    fn commit(&mut self, node: &Node, process: &Process) -> Checked {
        let offset = self.state.ledger.committed.len() as u64;
        let broker = node.broker();
        let Some(record) = node.image().at(offset) else {
            return Err(Violation::new(5, format!("broker {broker} commits {offset}, which it does not have")));
        };
        let confirmed = self.confirmed;
        if confirmed < process.replica.min_insync() {
            return Err(Violation::new(12, format!("broker {broker} commits {offset} with {confirmed} in sync")));
        }
        if let Some(place) = self.state.ledger.committed.iter().position(|r| r.id == record.id) {
            return Err(Violation::new(10, format!("record {} is committed at {place} and at {offset}", record.id)));
        }
        let isr = process.replica.known().map(|known| known.state.isr.clone()).unwrap_or_default();
        let epoch = process.replica.epoch();
        let lacks = |n: &&Arc<Node>| {
            n.place != node.place
                && isr.contains(&n.member())
                && n.stable.epoch > epoch
                && n.stable.at(offset) != Some(record)
        };
        if let Some(other) = self.state.nodes.iter().find(lacks) {
            let (other, later) = (other.broker(), other.stable.epoch);
            let what = format!("broker {broker} commits {offset} in {epoch}; {other} lacks it and knows {later}");
            return Err(Violation::new(9, what));
        }
        self.ledger().committed.push(record);
        Ok(())
    }

    /// Invariant 12, for the members themselves: no write takes them below the minimum that its
    /// writer knew, or further below it.
    pub fn check_minimum(&self, place: usize, new: &PartitionState, min: usize) -> Checked {
        let (before, after) = (self.state.registry.state.isr.len(), new.isr.len());
        if after < min.min(before) {
            let what = format!("broker {} takes {before} in-sync replicas to {after}", place + 1);
            return Err(Violation::new(12, what));
        }
        Ok(())
    }

    /// Invariant 3.
    fn note_leader(&mut self, node: &Node, process: &Process) -> Checked {
        let epoch = process.replica.epoch();
        let me = (epoch, node.place, node.starts);
        match self.state.ledger.leaders.iter().find(|(e, ..)| *e == epoch) {
            Some(first) if *first == me => {}
            Some((_, other, start)) => {
                let what =
                    format!("broker {} and broker {} (start {start}) lead in epoch {epoch}", node.broker(), other + 1);
                return Err(Violation::new(3, what));
            }
            None => {
                self.ledger().leaders.push(me);
                self.ledger().leaders.sort_unstable();
            }
        }
        Ok(())
    }

    /// Invariant 8: what a later leader shows is never less than what an earlier one did.
    fn note_shown(&mut self, process: &Process) -> Checked {
        let Some(latest) = process.replica.latest() else { return Ok(()) };
        let epoch = process.replica.epoch();
        let before = self.state.ledger.shown.iter().filter(|(e, _)| *e <= epoch).map(|(_, o)| *o).max();
        if before.is_some_and(|before| before > latest) {
            return Err(Violation::new(8, format!("clients saw {before:?}, and {latest} in epoch {epoch}")));
        }
        let known = self.state.ledger.shown.contains(&(epoch, latest));
        if !known {
            let ledger = self.ledger();
            ledger.shown.retain(|(e, _)| *e != epoch);
            ledger.shown.push((epoch, latest));
            ledger.shown.sort_unstable();
        }
        Ok(())
    }

    /// Invariant 2, for what the client was told.
    pub fn check_acknowledgement(&self, id: u8, base: Offset) -> Checked {
        match self.state.ledger.get(base.0) {
            Some(record) if record.id == id => Ok(()),
            other => Err(Violation::new(2, format!("record {id} acknowledged at {base}, where {other:?} is"))),
        }
    }

    pub fn check_everything(&self) -> Checked {
        for node in &self.state.nodes {
            if let Some(process) = &node.process {
                self.check_high_watermark(node, process)?;
                self.check_union(node, process)?;
            }
        }
        self.check_completeness()?;
        self.check_matching()
    }

    /// Invariants 2 and 5: whatever lies below a high watermark is what was committed there.
    fn check_high_watermark(&self, node: &Node, process: &Process) -> Checked {
        if process.replica.is_damaged() {
            return Ok(());
        }
        let (image, broker) = (&process.image, node.broker());
        let high = process.replica.high_watermark();
        let unclean = self.state.registry.state.last_unclean_epoch;
        for offset in image.start.0..high.0 {
            let (record, committed) = (image.at(offset), self.state.ledger.get(offset));
            let abandoned = record.is_some_and(|r| r.epoch < unclean);
            if record != committed && !abandoned {
                let number = if process.leads() { 2 } else { 5 };
                let what =
                    format!("broker {broker} has {record:?} at {offset} below {high}, committed is {committed:?}");
                return Err(Violation::new(number, what));
            }
        }
        let given_up = unclean > Epoch::NONE && image.records.last().is_none_or(|r| r.epoch < unclean);
        if high.0 > self.state.ledger.committed.len() as u64 && !given_up {
            return Err(Violation::new(
                5,
                format!("broker {broker} has the high watermark {high}, which nobody committed"),
            ));
        }
        Ok(())
    }

    /// Invariant 6.
    fn check_union(&self, node: &Node, process: &Process) -> Checked {
        let state = &self.state.registry.state;
        let Some(counted) = process.replica.counted_members() else { return Ok(()) };
        let named = state.leader.is_some_and(|l| l.incarnation == process.incarnation && l.disk == node.member().disk);
        if !named || process.replica.epoch() != state.epoch {
            return Ok(());
        }
        match state.isr.iter().find(|m| !counted.contains(m)) {
            None => Ok(()),
            Some(member) => Err(Violation::new(6, format!("broker {} does not count {member:?}", node.broker()))),
        }
    }

    /// Invariant 1.
    fn check_completeness(&self) -> Checked {
        for member in &self.state.registry.state.isr {
            let holder = self.state.nodes.iter().find(|n| n.member() == *member);
            for image in holder.into_iter().flat_map(|n| [&n.stable, n.image()]) {
                let lacks =
                    |(offset, record): &(u64, &Record)| *offset >= image.start.0 && image.at(*offset) != Some(**record);
                if let Some((offset, record)) = (0..).zip(&self.state.ledger.committed).find(lacks) {
                    let what = format!("broker {} is in sync and lacks {record:?} at {offset}", member.broker);
                    return Err(Violation::new(1, what));
                }
            }
        }
        Ok(())
    }

    /// Invariant 4: an equal epoch at one offset means equal logs up to there.
    fn check_matching(&self) -> Checked {
        for (at, node) in self.state.nodes.iter().enumerate() {
            for other in &self.state.nodes[at + 1..] {
                let (a, b) = (node.image(), other.image());
                if let Some(offset) = mismatch(a, b) {
                    let what = format!("brokers {} and {} differ at {offset}", node.broker(), other.broker());
                    return Err(Violation::new(4, what));
                }
            }
        }
        Ok(())
    }

    /// An operator chose this copy: what it lacks is announced as lost.
    pub fn abandon_what_is_not_in(&mut self, image: &Image) {
        let ledger = self.ledger();
        let held = |(offset, record): &(u64, &Record)| *offset < image.start.0 || image.at(*offset) == Some(**record);
        let keep = (0..).zip(&ledger.committed).take_while(held).count();
        ledger.committed.truncate(keep);
        ledger.shown.clear();
        ledger.abandoned = true;
    }
}

/// The highest offset at which two logs differ below one at which their epochs agree.
fn mismatch(a: &Image, b: &Image) -> Option<u64> {
    let (low, high) = (a.start.0.max(b.start.0), a.end().0.min(b.end().0));
    let mut agreed = false;
    for offset in (low..high).rev() {
        let (x, y) = (a.at(offset), b.at(offset));
        agreed |= x.map(|r| r.epoch) == y.map(|r| r.epoch);
        if agreed && x != y {
            return Some(offset);
        }
    }
    None
}
