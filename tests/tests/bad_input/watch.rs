//! What the tests see of the process: panics of any thread, and the log.

use std::io::{self, Write};
use std::panic;
use std::sync::{Mutex, Once, PoisonError};
use std::time::{Duration, Instant};

use tracing_subscriber::EnvFilter;

static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());
static LOG: Mutex<Vec<u8>> = Mutex::new(Vec::new());
static BEGUN: Once = Once::new();

/// Begins to watch; again and again it does nothing.
pub fn begin() {
    BEGUN.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let thread = std::thread::current();
            let name = thread.name().unwrap_or("?").to_owned();
            // The tests' own threads are named after the tests: those panics are failed assertions.
            if name != "main" && !name.contains("::") {
                PANICS.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{name}: {info}"));
            }
            before(info);
        }));
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
        let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(|| Kept);
        subscriber.init();
    });
}

/// No thread of a broker, a coordinator or a client panicked, in this test or in another.
pub fn assert_no_panics() {
    let panics = PANICS.lock().unwrap_or_else(PoisonError::into_inner);
    assert!(panics.is_empty(), "threads panicked: {panics:#?}");
}

/// Keeps the log for [`logged`]; with `BAD_INPUT_LOG` it is shown as well.
struct Kept;

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LOG.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        if std::env::var_os("BAD_INPUT_LOG").is_some() {
            io::stderr().write_all(bytes)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Where the log ends now.
pub fn mark() -> usize {
    LOG.lock().unwrap_or_else(PoisonError::into_inner).len()
}

/// Waits for a line after `mark` that contains all of `words`.
pub fn logged(mark: usize, words: &[&str]) {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let text = String::from_utf8_lossy(&LOG.lock().unwrap_or_else(PoisonError::into_inner)[mark..]).into_owned();
        if text.lines().any(|line| words.iter().all(|word| line.contains(word))) {
            return;
        }
        assert!(Instant::now() < deadline, "the log says nothing of {words:?}: {text}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
