//! Ports and child processes of tests.

use std::io;
use std::net::TcpListener;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Below what operating systems use for outgoing connections. A port of that range could be
/// taken by one while its server is down, and a client that tries such a port again and again
/// may end up connected to itself.
const PORTS: std::ops::Range<u32> = 12_000..32_000;

/// Where the next search of this process begins.
static NEXT: AtomicU32 = AtomicU32::new(0);

/// Ports of 127.0.0.1 that nobody listens on now. Held together until all are known, so that
/// none is given twice.
///
/// # Errors
/// There are not so many.
pub fn free_ports(count: usize) -> io::Result<Vec<u16>> {
    let span = PORTS.end - PORTS.start;
    // Processes begin at different places, so that they do not race for the same ports.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.subsec_micros());
    let begin = std::process::id().wrapping_mul(7919).wrapping_add(now / 64);
    let mut held = Vec::with_capacity(count);
    for _ in 0..span {
        if held.len() == count {
            break;
        }
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = PORTS.start + begin.wrapping_add(step) % span;
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", u16::try_from(port).unwrap_or(0))) {
            held.push(listener);
        }
    }
    if held.len() < count {
        return Err(io::Error::other(format!("there are no {count} free ports")));
    }
    held.iter().map(|listener| listener.local_addr().map(|address| address.port())).collect()
}

/// A command whose process is killed when the thread that starts it ends, however it ends: a
/// test that is itself killed leaves nothing behind. Needs `setpriv` (util-linux), which becomes
/// the program; without it the process has to be killed by whoever started it.
#[must_use]
pub fn bound_to_parent(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let there = Command::new("setpriv").arg("--version").output().is_ok_and(|ran| ran.status.success());
    if !there {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}
