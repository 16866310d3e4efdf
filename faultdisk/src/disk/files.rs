//! Reading, writing and syncing files.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use rustix::io::Errno;

use super::{Disk, Names, State, forget, key};
use crate::chance::Fate;

/// More unsynced bytes of a file than this are written back early, as kernels do.
const UNSYNCED_BYTES_MAX: u64 = 256 << 20;

impl Disk {
    pub(crate) fn open(&self, number: u64) -> io::Result<()> {
        let mut state = self.on()?;
        state.opened(number)?;
        state.node_mut(number)?.handles += 1;
        Ok(())
    }

    pub(crate) fn release(&self, number: u64) {
        let mut state = self.state();
        if let Ok(node) = state.node_mut(number) {
            node.handles = node.handles.saturating_sub(1);
            node.close_if_idle();
        }
    }

    pub(crate) fn read(&self, number: u64, at: u64, length: usize) -> io::Result<Vec<u8>> {
        let file = {
            let mut state = self.on()?;
            let path = state.path(number)?;
            if state.faults.read_fails(&path) {
                return Err(Errno::IO.into());
            }
            state.opened(number)?
        };
        let mut data = vec![0; length];
        let mut read = 0;
        while read < length {
            match file.read_at(&mut data[read..], at + read as u64)? {
                0 => break,
                more => read += more,
            }
        }
        data.truncate(read);
        Ok(data)
    }

    /// Writes as much as fits; `sync` makes it durable at once, as O_SYNC does.
    pub(crate) fn write(&self, number: u64, at: u64, data: &[u8], sync: bool) -> io::Result<usize> {
        let mut state = self.on()?;
        let path = state.path(number)?;
        if state.faults.write_fails(&path) {
            return Err(Errno::IO.into());
        }
        let file = state.opened(number)?;
        let mut fits = data.len();
        if state.faults.is_filling() && takes_space(&file, at, data.len())? {
            fits = state.faults.grow(&path, data.len() as u64) as usize;
        }
        if fits == 0 && !data.is_empty() {
            return Err(Errno::NOSPC.into());
        }
        let node = state.node_mut(number)?;
        node.unsynced.write(&file, at, &data[..fits])?;
        if sync || (node.unsynced.len().is_multiple_of(1_024) && node.unsynced.bytes() > UNSYNCED_BYTES_MAX) {
            node.unsynced.sync_all();
        }
        Ok(fits)
    }

    pub(crate) fn set_length(&self, number: u64, length: u64) -> io::Result<()> {
        let mut state = self.on()?;
        let path = state.path(number)?;
        if state.faults.write_fails(&path) {
            return Err(Errno::IO.into());
        }
        let file = state.opened(number)?;
        let node = state.node_mut(number)?;
        node.unsynced.set_length(&file, length)
    }

    /// Makes a file durable. Takes as long as a fault says.
    pub(crate) fn sync(&self, number: u64) -> io::Result<()> {
        let (slow, mark) = {
            let state = self.on()?;
            (state.faults.sync_takes(&state.path(number)?), state.node(number)?.unsynced.mark())
        };
        // What is written while it waits may well be lost yet.
        if let Some(duration) = slow {
            std::thread::sleep(duration);
        }
        let mut state = self.on()?;
        let path = state.path(number)?;
        if state.faults.fsync_fails(&path) {
            state.give_up(number)?;
            return Err(Errno::IO.into());
        }
        let node = state.node_mut(number)?;
        node.unsynced.sync(mark);
        node.close_if_idle();
        if state.names_durable == Names::WithAnySync {
            let unneeded = state.names.sync_all();
            forget(unneeded)?;
        }
        Ok(())
    }
}

impl State {
    /// The file behind a node, open for reading and writing.
    fn opened(&mut self, number: u64) -> io::Result<Arc<File>> {
        if let Some(file) = &self.node(number)?.file {
            return Ok(Arc::clone(file));
        }
        let file = Arc::new(OpenOptions::new().read(true).write(true).open(self.place(number)?)?);
        self.node_mut(number)?.file = Some(Arc::clone(&file));
        Ok(file)
    }

    /// A sync failed: the dirty pages count as clean, whether they reached the disk or not.
    fn give_up(&mut self, number: u64) -> io::Result<()> {
        let file = self.opened(number)?;
        self.seed = self.seed.wrapping_add(1);
        let (seed, key) = (self.seed, key(&self.path(number)?));
        let node = self.node_mut(number)?;
        let length = file.metadata()?.len();
        let fate = Fate::draw(seed, key, node.unsynced.len());
        node.unsynced.cut(&file, &fate)?;
        // The kernel goes on knowing the length.
        file.set_len(length)
    }
}

impl super::Node {
    fn close_if_idle(&mut self) {
        if self.handles == 0 && self.unsynced.is_empty() {
            self.file = None;
        }
    }
}

/// Whether there is nothing yet where something will be written: a hole, or the end.
fn takes_space(file: &File, at: u64, length: usize) -> io::Result<bool> {
    let mut old = vec![0; length];
    let read = file.read_at(&mut old, at)?;
    Ok(read < length || old.iter().all(|byte| *byte == 0))
}
