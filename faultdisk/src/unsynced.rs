//! What has happened to one file since its last sync, and what a cut leaves of it.
//!
//! The file itself always has the newest content. Each change keeps what it replaced, so that
//! the synced content can be had back, and what it wrote, so that a part of it can be redone.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::chance::{Fate, SECTOR};

/// Holes of files are long; what is zero is not kept.
const PIECE: usize = 64 << 10;

/// The changes since the last sync, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Unsynced {
    changes: VecDeque<Change>,
    /// How many changes there were before the first of these.
    before: u64,
}

#[derive(Debug)]
struct Change {
    length_before: u64,
    length_after: u64,
    what: What,
}

#[derive(Debug)]
enum What {
    Write {
        at: u64,
        new: Vec<u8>,
        old: Vec<u8>,
    },
    /// The pieces that were cut off and were not zero.
    Length {
        old: Vec<(u64, Vec<u8>)>,
    },
}

impl Unsynced {
    pub(crate) fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.changes.len()
    }

    /// Bytes written.
    pub(crate) fn bytes(&self) -> u64 {
        let written = |change: &Change| match &change.what {
            What::Write { new, .. } => new.len() as u64,
            What::Length { .. } => 0,
        };
        self.changes.iter().map(written).sum()
    }

    /// All changes so far, synced or not: what a sync that begins now makes durable.
    pub(crate) fn mark(&self) -> u64 {
        self.before + self.changes.len() as u64
    }

    /// Everything up to a mark is durable.
    pub(crate) fn sync(&mut self, mark: u64) {
        while self.before < mark && self.changes.pop_front().is_some() {
            self.before += 1;
        }
    }

    /// Everything is durable.
    pub(crate) fn sync_all(&mut self) {
        self.sync(self.mark());
    }

    /// Writes `data` to the file.
    pub(crate) fn write(&mut self, file: &File, at: u64, data: &[u8]) -> io::Result<()> {
        let length_before = file.metadata()?.len();
        let end = at + data.len() as u64;
        let mut old = vec![0; end.min(length_before).saturating_sub(at) as usize];
        file.read_exact_at(&mut old, at)?;
        file.write_all_at(data, at)?;
        let what = What::Write { at, new: data.to_vec(), old };
        self.changes.push_back(Change { length_before, length_after: length_before.max(end), what });
        Ok(())
    }

    /// Cuts the file, or makes it longer with zeros.
    pub(crate) fn set_length(&mut self, file: &File, length: u64) -> io::Result<()> {
        let length_before = file.metadata()?.len();
        let old = pieces(file, length, length_before)?;
        file.set_len(length)?;
        self.changes.push_back(Change { length_before, length_after: length, what: What::Length { old } });
        Ok(())
    }

    /// Puts the file into the state that `fate` chose; what was unsynced is forgotten.
    pub(crate) fn cut(&mut self, file: &File, fate: &Fate) -> io::Result<()> {
        self.before = self.mark();
        let changes = std::mem::take(&mut self.changes);
        let length = match fate.length {
            0 => changes.front().map(|change| change.length_before),
            moment => changes.get(moment - 1).map(|change| change.length_after),
        };
        for change in changes.iter().rev() {
            change.undo(file)?;
        }
        for (change, moment) in changes.iter().zip(1..) {
            change.redo(file, &|sector| fate.moment(sector) >= moment)?;
        }
        length.map_or(Ok(()), |length| file.set_len(length))
    }
}

impl Change {
    fn undo(&self, file: &File) -> io::Result<()> {
        file.set_len(self.length_before)?;
        match &self.what {
            What::Write { at, old, .. } => file.write_all_at(old, *at),
            What::Length { old } => old.iter().try_for_each(|(at, bytes)| file.write_all_at(bytes, *at)),
        }
    }

    /// Does again what concerns the sectors that `kept` names; the length is set at the end.
    fn redo(&self, file: &File, kept: &dyn Fn(u64) -> bool) -> io::Result<()> {
        match &self.what {
            What::Write { at, new, .. } => sectors(*at, *at + new.len() as u64, kept, |from, to| {
                file.write_all_at(&new[(from - at) as usize..(to - at) as usize], from)
            }),
            What::Length { .. } => {
                // Beyond the new length there are zeros, should the file grow again.
                let end = file.metadata()?.len();
                let zeros = vec![0; PIECE];
                sectors(self.length_after, end, kept, |mut from, to| {
                    while from < to {
                        let piece = (to - from).min(PIECE as u64);
                        file.write_all_at(&zeros[..piece as usize], from)?;
                        from += piece;
                    }
                    Ok(())
                })
            }
        }
    }
}

/// Calls `run` with each run of kept sectors within `from..to`.
fn sectors(
    from: u64,
    to: u64,
    kept: &dyn Fn(u64) -> bool,
    mut run: impl FnMut(u64, u64) -> io::Result<()>,
) -> io::Result<()> {
    let mut begun = None;
    let mut at = from;
    while at < to {
        let sector = at - at % SECTOR;
        match (kept(sector), begun) {
            (true, None) => begun = Some(at),
            (false, Some(first)) => {
                run(first, at)?;
                begun = None;
            }
            _ => {}
        }
        at = sector + SECTOR;
    }
    begun.map_or(Ok(()), |first| run(first, to))
}

/// What is not zero between two offsets.
fn pieces(file: &File, from: u64, to: u64) -> io::Result<Vec<(u64, Vec<u8>)>> {
    let mut found = Vec::new();
    let mut at = from;
    let mut buffer = vec![0; PIECE];
    while at < to {
        let piece = (to - at).min(PIECE as u64) as usize;
        file.read_exact_at(&mut buffer[..piece], at)?;
        if buffer[..piece].iter().any(|byte| *byte != 0) {
            found.push((at, buffer[..piece].to_vec()));
        }
        at += piece as u64;
    }
    Ok(found)
}

#[cfg(test)]
#[path = "unsynced_tests.rs"]
mod tests;
