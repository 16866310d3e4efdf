//! Commands for a layer that runs as a process of its own, one line each, over a Unix socket.
//!
//! ```text
//! power-off                          everything fails from now on
//! power-on SEED                      the disk as the cut left it, without faults
//! inject PATH fail-fsync [TIMES]     PATH is relative to the root; `.` is everything
//! inject PATH fail-read [TIMES]
//! inject PATH fail-write [TIMES]
//! inject PATH full-after BYTES [announced]
//! inject PATH slow-fsync MILLISECONDS
//! heal
//! unmount                            ends the process; what was written stays
//! ```
//! The answer is one line: `ok`, perhaps with words behind it, or `error` and why.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::{Fault, Mount};

/// Longer lines are refused.
const LINE_BYTES_MAX: u64 = 8 << 10;
const PATIENCE: Duration = Duration::from_secs(60);

/// One line, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    PowerOff,
    PowerOn { seed: u64 },
    Inject { below: PathBuf, fault: Fault },
    Heal,
    Unmount,
}

impl Command {
    /// Reads a command.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(line: &str) -> Result<Self, String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["power-off"] => Ok(Self::PowerOff),
            ["power-on", seed] => Ok(Self::PowerOn { seed: number(seed)? }),
            ["inject", below, fault @ ..] => {
                let below = if *below == "." { PathBuf::new() } else { PathBuf::from(below) };
                Ok(Self::Inject { below, fault: parse_fault(fault)? })
            }
            ["heal"] => Ok(Self::Heal),
            ["unmount"] => Ok(Self::Unmount),
            _ => Err(format!("no such command: {}", line.trim())),
        }
    }
}

fn parse_fault(words: &[&str]) -> Result<Fault, String> {
    let times = |word: Option<&&str>| word.map(|word| number(word)).transpose();
    match words {
        ["fail-fsync", rest @ ..] if rest.len() < 2 => Ok(Fault::FailFsync { times: times(rest.first())? }),
        ["fail-read", rest @ ..] if rest.len() < 2 => Ok(Fault::FailRead { times: times(rest.first())? }),
        ["fail-write", rest @ ..] if rest.len() < 2 => Ok(Fault::FailWrite { times: times(rest.first())? }),
        ["full-after", bytes] => Ok(Fault::FullAfter { bytes: number(bytes)?, announced: false }),
        ["full-after", bytes, "announced"] => Ok(Fault::FullAfter { bytes: number(bytes)?, announced: true }),
        ["slow-fsync", ms] => Ok(Fault::SlowFsync(Duration::from_millis(number(ms)?))),
        _ => Err(format!("no such fault: {}", words.join(" "))),
    }
}

fn number<T: std::str::FromStr>(word: &str) -> Result<T, String> {
    word.parse().map_err(|_| format!("not a number: {word}"))
}

/// Serves commands until one says `unmount`.
///
/// # Errors
/// The socket cannot be used, or the layer not be unmounted.
pub fn serve(mut mount: Mount, socket: &Path) -> anyhow::Result<()> {
    if socket.exists() {
        std::fs::remove_file(socket)?;
    }
    let listener = UnixListener::bind(socket)?;
    for stream in listener.incoming() {
        // A caller who went away changes nothing.
        if let Ok(true) = converse(&mut mount, stream?) {
            std::fs::remove_file(socket)?;
            return Ok(mount.close()?);
        }
    }
    Ok(())
}

/// Answers one caller; true if it ends the layer.
fn converse(mount: &mut Mount, stream: UnixStream) -> io::Result<bool> {
    use io::Read;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut answers = stream.try_clone()?;
    let mut lines = BufReader::new(stream.take(LINE_BYTES_MAX));
    loop {
        let mut line = String::new();
        if lines.read_line(&mut line)? == 0 {
            return Ok(false);
        }
        let command = Command::parse(&line);
        let ends = command == Ok(Command::Unmount);
        let answer = match command.and_then(|command| obey(mount, command)) {
            Ok(words) => format!("ok {words}"),
            Err(why) => format!("error {why}"),
        };
        writeln!(answers, "{}", answer.trim_end())?;
        if ends {
            return Ok(true);
        }
        lines.get_mut().set_limit(LINE_BYTES_MAX);
    }
}

fn obey(mount: &mut Mount, command: Command) -> Result<String, String> {
    match command {
        Command::PowerOff => mount.power_off(),
        Command::PowerOn { seed } => {
            let lost = mount.power_on(seed).map_err(|error| error.to_string())?;
            return Ok(format!("{lost:?}"));
        }
        Command::Inject { below, fault } => mount.inject(below, fault),
        Command::Heal => mount.heal(),
        Command::Unmount => {}
    }
    Ok(String::new())
}

/// Sends one command to a layer, and returns its answer.
///
/// # Errors
/// Nobody listens there, or the command was refused.
pub fn send(socket: &Path, command: &str) -> anyhow::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    writeln!(stream, "{command}")?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer)?;
    match answer.trim().split_once(' ').unwrap_or((answer.trim(), "")) {
        ("ok", words) => Ok(words.to_owned()),
        (_, why) => anyhow::bail!("{command}: {why}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_understood_or_refused() {
        let inject = |below: &str, fault| Ok(Command::Inject { below: below.into(), fault });
        assert_eq!(Command::parse("power-on 7\n"), Ok(Command::PowerOn { seed: 7 }));
        assert_eq!(Command::parse("inject . fail-fsync 2"), inject("", Fault::FailFsync { times: Some(2) }));
        assert_eq!(Command::parse("inject store fail-read"), inject("store", Fault::FailRead { times: None }));
        assert_eq!(
            Command::parse("inject . full-after 9 announced"),
            inject("", Fault::FullAfter { bytes: 9, announced: true })
        );
        for bad in ["", "power-on", "power-on x", "inject .", "inject . fail-fsync 1 2", "inject . full-after -1"] {
            assert!(Command::parse(bad).is_err(), "{bad}");
        }
    }
}
