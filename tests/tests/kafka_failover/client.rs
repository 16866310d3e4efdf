//! A client that is a process: what it says is kept, and it ends with the test.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use baton_registry::testing::process::bound_to_parent;

use crate::stage::eventually;

/// A running client.
pub struct Client {
    pub name: String,
    child: Child,
    input: Option<ChildStdin>,
    said: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
}

impl Client {
    /// Starts it; at the latest it ends with the thread that this is.
    pub fn start(name: &str, program: &Path, arguments: &[&str]) -> Self {
        let mut child = bound_to_parent(program)
            .args(arguments)
            // They run for a minute: the better compiler is not worth its time.
            .env("JAVA_TOOL_ARGS", "-XX:TieredStopAtLevel=1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let said = Arc::<Mutex<String>>::default();
        let (out, err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let readers = vec![collect(out, Some(Arc::clone(&said)), name), collect(err, None, name)];
        Self { name: name.to_owned(), input: child.stdin.take(), child, said, readers }
    }

    /// What it has printed up to now.
    pub fn output(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    pub fn said(&self, what: &str) -> bool {
        self.said.lock().unwrap().contains(what)
    }

    /// Gives it numbered lines, one after the other, and then the end of its input.
    pub fn feed(&mut self, lines: usize, every: Duration) {
        let mut input = self.input.take().unwrap();
        self.readers.push(std::thread::spawn(move || {
            for line in 0..lines {
                writeln!(input, "line {line}").unwrap();
                std::thread::sleep(every);
            }
        }));
    }

    pub fn end_of_input(&mut self) {
        self.input = None;
    }

    /// Asks it to end.
    pub fn terminate(&self) {
        let asked = Command::new("kill").arg(self.child.id().to_string()).status().unwrap();
        assert!(asked.success(), "{} is gone", self.name);
    }

    /// Waits for its end, and returns what it printed.
    pub fn finished(mut self) -> String {
        self.end_of_input();
        let mut status = None;
        eventually(&format!("{} ends: {}", self.name, self.output()), || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        self.readers.into_iter().for_each(|reader| reader.join().unwrap());
        let said = std::mem::take(&mut *self.said.lock().unwrap());
        // 143: it ended because it was asked to.
        let good = status.is_some_and(|status| status.success() || status.code() == Some(143));
        assert!(good, "{}: {status:?}\n{said}", self.name);
        said
    }
}

/// Reads until the end; what is not kept is shown with the test's own output if it fails.
fn collect(from: impl Read + Send + 'static, to: Option<Arc<Mutex<String>>>, name: &str) -> JoinHandle<()> {
    let name = name.to_owned();
    std::thread::spawn(move || {
        for line in BufReader::new(from).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line);
            match &to {
                Some(kept) => {
                    let mut kept = kept.lock().unwrap();
                    kept.push_str(&line);
                    kept.push('\n');
                }
                None => eprintln!("{name}: {line}"),
            }
        }
    })
}

/// Says that something cannot be tested here: past the harness, which keeps to itself what a
/// test prints that passes. `tests/run` counts these lines.
pub fn skipped(what: &str) {
    std::io::stderr().write_all(format!("\nSKIPPED: {what}\n").as_bytes()).unwrap();
    assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "nothing is skipped there: {what}");
}
