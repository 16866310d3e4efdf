use super::*;
use crate::metrics::ListenerMetrics;
use crate::net::{AcceptLimits, Incoming};
use baton_core::BrokerId;
use std::io;
use std::net::SocketAddr;
use std::sync::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio::time::Instant;

#[derive(Default)]
struct Probe {
    missing: Mutex<Vec<Missing>>,
    hangs: bool,
}

#[async_trait]
impl ReadinessProbe for Probe {
    async fn missing(&self) -> Vec<Missing> {
        self.alive().await;
        self.missing.lock().unwrap().clone()
    }

    async fn alive(&self) {
        if self.hangs {
            std::future::pending::<()>().await;
        }
    }
}

/// Accepts what the test connects: no port, and simulated time.
struct Pipes(mpsc::Receiver<DuplexStream>);

#[async_trait]
impl Incoming for Pipes {
    async fn accept(&mut self) -> io::Result<Connection> {
        match self.0.recv().await {
            Some(io) => Ok(Connection::new(io, None, None)),
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

struct Server {
    connect: mpsc::Sender<DuplexStream>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Server {
    fn start(probe: Probe) -> Self {
        let (connect, pipes) = mpsc::channel(8);
        let acceptor = Acceptor::new(
            Box::new(Pipes(pipes)),
            AcceptLimits {
                connections: Arc::new(Semaphore::new(2)),
                first_bytes: 1,
                first_bytes_within: Duration::from_secs(5),
                metrics: ListenerMetrics::default(),
            },
        );
        let about = About { broker: 7, version: "1.2.3", incarnation: "00ff".to_owned(), cluster: "c".to_owned() };
        let monitoring = Monitoring { metrics: Metrics::new(BrokerId(7)), probe: Arc::new(probe), about };
        let stop = CancellationToken::new();
        let task = tokio::spawn(serve(acceptor, monitoring, stop.clone()));
        Self { connect, stop, task }
    }

    async fn connect(&self) -> DuplexStream {
        let (near, far) = tokio::io::duplex(1 << 20);
        self.connect.send(far).await.unwrap();
        near
    }

    /// The whole answer to what is sent, read until the server closes.
    async fn send(&self, request: &[u8]) -> String {
        let mut connection = self.connect().await;
        connection.write_all(request).await.unwrap();
        let mut answer = Vec::new();
        // An early close may show as an error; what was answered before it counts.
        let _ = connection.read_to_end(&mut answer).await;
        String::from_utf8(answer).unwrap()
    }

    async fn get(&self, path: &str) -> String {
        self.send(format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes()).await
    }
}

fn has(answer: &str, parts: &[&str]) {
    for part in parts {
        assert!(answer.contains(part), "{part:?} is missing in {answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_shown() {
    let server = Server::start(Probe::default());
    has(&server.get("/").await, &["HTTP/1.1 200", r#""broker":7"#, r#""version":"1.2.3""#, "/readyz"]);
    has(&server.get("/metrics").await, &["HTTP/1.1 200", "text/plain", "# TYPE baton_partitions gauge"]);
    has(&server.get("/livez").await, &["HTTP/1.1 200", r#"{"alive":true}"#]);
    has(&server.get("/readyz").await, &["HTTP/1.1 200", r#"{"ready":true,"missing":[]}"#]);
    has(&server.get("/nothing").await, &["HTTP/1.1 404"]);
    has(&server.send(b"POST /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await, &["HTTP/1.1 405"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_missing_is_said() {
    let missing = Missing { what: "registry", why: "ZooKeeper is not reached".to_owned() };
    let server = Server::start(Probe { missing: Mutex::new(vec![missing]), hangs: false });
    let answer = server.get("/readyz").await;
    has(&answer, &["HTTP/1.1 503", r#""ready":false"#, r#""what":"registry""#, "ZooKeeper is not reached"]);
    has(&server.get("/livez").await, &["HTTP/1.1 200"]);
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_does_not_answer_is_neither_alive_nor_ready() {
    let server = Server::start(Probe { hangs: true, ..Probe::default() });
    has(&server.get("/livez").await, &["HTTP/1.1 503", r#"{"alive":false}"#]);
    has(&server.get("/readyz").await, &["HTTP/1.1 503", "did not answer"]);
}

/// The connection ends within `bound` after `sent`, whatever it answers.
async fn ends_within(bound: Duration, sent: &[u8]) {
    let server = Server::start(Probe::default());
    let started = Instant::now();
    let answer = tokio::time::timeout(bound, server.send(sent)).await;
    assert!(answer.is_ok(), "the connection was still open after {bound:?}");
    assert!(started.elapsed() <= bound);
    has(&server.get("/livez").await, &["HTTP/1.1 200"]);
}

#[tokio::test(start_paused = true)]
async fn a_silent_connection_is_closed() {
    ends_within(Duration::from_secs(6), b"").await;
}

#[tokio::test(start_paused = true)]
async fn half_a_request_is_closed() {
    ends_within(Duration::from_secs(11), b"GET /metrics HTTP/1.1\r\nhost:").await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed_after_its_answer() {
    ends_within(Duration::from_secs(11), b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await;
}

#[tokio::test(start_paused = true)]
async fn garbage_is_closed() {
    ends_within(Duration::from_secs(1), b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 no http\r\n\r\n").await;
    ends_within(Duration::from_secs(1), &[0xff; 4096]).await;
}

#[tokio::test(start_paused = true)]
async fn endless_headers_and_endless_bodies_are_closed() {
    let mut headers = b"GET / HTTP/1.1\r\n".to_vec();
    for i in 0..5_000 {
        headers.extend_from_slice(format!("x-{i}: {i}\r\n").as_bytes());
    }
    ends_within(Duration::from_secs(11), &headers).await;
    let mut body = b"GET /livez HTTP/1.1\r\nhost: x\r\ncontent-length: 900000\r\n\r\n".to_vec();
    body.resize(500_000, b'x');
    ends_within(Duration::from_secs(11), &body).await;
}

#[tokio::test(start_paused = true)]
async fn connections_are_limited_and_come_free_again() {
    let server = Server::start(Probe::default());
    let (one, two) = (server.connect().await, server.connect().await);
    assert_eq!(server.get("/livez").await, "", "a third connection was served");
    drop((one, two));
    let deadline = Instant::now() + Duration::from_secs(10);
    while server.get("/livez").await.is_empty() {
        assert!(Instant::now() < deadline, "the connections never came free");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn it_stops_while_connections_are_open() {
    let server = Server::start(Probe { hangs: true, ..Probe::default() });
    let mut busy = server.connect().await;
    busy.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let _idle = server.connect().await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    server.stop.cancel();
    tokio::time::timeout(Duration::from_secs(3), server.task).await.unwrap().unwrap();
}
