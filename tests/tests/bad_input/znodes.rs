//! ZooKeeper data that is truncated, of a newer version, or not ours: brokers and the
//! coordinator go on with what they know, say so, overwrite nothing of it, and recover when it
//! is repaired.

use baton_broker::launch::LaunchError;
use baton_client::ClientError;
use baton_client::admin::TopicSpec;
use baton_core::partition::PartitionState;
use baton_core::{BrokerId, ErrorCode, TopicPartition};
use baton_registry::Registry;
use baton_registry::znode::{
    BrokerRegistration, Candidate, Znode, broker, candidate, cluster, coordinator, partition, topic,
};
use bytes::Bytes;

use crate::harness::{Cluster, Ledger, Options, complete, config, wait};
use crate::watch;

/// What may stand in a node instead of what was written, and what the log says of it.
fn damages(good: &Bytes) -> Vec<(Bytes, &'static str)> {
    let newer = [&[99], &good[1..]].concat();
    vec![
        (good.slice(..good.len() - 1), "the data ends too early"),
        (Bytes::new(), "the data ends too early"),
        (newer.into(), "written by a newer version (found 99"),
        (Bytes::from_static(b"hello, ZooKeeper"), "not written by Baton"),
    ]
}

/// A node that an operator overwrites by hand.
struct Node<'a> {
    cluster: &'a Cluster,
    operator: Box<dyn Registry>,
    path: String,
    good: Bytes,
}

impl<'a> Node<'a> {
    fn of(cluster: &'a Cluster, path: String) -> Self {
        let operator: Box<dyn Registry> = Box::new(cluster.operator());
        let (good, _) = cluster.run(operator.get(&path)).expect("the node exists");
        Self { cluster, operator, path, good }
    }

    fn write(&self, data: &Bytes) {
        self.cluster.run(self.operator.set(&self.path, data.clone(), None)).expect("the node exists");
    }

    fn read(&self) -> Bytes {
        self.cluster.run(self.operator.get(&self.path)).expect("the node exists").0
    }
}

#[test]
fn partition_state_unreadable() {
    let cluster = Cluster::start(Options::default());
    let mut ledger = Ledger::open(&cluster, "state");
    let (leader, _, id) = cluster.leader("state");
    let id = TopicPartition { topic: id, partition: 0 };
    let node = Node::of(&cluster, partition::path(id));
    for (data, word) in damages(&node.good) {
        let mark = watch::mark();
        node.write(&data);
        watch::logged(mark, &["cannot read the state of a partition", &id.to_string(), word]);
        watch::logged(mark, &["cannot read a partition's state", &id.to_string(), word]);
        ledger.produce(&cluster);
        ledger.read(&cluster);
        assert_eq!(node.read(), data, "what is not understood was overwritten");
        node.write(&node.good);
    }
    // It is led and elected as ever.
    cluster.kill(leader);
    ledger.produce(&cluster);
    cluster.start_broker(leader);
    cluster.wait_in_sync("state", 3);
    ledger.settle(&cluster);
}

/// A broker that starts while one topic's node cannot be read serves all others.
#[test]
fn topic_unreadable() {
    let cluster = Cluster::start(Options::default());
    let (mut bad, mut beside) = (Ledger::open(&cluster, "unreadable"), Ledger::open(&cluster, "readable"));
    let (leader, _, id) = cluster.leader("unreadable");
    let node = Node::of(&cluster, topic::path(id));
    for (data, word) in damages(&node.good) {
        let mark = watch::mark();
        node.write(&data);
        watch::logged(mark, &["cannot read a topic", &id.to_string(), word]);
        bad.produce(&cluster);
        beside.produce(&cluster);
        node.write(&node.good);
    }
    let (data, _) = damages(&node.good).remove(3);
    node.write(&data);
    let follower = leader % 3 + 1;
    cluster.kill(follower);
    cluster.start_broker(follower);
    cluster.wait_in_sync("readable", 3);
    bad.produce(&cluster);
    // Others are made and deleted meanwhile.
    let admin = bad.client().admin();
    cluster.run(admin.create_topic(TopicSpec::new("made-meanwhile"))).expect("a topic is made");
    cluster.run(admin.delete_topic("made-meanwhile")).expect("a topic is deleted");
    assert_eq!(node.read(), data, "what is not understood was overwritten");
    node.write(&node.good);
    cluster.wait_in_sync("unreadable", 3);
    beside.settle(&cluster);
    bad.settle(&cluster);
}

#[test]
fn topic_link_unreadable() {
    let cluster = Cluster::start(Options::default());
    let mut ledger = Ledger::open(&cluster, "link");
    let node = Node::of(&cluster, topic::link_path("default", "link"));
    for (data, word) in damages(&node.good) {
        node.write(&data);
        ledger.produce(&cluster);
        let admin = ledger.client().admin();
        let again = cluster.run(admin.create_topic(TopicSpec::new("link"))).unwrap_err();
        assert_eq!(again.code(), ErrorCode::TopicExists, "{again}");
        let kept = cluster.run(admin.delete_topic("link")).unwrap_err();
        assert!(matches!(&kept, ClientError::Broker(error) if error.cause.contains(word)), "{kept}");
        node.write(&node.good);
    }
    ledger.read(&cluster);
    cluster.run(ledger.client().admin().delete_topic("link")).expect("it can be deleted again");
    Ledger::open(&cluster, "after-link").settle(&cluster);
}

/// A live broker's registration is overwritten: it goes on to count, and writes it again.
#[test]
fn broker_registration_unreadable() {
    let cluster = Cluster::start(Options::default());
    let mut ledger = Ledger::open(&cluster, "registration");
    let (leader, _, _) = cluster.leader("registration");
    let node = Node::of(&cluster, broker::path(BrokerId(leader)));
    for (data, word) in damages(&node.good) {
        let mark = watch::mark();
        node.write(&data);
        watch::logged(mark, &["somebody overwrote this broker's registration", word]);
        ledger.produce(&cluster);
        wait(|| BrokerRegistration::decode(&node.read()).is_ok());
        assert_eq!(node.read(), node.good);
        assert_eq!(cluster.leader("registration").0, leader, "the leader was given up over it");
    }
    ledger.settle(&cluster);
}

/// The node of somebody who is none of the brokers, with data that is nothing.
#[test]
fn broker_registration_of_a_stranger() {
    let cluster = Cluster::start(Options::default());
    let mut ledger = Ledger::open(&cluster, "stranger");
    let operator = cluster.operator();
    let mark = watch::mark();
    for name in ["77", "not-a-number", "4294967296"] {
        let path = format!("{}/{name}", broker::ROOT);
        cluster.run(operator.create(&path, Bytes::from_static(b"?"), baton_registry::CreateMode::Persistent)).unwrap();
    }
    watch::logged(mark, &["cannot read a registration", "77"]);
    ledger.produce(&cluster);
    let status = cluster.run(ledger.client().admin().cluster_status()).unwrap();
    assert_eq!(status.brokers.len(), 3, "{status:?}");
    ledger.settle(&cluster);
}

#[test]
fn candidate_unreadable() {
    let cluster = Cluster::start(Options::default());
    let mut ledger = Ledger::open(&cluster, "candidate");
    let (_, _, id) = cluster.leader("candidate");
    let id = TopicPartition { topic: id, partition: 0 };
    let operator = cluster.operator();
    let queue = || {
        let mut names = cluster.run(operator.children(&partition::path(id))).unwrap();
        names.retain(|name| candidate::sequence_of(name).is_some());
        names
    };
    wait(|| queue().len() == 3);
    for name in queue() {
        let node = Node::of(&cluster, format!("{}/{name}", partition::path(id)));
        for (data, word) in damages(&node.good) {
            let mark = watch::mark();
            node.write(&data);
            watch::logged(mark, &["cannot read a candidate", &id.to_string(), word]);
            ledger.produce(&cluster);
        }
    }
    // Every replica stands in the queue again, with a node that can be read.
    wait(|| {
        let paths = queue().into_iter().map(|name| format!("{}/{name}", partition::path(id)));
        let good = paths
            .filter(|path| cluster.run(operator.get(path)).is_ok_and(|(data, _)| Candidate::decode(&data).is_ok()));
        good.count() == 3
    });
    let (leader, _, _) = cluster.leader("candidate");
    cluster.kill(leader);
    ledger.produce(&cluster);
    cluster.start_broker(leader);
    cluster.wait_in_sync("candidate", 3);
    ledger.settle(&cluster);
}

/// What runs does not read it; what starts is refused until it is repaired.
#[test]
fn cluster_identity_unreadable() {
    let cluster = Cluster::start(Options::default());
    let mut ledger = Ledger::open(&cluster, "identity");
    let node = Node::of(&cluster, cluster::PATH.to_owned());
    for (data, word) in damages(&node.good) {
        node.write(&data);
        let another = complete(config(4, cluster.broker_dir(4)));
        let error = cluster.try_launch(another).err().expect("it does not start");
        assert!(matches!(error, LaunchError::Registry(_)), "{error}");
        assert!(error.to_string().contains(word) && error.to_string().contains("/cluster"), "{error}");
        ledger.produce(&cluster);
    }
    node.write(&node.good);
    let stray = cluster.try_launch(complete(config(4, cluster.broker_dir(4)))).expect("it starts");
    stray.ready();
    drop(stray);
    ledger.settle(&cluster);
}

/// Nobody coordinates then; records and elections do not need it.
#[test]
fn coordinators_epoch_unreadable() {
    let cluster = Cluster::start(Options::default());
    let mut ledger = Ledger::open(&cluster, "coordinators-epoch");
    let node = Node::of(&cluster, coordinator::EPOCH_PATH.to_owned());
    let (data, word) = damages(&node.good).remove(2);
    let mark = watch::mark();
    node.write(&data);
    watch::logged(mark, &["cannot stand for election", word]);
    let refused = cluster.run(
        ledger
            .client()
            .admin()
            .create_topic(TopicSpec { timeout: std::time::Duration::from_secs(1), ..TopicSpec::new("no") }),
    );
    assert_eq!(refused.unwrap_err().code(), ErrorCode::NoCoordinator);
    let (leader, _, _) = cluster.leader("coordinators-epoch");
    cluster.kill(leader);
    ledger.produce(&cluster);
    cluster.start_broker(leader);
    assert_eq!(node.read(), data, "what is not understood was overwritten");
    node.write(&node.good);
    cluster.wait_in_sync("coordinators-epoch", 3);
    Ledger::open(&cluster, "coordinated-again").settle(&cluster);
    ledger.settle(&cluster);
}

/// A state that says what no write of ours could have said: an epoch of long ago, nobody in
/// sync. The partition may stand still; everything else goes on, and it comes back with the
/// right state.
#[test]
fn partition_state_from_the_past() {
    let cluster = Cluster::start(Options::default());
    let (mut bad, mut beside) = (Ledger::open(&cluster, "past"), Ledger::open(&cluster, "present"));
    let (leader, _, id) = cluster.leader("past");
    let node = Node::of(&cluster, partition::path(TopicPartition { topic: id, partition: 0 }));
    cluster.kill(leader);
    bad.produce(&cluster);
    cluster.start_broker(leader);
    cluster.wait_in_sync("past", 3);
    let right = node.read();
    let state = PartitionState::decode(&right).unwrap();
    let nobody = PartitionState { isr: Vec::new(), ..state.clone() };
    let nowhere = PartitionState { assignment: Default::default(), ..state.clone() };
    for wrong in [nobody.encode(), nowhere.encode(), node.good.clone()] {
        node.write(&wrong);
        beside.produce(&cluster);
        beside.read(&cluster);
        node.write(&right);
    }
    bad.produce(&cluster);
    cluster.wait_in_sync("past", 3);
    beside.settle(&cluster);
    bad.settle(&cluster);
}
