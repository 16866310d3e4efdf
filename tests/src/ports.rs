//! Ports for clusters that run inside a test program.

use std::net::TcpListener;
use std::sync::{Mutex, PoisonError};

/// Blocks begin in this range, below the ports that systems hand out by themselves.
const FIRST: u16 = 10_000;
const LAST: u16 = 31_000;
const BLOCK: u16 = 100;

/// What a cluster of three brokers takes of a block: its clients' and peers' listeners, Kafka's,
/// the coordinator's, and those for monitoring.
const TAKEN: [u16; 14] = [0, 1, 2, 10, 11, 12, 20, 21, 22, 50, 51, 80, 81, 82];

/// The first of a hundred ports of which none that a cluster takes is in use. No two callers in
/// a program get the same, and two programs begin to look at different places.
///
/// # Panics
/// There is none.
pub fn free_block() -> u16 {
    static NEXT: Mutex<Option<u16>> = Mutex::new(None);
    let mut next = NEXT.lock().unwrap_or_else(PoisonError::into_inner);
    let blocks = (LAST - FIRST) / BLOCK;
    let begin = next.unwrap_or_else(|| u16::try_from(std::process::id() % u32::from(blocks)).unwrap_or(0));
    let free = |first: u16| TAKEN.iter().all(|offset| TcpListener::bind(("127.0.0.1", first + offset)).is_ok());
    let found = (begin..begin + blocks).map(|n| n % blocks).find(|n| free(FIRST + n * BLOCK));
    let found = found.expect("a free block of ports");
    *next = Some((found + 1) % blocks);
    FIRST + found * BLOCK
}
