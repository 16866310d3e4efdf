//! Starts under wrong configurations and in wrong circumstances.

use std::time::Duration;

use baton_broker::config::{BrokerConfig, Sources, load};
use baton_broker::launch::{LaunchError, RegistrySource, launch};
use baton_broker::server::BrokerError;
use baton_client::admin::TopicSpec;
use baton_coordinator::daemon::config::CoordinatorConfig;
use baton_core::ErrorCode;
use baton_registry::testing::server::{Ensemble, Version};

use crate::harness::{Cluster, Ledger, Options, complete, config, runtime, wait};
use crate::watch;

#[test]
fn unknown_key() {
    let file = |text: &str| Sources { file: Some(("broker.toml".into(), text.to_owned())), ..Sources::default() };
    let good = "broker_id = 1\n[registry]\nconnect = \"zk:2181\"\n[log]\n";
    let error = load::<BrokerConfig>(&file(&format!("{good}dirr = \"x\"\n"))).unwrap_err().to_string();
    for word in ["broker.toml", "log.dirr", "did you mean log.dir?"] {
        assert!(error.contains(word), "{word:?} is not in {error:?}");
    }
    let environment = vec![("BATON_LOGG__DIR".to_owned(), "x".to_owned())];
    let error = load::<BrokerConfig>(&Sources { environment, ..file(good) }).unwrap_err().to_string();
    assert!(error.contains("BATON_LOGG__DIR"), "{error}");
    let error = load::<CoordinatorConfig>(&file("nmae = \"c\"\n")).unwrap_err().to_string();
    assert!(error.contains("nmae") && error.contains("name"), "{error}");
}

/// The second one gives up with the reason; the first one never notices.
#[test]
fn two_brokers_with_one_id() {
    let cluster = Cluster::start(Options::default());
    let mut ledger = Ledger::open(&cluster, "one-id");
    let (leader, before, _) = cluster.leader("one-id");
    let mut second = cluster
        .try_launch(complete(config(leader, cluster.broker_dir(leader).with_extension("second"))))
        .expect("it starts to claim its id");
    for _ in 0..20 {
        ledger.produce(&cluster);
        std::thread::sleep(Duration::from_millis(50));
    }
    let error = second.failed();
    assert!(matches!(error, BrokerError::Claim(_)), "{error}");
    for word in [format!("broker id {leader}").as_str(), "in use", "give each broker an id of its own"] {
        assert!(error.to_string().contains(word), "{word:?} is not in {error}");
    }
    let (now, after, _) = cluster.leader("one-id");
    assert_eq!((now, after.epoch, after.isr.len()), (leader, before.epoch, 3), "the first one was disturbed");
    drop(second);
    ledger.settle(&cluster);
}

#[test]
fn address_that_cannot_be_bound() {
    let cluster = Cluster::start(Options::default());
    let ledger = Ledger::open(&cluster, "address");
    type Change = fn(&mut BrokerConfig, String);
    let changes: [Change; 3] = [
        |config, address| config.listeners[0].bind = address,
        |config, address| config.peer.bind = address,
        |config, address| config.http.bind = address,
    ];
    // In use, and none of this machine (RFC 5737).
    for address in [cluster.address(1, "grpc"), "192.0.2.1:7400".to_owned()] {
        for change in changes {
            let mut config = config(4, cluster.broker_dir(4));
            change(&mut config, address.clone());
            let error = cluster.try_launch(complete(config)).err().expect("it does not start");
            assert!(matches!(error, LaunchError::Broker(BrokerError::Bind(_))), "{error}");
            let text = error.to_string();
            assert!(text.contains(&address) && text.contains("choose another address"), "{text}");
        }
    }
    ledger.settle(&cluster);
}

/// A real ZooKeeper that is not there yet: the broker waits, says so, and goes on.
#[test]
fn zookeeper_not_reachable_at_start() {
    watch::begin();
    let runtime = runtime("late");
    let Some(class_path) = Version::V3_8.class_path_or_skip() else { return };
    let mut zookeeper = runtime.block_on(Ensemble::start(&class_path, 1)).unwrap();
    zookeeper.kill(0);
    let dir = tempfile::tempdir().unwrap();
    let mut config = complete(config(1, dir.path().join("broker")));
    config.registry.connect = format!("{}/baton", zookeeper.connection_string());
    let mark = watch::mark();
    let starting = runtime.spawn(launch(config, RegistrySource::ZooKeeper));
    watch::logged(mark, &["waiting for ZooKeeper", &zookeeper.connection_string()]);
    assert!(!starting.is_finished(), "the broker gave up");
    zookeeper.spawn(0).unwrap();
    let broker = runtime.block_on(starting).unwrap().expect("it starts");
    wait(|| runtime.block_on(broker.missing()).is_empty());
    runtime.block_on(broker.stop());
    runtime.shutdown_background();
    watch::assert_no_panics();
}

/// To call a topic unknown that it has not read yet would make applications fail.
#[test]
fn a_broker_that_has_just_started_says_nothing_wrong() {
    let cluster = Cluster::start(Options::default());
    let ledger = Ledger::open(&cluster, "early");
    for n in 0..40 {
        let spec = TopicSpec::new(format!("other-{n}")).partitions(1);
        cluster.run(ledger.client().admin().create_topic(spec)).expect("a topic");
    }
    for round in 0..3 {
        cluster.stop(2);
        cluster.start_broker(2);
        let address = cluster.address(2, "grpc");
        let mut asked = 0;
        wait(|| {
            let topic = cluster.run(crate::raw::metadata(&address, "early"));
            let code = topic.error.as_ref().map(|error| error.code);
            assert_ne!(code, Some(ErrorCode::UnknownTopic.number()), "round {round}, question {asked}: {topic:?}");
            asked += 1;
            code.is_none() && asked > 20
        });
        cluster.wait_ready();
    }
    ledger.settle(&cluster);
}
