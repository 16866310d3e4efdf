"""What users of aiokafka do."""
import asyncio
import sys

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

bootstrap, topic = sys.argv[1], "aiokafka"


async def read(consumer, count):
    got = []
    while len(got) < count:
        for records in (await consumer.getmany(timeout_ms=1000)).values():
            got.extend(records)
    assert len(got) == count, (len(got), count)
    return got


async def main():
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(topic, 2, 3)])
    for codec in [None, "gzip", "snappy", "lz4", "zstd"]:
        producer = AIOKafkaProducer(bootstrap_servers=bootstrap, enable_idempotence=True, compression_type=codec)
        await producer.start()
        for sent in [await producer.send(topic, b"%d" % n, key=b"%d" % n) for n in range(100)]:
            assert (await sent).offset >= 0
        await producer.stop()
    settings = {"group_id": "aiokafka", "auto_offset_reset": "earliest", "enable_auto_commit": False}
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=bootstrap, **settings)
    await consumer.start()
    await read(consumer, 500)
    await consumer.commit()
    parts = [TopicPartition(topic, n) for n in range(2)]
    ends = await consumer.end_offsets(parts)
    assert sum(ends.values()) == 500, ends
    await consumer.stop()
    again = AIOKafkaConsumer(bootstrap_servers=bootstrap, **settings)
    await again.start()
    assert {part: await again.committed(part) for part in parts} == ends
    await again.stop()
    await admin.delete_topics([topic])
    await admin.close()
    print("done")


asyncio.run(asyncio.wait_for(main(), 100))
