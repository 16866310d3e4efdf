//! A network that can fail: a TCP proxy in front of one address.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What the proxy does with what it gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Rules {
    /// Connections older than this are broken.
    cuts: u64,
    /// New connections are closed at once.
    refuse: bool,
    /// Nothing that the server says arrives.
    hold_answers: bool,
    /// Nothing arrives either way.
    hold_all: bool,
}

/// Listens on a free loopback port until it is dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    rules: Arc<watch::Sender<Rules>>,
    accepting: JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Proxy {
    /// # Errors
    /// No port is free.
    pub async fn start(target: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let rules = Arc::new(watch::Sender::new(Rules::default()));
        let accepting = tokio::spawn(accept(listener, target, rules.clone()));
        Ok(Self { address, rules, accepting })
    }

    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Breaks every connection; new ones are welcome.
    pub fn cut(&self) {
        self.rules.send_modify(|rules| rules.cuts += 1);
    }

    /// Breaks every connection and refuses new ones until told otherwise.
    pub fn refuse(&self, refuse: bool) {
        self.rules.send_modify(|rules| {
            rules.refuse = refuse;
            rules.cuts += u64::from(refuse);
        });
    }

    /// Requests arrive, answers do not (they come late when this ends before a cut).
    pub fn hold_answers(&self, hold: bool) {
        self.rules.send_modify(|rules| rules.hold_answers = hold);
    }

    /// A silent partition: connections stay open, nothing arrives.
    pub fn hold_all(&self, hold: bool) {
        self.rules.send_modify(|rules| rules.hold_all = hold);
    }
}

async fn accept(listener: TcpListener, target: SocketAddr, rules: Arc<watch::Sender<Rules>>) {
    while let Ok((client, _)) = listener.accept().await {
        if rules.borrow().refuse {
            continue;
        }
        let rules = rules.subscribe();
        tokio::spawn(async move {
            if let Ok(server) = TcpStream::connect(target).await {
                relay(client, server, rules).await;
            }
        });
    }
}

async fn relay(client: TcpStream, server: TcpStream, rules: watch::Receiver<Rules>) {
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let cuts = rules.borrow().cuts;
    let mut until_cut = rules.clone();
    tokio::select! {
        () = pump(from_client, to_server, rules.clone(), |rules| rules.hold_all) => {}
        () = pump(from_server, to_client, rules, |rules| rules.hold_all || rules.hold_answers) => {}
        _ = until_cut.wait_for(|rules| rules.cuts != cuts) => {}
    }
}

async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut rules: watch::Receiver<Rules>,
    held: fn(&Rules) -> bool,
) {
    let cuts = rules.borrow().cuts;
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let count = match from.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(count) => count,
        };
        // What was held when the connection was cut never arrives.
        match rules.wait_for(|rules| !held(rules) || rules.cuts != cuts).await.map(|r| r.cuts) {
            Ok(now) if now == cuts => {}
            _ => return,
        }
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
