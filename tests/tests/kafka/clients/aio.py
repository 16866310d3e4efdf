"""What users of aiokafka do."""
import asyncio
import sys

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.admin.records_to_delete import RecordsToDelete

bootstrap, topic = sys.argv[1], "aiokafka"
parts = [TopicPartition(topic, n) for n in range(2)]
settings = {"group_id": "aiokafka", "auto_offset_reset": "earliest", "enable_auto_commit": False}
HEADERS = [("h", b"\xff"), ("h", b"")]


async def read(consumer, count):
    got = []
    while len(got) < count:
        for records in (await consumer.getmany(timeout_ms=1000)).values():
            got.extend(records)
    assert len(got) == count, (len(got), count)
    return got


async def producing():
    for codec in [None, "gzip", "snappy", "lz4", "zstd"]:
        producer = AIOKafkaProducer(bootstrap_servers=bootstrap, enable_idempotence=True, compression_type=codec)
        await producer.start()
        for n in range(100):
            sent = await producer.send(topic, b"%d" % n, key=b"%d" % n, headers=HEADERS)
            if n == 99:
                assert (await sent).offset >= 0
        await producer.flush()
        await producer.stop()
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all")
    await producer.start()
    for key, value in [(None, b""), (b"", b""), (b"k", None)]:
        await producer.send_and_wait(topic, value, key=key, partition=0)
    await producer.stop()


async def consuming():
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=bootstrap, **settings)
    await consumer.start()
    got = await read(consumer, 503)
    assert list(got[0].headers) == HEADERS, got[0].headers
    last = [(r.key, r.value) for r in got if r.partition == 0][-3:]
    assert last == [(None, b""), (b"", b""), (b"k", None)], last
    await consumer.commit()
    ends = await consumer.end_offsets(parts)
    assert sum(ends.values()) == 503, ends
    found = await consumer.offsets_for_times({parts[0]: 0})
    assert found[parts[0]].offset == 0, found
    await rebalanced(consumer)
    again = AIOKafkaConsumer(bootstrap_servers=bootstrap, **settings)
    await again.start()
    assert {part: await again.committed(part) for part in parts} == ends
    again.assign(parts)
    await again.commit({parts[0]: (ends[parts[0]], "what I know")})
    await again.stop()


async def rebalanced(first):
    """A second member takes one of the two partitions over, and the first gets it back."""
    second = AIOKafkaConsumer(topic, bootstrap_servers=bootstrap, **settings)
    await second.start()
    while (len(first.assignment()), len(second.assignment())) != (1, 1):
        await asyncio.gather(first.getmany(timeout_ms=100), second.getmany(timeout_ms=100))
    await second.stop()
    while len(first.assignment()) != 2:
        await first.getmany(timeout_ms=100)
    await first.stop()


async def administering(admin):
    assert topic in await admin.list_topics()
    described = await admin.describe_topics([topic])
    assert len(described[0]["partitions"]) == 2, described
    assert ("aiokafka", "consumer") in [tuple(group[:2]) for group in await admin.list_consumer_groups()]
    offsets = await admin.list_consumer_group_offsets("aiokafka")
    assert offsets[parts[0]].metadata == "what I know", offsets
    resource = ConfigResource(ConfigResourceType.TOPIC, topic, configs={"max.message.bytes": "600000"})
    await admin.alter_configs([resource])
    config = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
    assert "600000" in str(config), config
    await admin.create_partitions({topic: NewPartitions(3)})
    await admin.delete_records({parts[0]: RecordsToDelete(before_offset=3)})
    await admin.delete_topics([topic])


async def main():
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(topic, 2, 3)])
    await producing()
    await consuming()
    await administering(admin)
    await admin.close()
    print("done")


asyncio.run(asyncio.wait_for(main(), 100))
