"""What users of kafka-python do."""
import sys
import threading
import time

from kafka import KafkaConsumer, KafkaProducer, OffsetAndMetadata, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient, NewPartitions, NewTopic

bootstrap, topic = sys.argv[1], "kafka-python"
admin = KafkaAdminClient(bootstrap_servers=bootstrap)
parts = [TopicPartition(topic, n) for n in range(2)]
settings = {"group_id": "kafka-python", "auto_offset_reset": "earliest", "enable_auto_commit": False}
HEADERS = [("h", b"\xff"), ("h", b"")]


def producing():
    for codec in [None, "gzip", "snappy", "lz4", "zstd"]:
        producer = KafkaProducer(bootstrap_servers=bootstrap, enable_idempotence=True, compression_type=codec)
        sent = [producer.send(topic, key=b"%d" % n, value=b"%d" % n, headers=HEADERS) for n in range(100)]
        producer.flush(60)
        assert all(one.get(60).offset >= 0 for one in sent)
        producer.close()
    producer = KafkaProducer(bootstrap_servers=bootstrap, acks="all")
    for key, value in [(None, b""), (b"", b""), (b"k", None)]:
        producer.send(topic, key=key, value=value, partition=0).get(60)
    producer.close()


def read(consumer, count):
    got, deadline = [], time.time() + 60
    while len(got) < count and time.time() < deadline:
        for records in consumer.poll(1000).values():
            got.extend(records)
    assert len(got) == count, (len(got), count)
    return got


def consuming():
    consumer = KafkaConsumer(topic, bootstrap_servers=bootstrap, **settings)
    got = read(consumer, 503)
    assert list(got[0].headers) == HEADERS, got[0].headers
    last = [(r.key, r.value) for r in got if r.partition == 0][-3:]
    assert last == [(None, b""), (b"", b""), (b"k", None)], last
    consumer.commit()
    ends = consumer.end_offsets(parts)
    assert sum(ends.values()) == 503 and set(consumer.beginning_offsets(parts).values()) == {0}
    found = consumer.offsets_for_times({parts[0]: 0})[parts[0]]
    assert found.offset == 0, found
    rebalanced(consumer)
    again = KafkaConsumer(bootstrap_servers=bootstrap, **settings)
    assert {part: again.committed(part) for part in parts} == ends
    again.assign(parts)
    again.commit({parts[0]: OffsetAndMetadata(ends[parts[0]], "what I know", -1)})
    assert again.committed(parts[0], metadata=True).metadata == "what I know"
    again.close()


def rebalanced(first):
    """A second member takes one of the two partitions over, and the first gets it back."""
    stop, held = threading.Event(), set()

    def other():
        second = KafkaConsumer(topic, bootstrap_servers=bootstrap, **settings)
        while not stop.is_set():
            second.poll(100)
            held.clear()
            held.update(second.assignment())
        second.close()

    thread = threading.Thread(target=other)
    thread.start()
    try:
        until(lambda: (first.poll(100), len(first.assignment()), len(held))[1:] == (1, 1))
    finally:
        stop.set()
        thread.join(60)
    until(lambda: (first.poll(100), len(first.assignment()))[1] == 2)
    first.close()


def until(holds):
    deadline = time.time() + 60
    while not holds():
        assert time.time() < deadline, "it takes too long"


def administering():
    assert topic in [found["name"] if isinstance(found, dict) else found for found in admin.list_topics()]
    assert len(admin.describe_topics([topic])[0]["partitions"]) == 2
    assert len(admin.describe_cluster()["brokers"]) == 3
    assert "kafka-python" in str(admin.list_groups())
    admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, {"max.message.bytes": "600000"})])
    config = admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
    assert "600000" in str(config), config
    admin.create_partitions({topic: NewPartitions(3)})
    deleted = admin.delete_records({parts[0]: 3})
    assert "3" in str(deleted[parts[0]]), deleted
    assert topic in str(admin.describe_log_dirs())
    assert not admin.list_partition_reassignments()
    admin.delete_groups(["kafka-python"])
    admin.delete_topics([topic])
    admin.close()


admin.create_topics([NewTopic(topic, 2, 3)])
producing()
consuming()
administering()
print("done")
