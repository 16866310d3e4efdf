//! A link that can be slow or half open: a TCP proxy in the namespace of the side that connects.
//!
//! `faults proxy` is this module as a process of its own. It gets its condition on standard
//! input, a line each, and ends with it.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};

/// The group that proxies run in, so that filters know their connections.
pub const GROUP: u32 = 65_533;
/// What a proxy says when it listens.
pub const READY: &str = "ready";
const CHUNK_BYTES: usize = 16 << 10;
/// Chunks on their way: together the buffer of a link.
const CHUNKS_MAX: usize = 64;

/// How a link is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// Every byte arrives so much later, in each direction.
    pub delay_ms: u64,
    /// Of each connection and direction; 0: as fast as it goes.
    pub bytes_per_s: u64,
    /// Connections stay open, and nothing comes through.
    pub hold: bool,
}

/// Listens on each loopback port and passes on to its target until standard input ends.
///
/// # Errors
/// A port is taken, or a line is no condition.
pub async fn run(ways: &[(u16, SocketAddr)]) -> anyhow::Result<()> {
    let (conditions, condition) = watch::channel(Condition::default());
    for (port, target) in ways {
        let listener = TcpListener::bind(("127.0.0.1", *port)).await.with_context(|| format!("port {port}"))?;
        tokio::spawn(accept(listener, *target, condition.clone()));
    }
    println!("{READY}");
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        conditions.send_replace(serde_json::from_str(&line).with_context(|| line.clone())?);
    }
    Ok(())
}

async fn accept(listener: TcpListener, target: SocketAddr, condition: watch::Receiver<Condition>) {
    while let Ok((near, _)) = listener.accept().await {
        let condition = condition.clone();
        tokio::spawn(async move {
            // A target that refuses closes the near side: the same as a refusal, a little later.
            let Ok(far) = TcpStream::connect(target).await else { return };
            let _ = (near.set_nodelay(true), far.set_nodelay(true));
            let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
            tokio::join!(pump(near_in, far_out, condition.clone()), pump(far_in, near_out, condition));
        });
    }
}

/// One direction of one connection.
async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, condition: watch::Receiver<Condition>) {
    let (chunks, mut arriving) = mpsc::channel::<(Instant, Vec<u8>)>(CHUNKS_MAX);
    let mut held = condition.clone();
    let reading = async move {
        let mut buffer = vec![0; CHUNK_BYTES];
        loop {
            if held.wait_for(|now| !now.hold).await.is_err() {
                return;
            }
            let Ok(count @ 1..) = from.read(&mut buffer).await else { return };
            let due = Instant::now() + Duration::from_millis(held.borrow().delay_ms);
            if chunks.send((due, buffer[..count].to_vec())).await.is_err() {
                return;
            }
        }
    };
    let mut held = condition;
    let writing = async move {
        while let Some((due, chunk)) = arriving.recv().await {
            sleep_until(due).await;
            if held.wait_for(|now| !now.hold).await.is_err() || to.write_all(&chunk).await.is_err() {
                return;
            }
            let rate = held.borrow().bytes_per_s;
            if rate > 0 {
                sleep(Duration::from_secs(1) * u32::try_from(chunk.len()).unwrap_or(u32::MAX) / div(rate)).await;
            }
        }
    };
    tokio::join!(reading, writing);
}

fn div(rate: u64) -> u32 {
    u32::try_from(rate).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A proxy in front of an echo.
    async fn echo() -> (TcpStream, watch::Sender<Condition>) {
        let echo = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = echo.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = echo.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = stream.split();
                    let _ = tokio::io::copy(&mut from, &mut to).await;
                });
            }
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (conditions, condition) = watch::channel(Condition::default());
        tokio::spawn(accept(listener, target, condition));
        (TcpStream::connect(address).await.unwrap(), conditions)
    }

    async fn round_trip(stream: &mut TcpStream, bytes: usize) -> Duration {
        let began = Instant::now();
        stream.write_all(&vec![7; bytes]).await.unwrap();
        stream.read_exact(&mut vec![0; bytes]).await.unwrap();
        began.elapsed()
    }

    #[tokio::test]
    async fn a_link_is_delayed_and_narrow_and_recovers() {
        let (mut stream, conditions) = echo().await;
        conditions.send_replace(Condition { delay_ms: 60, ..Condition::default() });
        // The first chunk may have been waited for before the condition changed.
        round_trip(&mut stream, 1).await;
        assert!(round_trip(&mut stream, 1).await >= Duration::from_millis(120));
        conditions.send_replace(Condition { bytes_per_s: 100_000, ..Condition::default() });
        assert!(round_trip(&mut stream, 100_000).await >= Duration::from_millis(700));
        conditions.send_replace(Condition::default());
        round_trip(&mut stream, 1).await;
    }

    #[tokio::test]
    async fn a_held_link_passes_nothing_until_it_is_let_go() {
        let (mut stream, conditions) = echo().await;
        round_trip(&mut stream, 10).await;
        conditions.send_replace(Condition { hold: true, ..Condition::default() });
        let held = tokio::time::timeout(Duration::from_millis(300), round_trip(&mut stream, 10)).await;
        assert!(held.is_err());
        conditions.send_replace(Condition::default());
        stream.read_exact(&mut [0; 10]).await.unwrap();
    }
}
