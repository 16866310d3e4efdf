//! Writing a history.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use crate::check::{Checker, Invalid, Options};
use crate::event::{Event, Header, VERSION};
use crate::report::Report;

/// A history in memory, for a simulation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    pub events: Vec<Event<'static>>,
}

impl History {
    /// Checks it. Event numbers in the report count from 0.
    ///
    /// # Errors
    /// The events contradict each other in a way that no broker could be the cause of.
    pub fn check(&self, options: Options) -> Result<Report, Invalid> {
        let mut checker = Checker::new(options);
        for event in &self.events {
            checker.add(event)?;
        }
        Ok(checker.finish())
    }

    /// Writes it as a file that `baton check` reads.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, path: &Path, source: &str) -> io::Result<()> {
        let mut writer = Writer::create(path, source)?;
        for event in &self.events {
            writer.write(event)?;
        }
        writer.flush()
    }
}

/// Writes events as JSON Lines.
#[derive(Debug)]
pub struct Writer<W: Write> {
    out: W,
}

impl Writer<BufWriter<File>> {
    /// Creates a file; one that exists is emptied.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn create(path: &Path, source: &str) -> io::Result<Self> {
        Self::new(BufWriter::with_capacity(1 << 18, File::create(path)?), source)
    }
}

impl<W: Write> Writer<W> {
    /// Writes the first line.
    ///
    /// # Errors
    /// `out` cannot be written to.
    pub fn new(out: W, source: &str) -> io::Result<Self> {
        let mut writer = Self { out };
        writer.line(&Header { baton_history: VERSION, source: source.into() })?;
        Ok(writer)
    }

    /// Writes one event.
    ///
    /// # Errors
    /// `out` cannot be written to.
    pub fn write(&mut self, event: &Event<'_>) -> io::Result<()> {
        self.line(event)
    }

    /// Hands everything to the operating system: it survives a kill of this process.
    ///
    /// # Errors
    /// `out` cannot be written to.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// What it wrote to.
    pub fn into_inner(self) -> W {
        self.out
    }

    fn line(&mut self, value: &impl serde::Serialize) -> io::Result<()> {
        serde_json::to_writer(&mut self.out, value)?;
        self.out.write_all(b"\n")
    }
}

/// Where the clients of one process put their events: cheap to clone, one history behind all
/// clones. The order is that of the calls.
#[derive(Clone, Debug)]
pub struct Recorder(Arc<Mutex<Sink>>);

#[derive(Debug)]
enum Sink {
    Memory(History),
    /// The first error is kept, and nothing is written after it.
    File(Writer<BufWriter<File>>, Option<io::Error>),
}

impl Recorder {
    /// Keeps everything in memory.
    #[must_use]
    pub fn in_memory() -> Self {
        Self(Arc::new(Mutex::new(Sink::Memory(History::default()))))
    }

    /// Writes to a file, buffered.
    ///
    /// # Errors
    /// The file cannot be created.
    pub fn to_file(path: &Path, source: &str) -> io::Result<Self> {
        Ok(Self(Arc::new(Mutex::new(Sink::File(Writer::create(path, source)?, None)))))
    }

    /// Adds an event. A file that cannot be written is told by [`Self::flush`], so that clients
    /// need not care.
    pub fn record(&self, event: Event<'_>) {
        match &mut *self.lock() {
            Sink::Memory(history) => history.events.push(event.into_owned()),
            Sink::File(writer, error @ None) => *error = writer.write(&event).err(),
            Sink::File(_, Some(_)) => {}
        }
    }

    /// Hands everything to the operating system.
    ///
    /// # Errors
    /// Something could not be written since the last call.
    pub fn flush(&self) -> io::Result<()> {
        match &mut *self.lock() {
            Sink::Memory(_) => Ok(()),
            Sink::File(writer, error) => match error.take() {
                Some(error) => Err(error),
                None => writer.flush(),
            },
        }
    }

    /// What was recorded in memory so far; the recorder begins anew. Empty for a file.
    #[must_use]
    pub fn take(&self) -> History {
        match &mut *self.lock() {
            Sink::Memory(history) => std::mem::take(history),
            Sink::File(..) => History::default(),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Sink> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
