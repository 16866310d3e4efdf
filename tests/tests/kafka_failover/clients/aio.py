"""Produces and consumes in a group until the standard input ends, whatever happens to brokers."""
import asyncio
import sys
import time

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

bootstrap, topic = sys.argv[1], sys.argv[2]
acknowledged, read = {}, {}


async def produce(stop):
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, enable_idempotence=True)
    await producer.start()
    sent, number = [], 0
    while not stop.is_set():
        for partition in range(3):
            value = str(number).encode()
            sent.append((value, await producer.send(topic, value, partition=partition)))
            number += 1
        await asyncio.sleep(0.02)
    await producer.flush()
    for value, future in sent:
        stored = await future
        acknowledged[stored.partition, stored.offset] = value
    await producer.stop()
    assert len(acknowledged) == number, "an offset is told twice"


async def consume(finished):
    consumer = AIOKafkaConsumer(
        topic,
        bootstrap_servers=bootstrap,
        group_id=topic,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    await consumer.start()
    committed = time.time()
    while not finished.is_set():
        for records in (await consumer.getmany(timeout_ms=100)).values():
            for record in records:
                place = record.partition, record.offset
                assert read.setdefault(place, record.value) == record.value, f"another record is at {place}"
        if read and time.time() - committed > 0.5:
            await consumer.commit()
            committed = time.time()
    await consumer.stop()


async def until(true, *tasks):
    deadline = time.time() + 60
    while not true() and time.time() < deadline:
        await asyncio.sleep(0.05)
        for task in tasks:
            if task.done():
                await task


async def main():
    stop, finished = asyncio.Event(), asyncio.Event()
    producing, consuming = asyncio.create_task(produce(stop)), asyncio.create_task(consume(finished))
    await until(lambda: read, producing, consuming)
    print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    stop.set()
    await asyncio.wait_for(producing, 60)
    await until(lambda: not acknowledged.keys() - read.keys(), consuming)
    finished.set()
    await consuming
    assert acknowledged == read, (sorted(acknowledged.items() ^ read.items())[:5], len(acknowledged), len(read))
    assert len(set(read.values())) == len(read), "a record is stored twice"
    print(f"{len(read)} records", "done", sep="\n", flush=True)


asyncio.run(main())
