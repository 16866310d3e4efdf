"""What users of confluent-kafka do: idempotent producing, headers, groups, administration."""
import sys
import time

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    ConsumerGroupTopicPartitions,
    ElectionType,
    KafkaException,
    Producer,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    OffsetSpec,
)

bootstrap = {"bootstrap.servers": sys.argv[1]}
topic = "confluent"
admin = AdminClient(bootstrap)
for made in admin.create_topics([NewTopic(topic, 2, 3, config={"max.message.bytes": "500000"})]).values():
    made.result(30)
HEADERS = [("h", b"\xff\x00"), ("h", None), ("h", b""), ("ü", b"1")]


def produce(count, **settings):
    failed = []
    producer = Producer({**bootstrap, "enable.idempotence": True, **settings})
    for n in range(count):
        told = lambda error, _: failed.append(error) if error else None
        producer.produce(topic, key=str(n), value=f"{n}", partition=n % 2, headers=HEADERS, on_delivery=told)
    assert producer.flush(60) == 0 and not failed, failed


def read(consumer, count):
    got, deadline = [], time.time() + 60
    while len(got) < count and time.time() < deadline:
        message = consumer.poll(1)
        if message is not None:
            assert message.error() is None, message.error()
            got.append(message)
    assert len(got) == count, (len(got), count)
    return got


def producing():
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"]:
        produce(100, **{"compression.type": codec})
    for acks in ["1", "0"]:
        # Not idempotent: with fewer acknowledgements there is no such promise.
        other = Producer({**bootstrap, "acks": acks})
        other.produce("confluent-acks", value=acks)
        assert other.flush(60) == 0
    extra = Producer(bootstrap)
    extra.produce(topic, key=None, value=None, partition=0)
    extra.produce(topic, key=b"", value=b"", partition=0)
    assert extra.flush(60) == 0
    refused = []
    extra.produce(topic, value=b"x" * 900_000, partition=0, on_delivery=lambda error, _: refused.append(error))
    assert extra.flush(60) == 0
    assert refused[0].name() == "MSG_SIZE_TOO_LARGE", refused


def consuming():
    consumer = Consumer({**bootstrap, "group.id": "unused", "enable.auto.commit": False, "check.crcs": True})
    consumer.assign([TopicPartition(topic, n, OFFSET_BEGINNING) for n in range(2)])
    got = read(consumer, 502)
    assert got[0].headers() == HEADERS, got[0].headers()
    last = [m for m in got if m.partition() == 0][-2:]
    assert [(m.key(), m.value()) for m in last] == [(None, None), (b"", b"")]
    assert consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=30) == (0, 252)
    asked = [m for m in got if m.partition() == 1][50]
    found = consumer.offsets_for_times([TopicPartition(topic, 1, asked.timestamp()[1])], timeout=30)[0]
    assert 0 <= found.offset <= asked.offset(), found
    consumer.close()


def in_groups():
    for strategy in ["range", "cooperative-sticky"]:
        settings = {"group.id": f"confluent-{strategy}", "auto.offset.reset": "earliest", "enable.auto.commit": False}
        group = {**bootstrap, **settings, "partition.assignment.strategy": strategy}
        member = Consumer(group)
        member.subscribe([topic])
        read(member, 502)
        member.commit(asynchronous=False)
        rebalanced(member, Consumer(group))
        again = Consumer(group)
        committed = again.committed([TopicPartition(topic, n) for n in range(2)], timeout=30)
        assert [c.offset for c in committed] == [252, 250], committed
        noted = TopicPartition(topic, 1, 250, metadata="what I know")
        again.commit(offsets=[noted], asynchronous=False)
        assert again.committed([noted], timeout=30)[0].metadata == "what I know"
        again.close()


def rebalanced(first, second):
    """A second member takes one of the two partitions over, and the first gets it back."""
    second.subscribe([topic])
    until(lambda: (first.poll(0.1), second.poll(0.1), len(first.assignment()), len(second.assignment()))[2:] == (1, 1))
    assert first.assignment() != second.assignment()
    second.close()
    until(lambda: (first.poll(0.1), len(first.assignment()))[1] == 2)
    first.close()


def until(holds):
    deadline = time.time() + 60
    while not holds():
        assert time.time() < deadline, "it takes too long"


def administering():
    listed = admin.list_consumer_groups().result(30)
    assert {"confluent-range", "confluent-cooperative-sticky"} <= {g.group_id for g in listed.valid}, listed.valid
    described = admin.describe_consumer_groups(["confluent-range"])["confluent-range"].result(30)
    assert described.members == [], described
    part = TopicPartition(topic, 0, 7)
    moved = admin.alter_consumer_group_offsets([ConsumerGroupTopicPartitions("confluent-range", [part])])
    moved["confluent-range"].result(30)
    asked = admin.list_consumer_group_offsets(
        [ConsumerGroupTopicPartitions("confluent-range", [TopicPartition(topic, 0)])]
    )
    assert asked["confluent-range"].result(30).topic_partitions[0].offset == 7
    admin.delete_consumer_groups(["confluent-range"])["confluent-range"].result(30)
    cluster = admin.describe_cluster().result(30)
    assert len(cluster.nodes) == 3 and cluster.cluster_id, cluster
    described = admin.describe_topics(TopicCollection([topic]))[topic].result(30)
    assert [len(p.replicas) for p in described.partitions] == [3, 3] and described.topic_id is not None
    for spec, offset in [(OffsetSpec.earliest(), 0), (OffsetSpec.latest(), 252), (OffsetSpec.max_timestamp(), 251)]:
        found = list(admin.list_offsets({TopicPartition(topic, 0): spec}).values())[0].result(30)
        assert found.offset <= offset, (spec, found.offset)
        assert spec is not OffsetSpec.latest() or found.offset == offset
    elected = admin.elect_leaders(ElectionType.PREFERRED, [TopicPartition(topic, 0)]).result(30)
    errors = [error.name() for error in elected.values() if error is not None]
    assert set(errors) <= {"ELECTION_NOT_NEEDED"}, errors
    deleted = admin.delete_records([TopicPartition(topic, 0, 200)])
    assert list(deleted.values())[0].result(30).low_watermark == 200
    settings()
    for done in admin.create_partitions([NewPartitions(topic, 4)]).values():
        done.result(30)
    until(lambda: len(admin.list_topics(topic, timeout=30).topics[topic].partitions) == 4)
    for done in admin.delete_topics([topic]).values():
        done.result(30)


def settings():
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
    config = admin.describe_configs([resource])[resource].result(30)
    assert config["max.message.bytes"].value == "500000"
    change = ConfigEntry("max.message.bytes", "600000", incremental_operation=AlterConfigOpType.SET)
    altered = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=[change])
    for done in admin.incremental_alter_configs([altered]).values():
        done.result(30)
    assert admin.describe_configs([resource])[resource].result(30)["max.message.bytes"].value == "600000"
    wrong = ConfigEntry("max.message.bytes", "many", incremental_operation=AlterConfigOpType.SET)
    altered = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=[wrong])
    try:
        list(admin.incremental_alter_configs([altered]).values())[0].result(30)
        raise AssertionError("it was accepted")
    except KafkaException as error:
        assert error.args[0].name() == "INVALID_CONFIG", error


producing()
consuming()
in_groups()
administering()
print("done")
