//! The one thread that writes: group after group, one fsync for each.
//!
//! The order within a group is the order of the calls. Nobody is answered before
//!
//! 1. everything of the group is in the store,
//! 2. the store's journal is synced, once,
//! 3. the witness of the *previous* group is on stable storage.
//!
//! Any failure of the storage ends the process: what a failed fsync has left behind cannot be
//! known, and a second fsync would succeed without having written it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::FjallOptions;
use super::changes::Group;
use super::directory::DataDirectory;
use super::keys::{self, Prefix};
use super::queue::{Queue, Taken};
use super::reclaim::Reclaim;
use super::records;
use super::recovery::evidence;
use super::reserve::Reserve;
use super::retention::Floors;
use super::store::{Store, StoreError};
use super::time::TimeIndex;
use super::view::View;
use super::witness::{Ticket, Witness};
use crate::log::book::Book;
use crate::log::operation::{Answer, Change, Operation};
use crate::log::{LocalPartition, LogError};

/// How often the committer looks after the store when nobody calls.
const TICK: Duration = Duration::from_millis(500);
const MEASURE_EVERY: Duration = Duration::from_secs(2);
/// How long the dying process tries to leave the mark of the taint.
const TAINT_PATIENCE: Duration = Duration::from_secs(1);

pub(super) struct Committer {
    pub(super) queue: Arc<Queue<Operation>>,
    pub(super) store: Store,
    pub(super) book: Book,
    pub(super) prefixes: BTreeMap<LocalPartition, Prefix>,
    pub(super) floors: Arc<Floors>,
    pub(super) witness: Witness,
    pub(super) view: Arc<View>,
    pub(super) times: TimeIndex,
    pub(super) reserve: Reserve,
    pub(super) reclaim: Reclaim,
    pub(super) directory: Arc<DataDirectory>,
    pub(super) options: FjallOptions,
    pub(super) group: Group,
    /// The witness of the previous group.
    pub(super) ticket: Ticket,
    pub(super) measured: Instant,
}

impl Committer {
    pub(super) fn run(mut self) {
        let failure = match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.serve())) {
            Ok(Ok(())) => return self.view.stop(LogError::Closed),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "the committer panicked".to_owned(),
        };
        self.fail(&failure);
    }

    fn serve(&mut self) -> Result<(), StoreError> {
        loop {
            match self.queue.take(self.options.group_bytes_max, TICK) {
                Taken::Items(operations) => self.commit(operations)?,
                Taken::Idle => self.tick()?,
                Taken::Closed => return Ok(()),
            }
            if self.group.closed {
                return Ok(());
            }
        }
    }

    /// One group commit.
    fn commit(&mut self, operations: Vec<Operation>) -> Result<(), StoreError> {
        let mut replies = Replies(Vec::with_capacity(operations.len()));
        let mut answers = Vec::with_capacity(operations.len());
        let (senders, changes): (Vec<_>, Vec<_>) = operations.into_iter().map(|o| (o.reply, o.change)).unzip();
        replies.0.extend(senders);
        let committed = self.apply_all(changes, &mut answers).and_then(|()| self.finish());
        match committed {
            Ok(()) => replies.answer(answers),
            Err(error) => {
                self.view.stop(LogError::Failed(error.to_string()));
                replies.fail(&error);
                return Err(error);
            }
        }
        if self.group.closed {
            return Ok(());
        }
        self.measure()
    }

    fn apply_all(&mut self, changes: Vec<Change>, answers: &mut Vec<Answer>) -> Result<(), StoreError> {
        for change in changes {
            let answer = if self.group.closed { Err(LogError::Closed) } else { self.apply(change)? };
            answers.push(answer);
        }
        Ok(())
    }

    /// Makes the group durable and visible.
    fn finish(&mut self) -> Result<(), StoreError> {
        self.write_pending()?;
        let group = std::mem::take(&mut self.group);
        self.group.closed = group.closed;
        if group.written {
            self.store.sync()?;
            self.view.count_commit();
        }
        self.wait_for_witness(self.ticket)?;
        self.publish(&group.touched);
        for (prefix, start) in group.raised {
            self.floors.raise(prefix, start);
            self.reclaim.something_ended();
        }
        for prefix in group.ended {
            self.floors.end(prefix);
            self.reclaim.something_ended();
        }
        if group.rewritten {
            self.reclaim.something_ended();
        }
        if group.closed {
            self.close()?;
        }
        Ok(())
    }

    fn publish(&mut self, touched: &BTreeSet<LocalPartition>) {
        let entries = touched.iter().filter_map(|partition| {
            let entry = self.book.get(*partition).ok()?;
            Some((*partition, *self.prefixes.get(partition)?, entry))
        });
        let seen = entries.clone().filter(|(_, _, entry)| entry.damage.is_none());
        self.ticket = self.witness.update(seen.map(|(p, prefix, e)| (p, evidence(prefix, e))));
        self.view.publish(entries.map(|(p, prefix, e)| (p, prefix, e.start, e.end)));
    }

    pub(super) fn wait_for_witness(&self, ticket: Ticket) -> Result<(), StoreError> {
        self.witness.wait(ticket).map_err(StoreError::Record)
    }

    /// Puts what was collected into the store, so that later changes of the group see it.
    pub(super) fn write_pending(&mut self) -> Result<(), StoreError> {
        if let Some(writes) = self.group.writes.take() {
            self.group.written = true;
            self.store.write(writes)?;
        }
        Ok(())
    }

    fn close(&mut self) -> Result<(), StoreError> {
        self.queue.close();
        self.view.stop(LogError::Closed);
        self.wait_for_witness(self.ticket)?;
        self.directory.mark_closed().map_err(|cause| StoreError::Io { what: "marking the directory closed", cause })
    }

    /// What an idle log does: keeps the journal short, gives space back.
    fn tick(&mut self) -> Result<(), StoreError> {
        self.store.rotate_if_older(self.options.idle_rotation)?;
        self.reserve.sample(self.directory.path());
        self.wait_for_witness(self.ticket)?;
        self.measure()
    }

    /// Now and then, busy or not.
    fn measure(&mut self) -> Result<(), StoreError> {
        self.view.set_free(self.reserve.free(), self.reserve.floor());
        let may = || self.store.is_flushed() && self.store.may_rewrite(self.options.reclaim_interval);
        if self.reclaim.due() && may() {
            // Any write: together with the rotation it lets go of files that are not needed.
            let mut writes = self.store.writes();
            writes.put(keys::NEXT_NUMBER, records::encode_number(self.book.next));
            self.store.write(writes)?;
            self.store.rotate_if_older(Duration::ZERO)?;
            self.reclaim.prepared();
        }
        if self.reclaim.waits_for_flush() && self.store.is_flushed() {
            self.reclaim.step(self.store.reading(), self.store.bytes()?)?;
        }
        if self.measured.elapsed() >= MEASURE_EVERY {
            self.measured = Instant::now();
            let free = self.reserve.free();
            self.view.set_space(self.store.bytes()?, free, self.reserve.floor());
        }
        Ok(())
    }

    /// The storage cannot be trusted any more: says so on the disk, and ends the process.
    fn fail(&mut self, why: &str) {
        let failed = LogError::Failed(why.to_owned());
        self.view.stop(failed.clone());
        self.queue.close();
        tracing::error!("the log cannot go on: {why}");
        let (done, wait) = mpsc::channel();
        let (path, reason) = (self.directory.path().to_owned(), why.to_owned());
        // On a thread of its own, for a disk that hangs must not keep the process alive.
        let marking = std::thread::Builder::new().name("log-taint".to_owned()).spawn(move || {
            if let Err(e) = DataDirectory::taint(&path, &reason) {
                tracing::error!("the directory could not be marked as tainted: {e}");
            }
            let _ = done.send(());
        });
        if marking.is_ok() {
            let _ = wait.recv_timeout(TAINT_PATIENCE);
        }
        (self.options.on_fatal)(why);
        for operation in self.queue.drain() {
            operation.answer(Err(failed.clone()));
        }
    }
}

/// Those who wait for a group; whoever is not answered learns that the storage failed.
struct Replies(Vec<oneshot::Sender<Answer>>);

impl Replies {
    fn answer(self, answers: Vec<Answer>) {
        for (reply, answer) in self.0.into_iter().zip(answers) {
            // A caller who stopped waiting is not an error.
            let _ = reply.send(answer);
        }
    }

    fn fail(self, why: &StoreError) {
        for reply in self.0 {
            let _ = reply.send(Err(LogError::Failed(why.to_string())));
        }
    }
}
