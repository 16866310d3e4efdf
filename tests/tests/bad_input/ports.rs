//! Garbage and half-open connections on every port.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use baton_coordinator::dev::{DevCluster, DevOptions, control};
use baton_core::ErrorCode;
use baton_proto::v1::peer_client::PeerClient;
use baton_proto::v1::{self, link_reply};
use baton_tests::ports::free_block;
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::Code;

use crate::harness::{Cluster, Ledger, Options, wait};
use crate::{raw, watch};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// An empty SETTINGS frame (RFC 9113, 6.5).
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
/// A connection that is of no use is closed within this time: the deadlines are half a second.
const CLOSED_WITHIN: Duration = Duration::from_secs(15);

fn impatient() -> Options {
    let tune = |config: &mut baton_broker::config::BrokerConfig| {
        config.timing.first_bytes_ms = 500;
        config.timing.keep_alive_ms = 500;
    };
    Options { tune, ..Options::default() }
}

fn garbage() -> Vec<(&'static str, Vec<u8>)> {
    let mut noise = vec![0; 100_000];
    StdRng::seed_from_u64(7).fill_bytes(&mut noise);
    let after_preface = |rest: &[u8]| [PREFACE, SETTINGS, rest].concat();
    vec![
        ("a few bytes", noise[..10].to_vec()),
        ("noise", noise.clone()),
        ("a TLS hello", [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3], &noise[..505]].concat()),
        ("zeros", vec![0; 50_000]),
        ("noise after the preface", after_preface(&noise)),
        ("a frame that claims 16 MiB", after_preface(&[0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1])),
        ("headers that are no HPACK", after_preface(&[&[0, 0, 20, 1, 4, 0, 0, 0, 1], &[0xff; 20][..]].concat())),
        ("data for no stream", after_preface(&[0, 0, 2, 0, 1, 0, 0, 0, 9, 1, 2])),
        ("a request that never ends", b"GET /".repeat(5_000)),
    ]
}

/// Everything is answered by the end of the connection, in bounded time.
async fn feed_garbage(address: &str) {
    for (what, bytes) in garbage() {
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        // The other side may have hung up already.
        let _ = stream.write_all(&bytes).await;
        let ended = raw::ended(&mut stream, CLOSED_WITHIN).await;
        assert!(ended.is_some(), "{address} keeps a connection with {what}");
    }
}

/// A connection that says nothing is closed, also while many of them come.
async fn hold_open(address: &str, beginning: &[u8]) {
    let mut held = Vec::new();
    for _ in 0..20 {
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        stream.write_all(beginning).await.unwrap();
        held.push(stream);
    }
    for mut stream in held {
        let ended = raw::ended(&mut stream, CLOSED_WITHIN).await;
        assert!(ended.is_some(), "{address} keeps a silent connection after {} bytes", beginning.len());
    }
}

async fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[test]
fn garbage_for_clients_port() {
    let cluster = Cluster::start(impatient());
    let ledger = Ledger::open(&cluster, "garbage-grpc");
    let address = cluster.leader_address(&ledger.topic);
    cluster.run(feed_garbage(&address));
    ledger.settle(&cluster);
}

#[test]
fn half_open_on_clients_port() {
    let cluster = Cluster::start(impatient());
    let ledger = Ledger::open(&cluster, "half-open-grpc");
    let address = cluster.leader_address(&ledger.topic);
    cluster.run(async {
        hold_open(&address, b"").await;
        hold_open(&address, &PREFACE[..10]).await;
        // It has begun to speak HTTP/2: pings find out that nobody is there.
        hold_open(&address, &[PREFACE, SETTINGS].concat()).await;
    });
    ledger.settle(&cluster);
}

#[test]
fn garbage_and_half_open_on_peers_port() {
    let cluster = Cluster::start(impatient());
    let ledger = Ledger::open(&cluster, "garbage-peer");
    for id in 1..=3 {
        let address = cluster.address(id, "peer");
        cluster.run(async {
            feed_garbage(&address).await;
            hold_open(&address, b"").await;
            hold_open(&address, &[PREFACE, SETTINGS].concat()).await;
        });
    }
    assert_eq!(cluster.leader(&ledger.topic).1.isr.len(), 3, "a replica was lost over it");
    ledger.settle(&cluster);
}

/// What speaks the protocol between brokers and is none of this cluster's.
#[test]
fn strangers_on_peers_port() {
    let cluster = Cluster::start(Options::default());
    let ledger = Ledger::open(&cluster, "strangers");
    let address = cluster.address(1, "peer");
    let info = cluster.run(raw::broker(&cluster.address(1, "grpc")));
    let cluster_id = cluster.run(async {
        let mut info = info;
        info.metadata(v1::MetadataRequest::default()).await.unwrap().into_inner().cluster_id
    });
    let open = v1::LinkOpen {
        protocol: 1,
        cluster_id,
        from: 2,
        to: 1,
        disk: vec![7; 16].into(),
        incarnation: 1,
        catch_up: true,
    };
    let refused = [
        (v1::LinkOpen { cluster_id: "another".to_owned(), ..open.clone() }, ErrorCode::WrongCluster),
        (v1::LinkOpen { protocol: 99, ..open.clone() }, ErrorCode::InvalidRequest),
        (v1::LinkOpen { to: 3, ..open.clone() }, ErrorCode::InvalidRequest),
        (v1::LinkOpen { from: 1, ..open.clone() }, ErrorCode::InvalidRequest),
        (v1::LinkOpen { disk: vec![7; 3].into(), ..open.clone() }, ErrorCode::InvalidRequest),
    ];
    cluster.run(async {
        for (open, code) in refused {
            let frame = v1::PeerFrame { open: Some(open), ..Default::default() };
            let reply = link(&address, vec![frame]).await.unwrap().expect("a reply");
            let Some(link_reply::Reply::Refused(error)) = reply.reply else { panic!("{reply:?}") };
            raw::check(Some(&error), code, ("", None));
        }
        let status = link(&address, vec![v1::PeerFrame::default()]).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        // Welcome, and then a message that is none.
        let frames = vec![
            v1::PeerFrame { open: Some(open), ..Default::default() },
            v1::PeerFrame { hellos: vec![v1::Hello::default()], ..Default::default() },
        ];
        let mut replies =
            PeerClient::new(raw::channel(&address).await).link(tokio_stream::iter(frames)).await.unwrap().into_inner();
        assert!(matches!(replies.message().await.unwrap().unwrap().reply, Some(link_reply::Reply::Welcome(_))));
        let status = replies.message().await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        let mut peer = PeerClient::new(raw::channel(&address).await);
        assert_eq!(peer.fence(v1::FenceRequest::default()).await.unwrap_err().code(), Code::InvalidArgument);
        assert_eq!(peer.resign(v1::ResignRequest::default()).await.unwrap_err().code(), Code::InvalidArgument);
        let request = v1::AppendInternalRequest { topic: "__no".to_owned(), timeout_ms: 100, ..Default::default() };
        let answer = peer.append_internal(request).await.unwrap().into_inner();
        assert!(answer.error.is_some(), "{answer:?}");
    });
    ledger.settle(&cluster);
}

async fn link(address: &str, frames: Vec<v1::PeerFrame>) -> Result<Option<v1::LinkReply>, tonic::Status> {
    let mut client = PeerClient::new(raw::channel(address).await);
    client.link(tokio_stream::iter(frames)).await?.into_inner().message().await
}

#[test]
fn garbage_and_half_open_on_http_port() {
    let cluster = Cluster::start(impatient());
    let ledger = Ledger::open(&cluster, "garbage-http");
    let address = cluster.address(1, "http");
    cluster.run(async {
        feed_garbage(&address).await;
        hold_open(&address, b"").await;
        assert!(get(&address, "/livez").await.starts_with("HTTP/1.1 200"));
        assert!(get(&address, "/no-such-path").await.starts_with("HTTP/1.1 404"));
    });
    ledger.settle(&cluster);
}

#[test]
fn garbage_and_half_open_on_coordinators_ports() {
    let cluster = Cluster::start(Options::default());
    let coordinator = cluster.coordinator.as_ref().unwrap();
    let (grpc, http) = (coordinator.grpc_address().to_string(), coordinator.http_address().to_string());
    let ledger = Ledger::open(&cluster, "garbage-coordinator");
    cluster.run(async {
        feed_garbage(&grpc).await;
        hold_open(&grpc, b"").await;
        feed_garbage(&http).await;
        hold_open(&http, b"").await;
    });
    // It still administers.
    Ledger::open(&cluster, "made-afterwards").settle(&cluster);
    ledger.settle(&cluster);
}

#[test]
fn garbage_and_half_open_on_dev_control_port() {
    watch::begin();
    let dir = tempfile::tempdir().unwrap();
    let dev = DevCluster::start(DevOptions { dir: dir.path().to_owned(), first_port: free_block(), kafka_port: None })
        .unwrap();
    let runtime = crate::harness::runtime("control");
    let address: SocketAddr = format!("127.0.0.1:{}", free_port()).parse().unwrap();
    let serving = runtime.spawn(control::serve(address, Arc::clone(&dev)));
    let address = address.to_string();
    wait(|| std::net::TcpStream::connect(&address).is_ok());
    runtime.block_on(async {
        let began = Instant::now();
        hold_open(&address, b"").await;
        assert!(began.elapsed() < CLOSED_WITHIN);
        feed_garbage(&address).await;
    });
    // What is asked for and cannot be is said, and it still obeys.
    assert_eq!(
        control::ask(&address, "/brokers/9/kill").unwrap().error.unwrap(),
        "there is no broker 9; there are 1 to 3"
    );
    assert!(control::ask(&address, "/brokers/x/kill").is_err());
    assert_eq!(control::ask(&address, "/brokers/2/kill").unwrap().running, [true, false, true]);
    assert_eq!(control::ask(&address, "/brokers/2/start").unwrap().running, [true, true, true]);
    assert!(dev.wait_ready(crate::harness::PATIENCE));
    dev.stop();
    serving.abort();
    // The cluster's runtimes must not be dropped on one.
    wait(|| Arc::strong_count(&dev) == 1);
    runtime.shutdown_background();
    drop(dev);
    watch::assert_no_panics();
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
