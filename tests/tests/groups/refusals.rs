//! What a group's coordinator refuses, and with which code, since clients act on it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use baton_client::admin::TopicSpec;
use baton_client::{Client, ErrorCode, Offset, ProducerConfig, Record};
use baton_proto::v1;
use baton_tests::sim::SimCluster;

use crate::raw::{
    client, code, commit, find, heartbeat, identity, join, join_request, join_well, offset, settle, sync, sync_request,
};
use crate::stage::{power_off, run, with_topic};

const LIMIT: Duration = Duration::from_secs(200);

/// Runs a test as the only client of a cluster with the topic.
fn alone<F>(seed: u64, test: fn(Client) -> F)
where
    F: Future<Output = ()> + 'static,
{
    let cluster = SimCluster::new(3, seed);
    let mut sim = cluster.start();
    let place = cluster.clone();
    sim.client("client", async move {
        test(with_topic(&place, 1).await).await;
        Ok(())
    });
    run(&cluster, sim, LIMIT, |_| {});
}

#[test]
fn joins() {
    alone(31, |_| async {
        let refused = |request| async move { code(join(request).await.error.as_ref()).unwrap() };
        let with = |change: fn(&mut v1::JoinGroupRequest)| {
            let mut request = join_request("g", identity("", None));
            change(&mut request);
            request
        };
        assert_eq!(refused(with(|r| r.session_ms = 5_999)).await, ErrorCode::InvalidSessionTimeout);
        assert_eq!(refused(with(|r| r.session_ms = 1_800_001)).await, ErrorCode::InvalidSessionTimeout);
        assert_eq!(refused(with(|r| r.protocols.clear())).await, ErrorCode::InconsistentProtocol);
        assert_eq!(refused(with(|r| r.protocol_type.clear())).await, ErrorCode::InconsistentProtocol);
        assert_eq!(refused(with(|r| r.member = Some(identity("stranger", None)))).await, ErrorCode::UnknownMember);
        let large = |r: &mut v1::JoinGroupRequest| r.protocols[0].metadata = vec![0; 300_000].into();
        assert_eq!(refused(with(large)).await, ErrorCode::GroupFull);
        settle("g", identity("", None), b"part").await;
        let other = |r: &mut v1::JoinGroupRequest| r.protocols[0].name = "another".to_owned();
        assert_eq!(refused(with(other)).await, ErrorCode::InconsistentProtocol);
    });
}

#[test]
fn ids_of_groups() {
    alone(32, |_| async {
        let address = find("g").await;
        for group in [String::new(), "x".repeat(250)] {
            let mut client = client(&address).await;
            let request = v1::FindGroupRequest { group: group.clone(), timeout_ms: 1_000 };
            let answer = client.find_group(request).await.unwrap().into_inner();
            assert_eq!(code(answer.error.as_ref()), Some(ErrorCode::InvalidGroupId));
            let answer = client.join_group(join_request(&group, identity("", None))).await.unwrap().into_inner();
            assert_eq!(code(answer.error.as_ref()), Some(ErrorCode::InvalidGroupId));
        }
        // The others do not coordinate it, and say so.
        for broker in 1..=3 {
            let other = format!("broker-{broker}:7400");
            if other != address {
                let mut client = client(&other).await;
                let request = v1::DescribeGroupRequest { group: "g".to_owned(), timeout_ms: 1_000 };
                let answer = client.describe_group(request).await.unwrap().into_inner();
                assert_eq!(code(answer.error.as_ref()), Some(ErrorCode::NotCoordinator));
            }
        }
    });
}

#[test]
fn generations_members_and_states() {
    alone(33, |_| async {
        let (me, generation) = settle("g", identity("", None), b"part").await;
        assert_eq!(heartbeat("g", me.clone(), generation).await, None);
        for other in [generation - 1, generation + 1, -1] {
            assert_eq!(heartbeat("g", me.clone(), other).await, Some(ErrorCode::IllegalGeneration));
            assert_eq!(commit("g", Some(me.clone()), other, offset(1)).await, Some(ErrorCode::IllegalGeneration));
            let answer = sync(sync_request("g", me.clone(), other, Vec::new())).await;
            assert_eq!(code(answer.error.as_ref()), Some(ErrorCode::IllegalGeneration));
        }
        let stranger = identity("stranger", None);
        assert_eq!(heartbeat("g", stranger.clone(), generation).await, Some(ErrorCode::UnknownMember));
        let committed = commit("g", Some(stranger.clone()), generation, offset(1)).await;
        assert_eq!(committed, Some(ErrorCode::UnknownMember));
        assert_eq!(heartbeat("no such group", me.clone(), 1).await, Some(ErrorCode::UnknownMember));
        assert_eq!(commit("g", None, -1, offset(1)).await, Some(ErrorCode::UnknownMember), "it has members");
        let mut request = sync_request("g", me.clone(), generation, Vec::new());
        request.protocol = "another".to_owned();
        assert_eq!(code(sync(request).await.error.as_ref()), Some(ErrorCode::InconsistentProtocol));
        assert_eq!(commit("g", Some(me.clone()), generation, offset(7)).await, None);
    });
}

/// What a network held back comes behind what its member said on a later connection.
#[test]
fn a_late_commit_sets_nothing_back() {
    alone(36, |_| async move {
        let (me, generation) = settle("g", identity("", None), b"part").await;
        let address = find("g").await;
        let (mut given_up, mut later) = (client(&address).await, client(&address).await);
        let request = |at| v1::CommitOffsetsRequest {
            group: "g".to_owned(),
            member: Some(me.clone()),
            generation,
            offsets: vec![offset(at)],
            timeout_ms: 5_000,
        };
        let error = |answer: &v1::CommitOffsetsResponse| code(answer.results[0].error.as_ref());
        assert_eq!(error(given_up.commit_offsets(request(3)).await.unwrap().get_ref()), None);
        assert_eq!(error(later.commit_offsets(request(9)).await.unwrap().get_ref()), None);
        let late = given_up.commit_offsets(request(5)).await.unwrap();
        assert_eq!(error(late.get_ref()), Some(ErrorCode::ConnectionReplaced));
        assert_eq!(error(later.commit_offsets(request(9)).await.unwrap().get_ref()), None);
        assert_eq!(error(client(&address).await.commit_offsets(request(10)).await.unwrap().get_ref()), None);
    });
}

#[test]
fn offsets_and_deletions() {
    alone(34, |client| async move {
        let admin = client.admin();
        let unknown = v1::OffsetToCommit { topic: "nowhere".to_owned(), ..offset(1) };
        assert_eq!(commit("g", None, -1, unknown).await, Some(ErrorCode::UnknownTopic));
        let beyond = v1::OffsetToCommit { partition: 6, ..offset(1) };
        assert_eq!(commit("g", None, -1, beyond).await, Some(ErrorCode::UnknownPartition));
        let wordy = v1::OffsetToCommit { metadata: "x".repeat(4_097), ..offset(1) };
        assert_eq!(commit("g", None, -1, wordy).await, Some(ErrorCode::OffsetMetadataTooLarge));
        assert_eq!(commit("g", None, -1, offset(-2)).await, Some(ErrorCode::InvalidRequest));
        assert_eq!(admin.delete_group("g").await.unwrap_err().code(), ErrorCode::GroupNotFound);
        assert_eq!(admin.describe_group("g").await.unwrap_err().code(), ErrorCode::GroupNotFound);
        let (me, generation) = settle("g", identity("", None), b"part").await;
        assert_eq!(commit("g", Some(me), generation, offset(7)).await, None);
        assert_eq!(admin.delete_group("g").await.unwrap_err().code(), ErrorCode::GroupNotEmpty);
        let orders: Arc<str> = "orders".into();
        let deleted = admin.delete_group_offsets("g", &[(Arc::clone(&orders), 0)]).await;
        assert_eq!(deleted.unwrap_err().code(), ErrorCode::GroupSubscribed);
        // From outside: a group that nobody is in.
        let offsets = BTreeMap::from([((Arc::clone(&orders), 2), Offset(5))]);
        admin.commit_group_offsets("free", &offsets).await.unwrap();
        assert_eq!(admin.group_offsets("free").await.unwrap()[&(Arc::clone(&orders), 2)].offset, Offset(5));
        let names: Vec<String> = admin.groups().await.unwrap().into_iter().map(|group| group.group).collect();
        assert_eq!(names, ["free", "g"]);
        admin.delete_group_offsets("free", &[(orders, 2)]).await.unwrap();
        assert!(admin.group_offsets("free").await.unwrap().is_empty());
        admin.commit_group_offsets("free", &offsets).await.unwrap();
        admin.delete_group("free").await.unwrap();
        assert!(admin.group_offsets("free").await.unwrap().is_empty());
    });
}

#[test]
fn the_topic_of_the_groups_is_not_for_clients() {
    alone(35, |client| async move {
        find("g").await;
        let topic = "__consumer_offsets";
        let (name, admin) = (topic.to_owned(), client.admin());
        assert_eq!(admin.delete_topic(topic).await.unwrap_err().code(), ErrorCode::InvalidTopicName);
        let other = TopicSpec::new("__another");
        assert_eq!(admin.create_topic(other).await.unwrap_err().code(), ErrorCode::InvalidTopicName);
        let producer = client.producer(ProducerConfig::default());
        let sent = producer.send(&name, Record::new("x").partition(0)).await;
        let refused = match sent {
            Ok(delivery) => delivery.await.unwrap_err(),
            Err(error) => error,
        };
        assert_eq!(refused.code(), ErrorCode::InvalidTopicName);
        assert!(admin.topics(false).await.unwrap().iter().all(|topic| topic.name != name));
        assert!(admin.topics(true).await.unwrap().iter().any(|topic| topic.name == name && topic.internal));
    });
}

#[test]
fn fencing_survives_the_coordinator() {
    let cluster = SimCluster::new(3, 36);
    let mut sim = cluster.start();
    let place = cluster.clone();
    sim.client("client", async move {
        with_topic(&place, 1).await;
        let named = identity("", Some("till-1"));
        let (old, generation) = settle("g", named.clone(), b"part").await;
        assert_eq!(commit("g", Some(old.clone()), generation, offset(7)).await, None);
        // The process is started again: it takes over the part, and the one before is fenced.
        let again = join_well("g", named).await;
        assert_eq!((code(again.error.as_ref()), again.generation), (None, generation));
        let new = identity(&again.member, Some("till-1"));
        let answer = sync(sync_request("g", new.clone(), generation, Vec::new())).await;
        assert_eq!(&answer.assignment[..], b"part");
        for _ in 0..40 {
            // Brokers lose their power meanwhile, one after the other.
            let beat = heartbeat("g", old.clone(), generation).await;
            assert_eq!(beat, Some(ErrorCode::FencedInstance));
            let committed = commit("g", Some(old.clone()), generation, offset(1)).await;
            assert_eq!(committed, Some(ErrorCode::FencedInstance));
            assert_eq!(heartbeat("g", new.clone(), generation).await, None);
            assert_eq!(commit("g", Some(new.clone()), generation, offset(8)).await, None);
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        Ok(())
    });
    let at = |broker, seconds| (broker, Duration::from_secs(seconds));
    let times = vec![at(1, 14), at(2, 20), at(3, 26)];
    let mut faults = power_off(&cluster, times, Duration::from_secs(3));
    run(&cluster, sim, LIMIT, |sim| faults(sim));
}
