"""What users of confluent-kafka do: idempotent producing, headers, groups, administration."""
import sys
import time

from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewPartitions, NewTopic

bootstrap = {"bootstrap.servers": sys.argv[1]}
topic = "confluent"
admin = AdminClient(bootstrap)
for made in admin.create_topics([NewTopic(topic, 2, 3, config={"max.message.bytes": "500000"})]).values():
    made.result(30)


def produce(count, **settings):
    failed = []
    producer = Producer({**bootstrap, "enable.idempotence": True, **settings})
    for n in range(count):
        headers = [("h", b"\xff\x00"), ("h", None), ("h", b"")]
        told = lambda error, _: failed.append(error) if error else None
        producer.produce(topic, key=str(n), value=f"{n}", partition=n % 2, headers=headers, on_delivery=told)
    assert producer.flush(60) == 0 and not failed, failed


for codec in ["none", "gzip", "snappy", "lz4", "zstd"]:
    produce(100, **{"compression.type": codec})

extra = Producer(bootstrap)
extra.produce(topic, key=None, value=None, partition=0)
extra.produce(topic, key=b"", value=b"", partition=0)
assert extra.flush(60) == 0


def read(consumer, count):
    got, deadline = [], time.time() + 60
    while len(got) < count and time.time() < deadline:
        message = consumer.poll(1)
        if message is not None:
            assert message.error() is None, message.error()
            got.append(message)
    assert len(got) == count, (len(got), count)
    return got


consumer = Consumer({**bootstrap, "group.id": "unused", "enable.auto.commit": False})
consumer.assign([TopicPartition(topic, n, OFFSET_BEGINNING) for n in range(2)])
got = read(consumer, 502)
assert got[0].headers() == [("h", b"\xff\x00"), ("h", None), ("h", b"")], got[0].headers()
last = [m for m in got if m.partition() == 0][-2:]
assert [(m.key(), m.value()) for m in last] == [(None, None), (b"", b"")]
assert consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=30) == (0, 252)
asked = [m for m in got if m.partition() == 1][50]
found = consumer.offsets_for_times([TopicPartition(topic, 1, asked.timestamp()[1])], timeout=30)[0]
assert 0 <= found.offset <= asked.offset(), found
consumer.close()

for strategy in ["range", "cooperative-sticky"]:
    settings = {"group.id": f"confluent-{strategy}", "auto.offset.reset": "earliest", "enable.auto.commit": False}
    group = {**bootstrap, **settings, "partition.assignment.strategy": strategy}
    member = Consumer(group)
    member.subscribe([topic])
    read(member, 502)
    member.commit(asynchronous=False)
    member.close()
    again = Consumer(group)
    committed = again.committed([TopicPartition(topic, n) for n in range(2)], timeout=30)
    assert [c.offset for c in committed] == [252, 250], committed
    again.close()

listed = admin.list_consumer_groups().result(30)
assert {"confluent-range", "confluent-cooperative-sticky"} <= {g.group_id for g in listed.valid}, listed.valid
described = admin.describe_consumer_groups(["confluent-range"])["confluent-range"].result(30)
assert described.members == [], described
admin.delete_consumer_groups(["confluent-range"])["confluent-range"].result(30)

resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
config = admin.describe_configs([resource])[resource].result(30)
assert config["max.message.bytes"].value == "500000"
change = ConfigEntry("max.message.bytes", "600000", incremental_operation=AlterConfigOpType.SET)
altered = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=[change])
for done in admin.incremental_alter_configs([altered]).values():
    done.result(30)
assert admin.describe_configs([resource])[resource].result(30)["max.message.bytes"].value == "600000"
for done in admin.create_partitions([NewPartitions(topic, 4)]).values():
    done.result(30)
assert len(admin.list_topics(topic, timeout=30).topics[topic].partitions) == 4
for done in admin.delete_topics([topic]).values():
    done.result(30)
print("done")
