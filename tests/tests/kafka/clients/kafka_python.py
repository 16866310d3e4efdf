"""What users of kafka-python do."""
import sys
import time

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient, NewTopic

bootstrap, topic = sys.argv[1], "kafka-python"
admin = KafkaAdminClient(bootstrap_servers=bootstrap)
admin.create_topics([NewTopic(topic, 2, 3)])

for codec in [None, "gzip", "snappy", "lz4", "zstd"]:
    producer = KafkaProducer(bootstrap_servers=bootstrap, acks="all", compression_type=codec)
    sent = [producer.send(topic, key=b"%d" % n, value=b"%d" % n, headers=[("h", b"\xff"), ("h", b"")]) for n in range(100)]
    producer.flush(60)
    assert all(one.get(60).offset >= 0 for one in sent)
    producer.close()


def read(consumer, count):
    got, deadline = [], time.time() + 60
    while len(got) < count and time.time() < deadline:
        for records in consumer.poll(1000).values():
            got.extend(records)
    assert len(got) == count, (len(got), count)
    return got


settings = {"group_id": "kafka-python", "auto_offset_reset": "earliest", "enable_auto_commit": False}
consumer = KafkaConsumer(topic, bootstrap_servers=bootstrap, **settings)
got = read(consumer, 500)
assert list(got[0].headers) == [("h", b"\xff"), ("h", b"")], got[0].headers
consumer.commit()
parts = [TopicPartition(topic, n) for n in range(2)]
ends = consumer.end_offsets(parts)
assert sum(ends.values()) == 500 and set(consumer.beginning_offsets(parts).values()) == {0}
found = consumer.offsets_for_times({parts[0]: 0})[parts[0]]
assert found.offset == 0, found
consumer.close()
again = KafkaConsumer(bootstrap_servers=bootstrap, **settings)
assert {part: again.committed(part) for part in parts} == ends
again.close()
admin.delete_topics([topic])
admin.close()
print("done")
