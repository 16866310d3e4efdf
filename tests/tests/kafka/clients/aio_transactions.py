"""Transactions by aiokafka: committed, aborted, with offsets, and fenced."""
import asyncio
import sys
import time
import uuid

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import ProducerFenced
from aiokafka.structs import OffsetAndMetadata

bootstrap = sys.argv[1]
RUN = uuid.uuid4().hex[:8]


async def topic(name):
    full = f"aiokafka-{name}-{RUN}"
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(full, 1, 3)])
    await admin.close()
    return full


async def producer(name):
    made = AIOKafkaProducer(bootstrap_servers=bootstrap, transactional_id=f"aiokafka-{name}-{RUN}",
                            transaction_timeout_ms=30000)
    await made.start()
    return made


async def read(name, isolation):
    """Everything up to the end that this reader is told of."""
    part = TopicPartition(name, 0)
    reader = AIOKafkaConsumer(bootstrap_servers=bootstrap, isolation_level=isolation)
    await reader.start()
    reader.assign([part])
    reader.seek(part, 0)
    end, found = (await reader.end_offsets([part]))[part], []
    if isolation == "read_committed":
        # It asks for the end of the log in either case; the last stable offset comes with a fetch.
        while reader.last_stable_offset(part) in (None, -1):
            found += await some(reader, part)
        end = reader.last_stable_offset(part)
    while await reader.position(part) < end:
        found += await some(reader, part)
    await reader.stop()
    return found


async def some(reader, part):
    got = await reader.getmany(part, timeout_ms=500)
    return [record.value.decode() for record in got.get(part, [])]


async def shows(name, isolation, wanted):
    """A transaction's end is answered once it is decided: readers see it a moment later."""
    while (found := await read(name, isolation)) != wanted:
        print(f"{len(found)} records of {len(wanted)} so far", flush=True)


async def committed_and_aborted():
    name, writer, wanted = await topic("plain"), await producer("plain"), []
    for round_ in range(6):
        values = [f"{round_}-{n}" for n in range(20)]
        await writer.begin_transaction()
        for value in values:
            await writer.send(name, value.encode(), partition=0)
        if round_ % 3 == 1:
            await writer.flush()
            await writer.abort_transaction()
        else:
            await writer.commit_transaction()
            wanted += values
    await shows(name, "read_committed", wanted)
    assert len(await read(name, "read_uncommitted")) == 120
    async with writer.transaction():
        await writer.send_and_wait(name, b"open", partition=0)
        await shows(name, "read_committed", wanted)
    await shows(name, "read_committed", wanted + ["open"])
    await writer.stop()


async def offsets_in_the_transaction():
    source, sink, group = await topic("source"), await topic("sink"), f"aiokafka-{RUN}"
    async with AIOKafkaProducer(bootstrap_servers=bootstrap) as feeder:
        for n in range(40):
            await feeder.send(source, b"%d" % n, partition=0)
    writer, part = await producer("pipe"), TopicPartition(source, 0)

    async def work(commit):
        reader = AIOKafkaConsumer(source, bootstrap_servers=bootstrap, group_id=group, enable_auto_commit=False,
                                  auto_offset_reset="earliest", isolation_level="read_committed")
        await reader.start()
        taken = []
        while len(taken) < 20:
            got = await reader.getmany(timeout_ms=1000, max_records=20 - len(taken))
            taken += got.get(part, [])
        await writer.begin_transaction()
        for record in taken:
            await writer.send(sink, record.value, partition=0)
        offsets = {part: OffsetAndMetadata(taken[-1].offset + 1, "how far")}
        await writer.send_offsets_to_transaction(offsets, group)
        await (writer.commit_transaction() if commit else writer.abort_transaction())
        await reader.stop()
        return [record.value.decode() for record in taken]

    first, again, last = await work(True), await work(False), await work(True)
    assert again == last, "an aborted transaction commits no offset"
    numbers = [str(n) for n in range(40)]
    assert first + last == numbers, (first, last)
    await shows(sink, "read_committed", numbers)
    await writer.stop()


async def a_second_instance_fences_the_first():
    name, first = await topic("fence"), await producer("fence")
    await first.begin_transaction()
    await first.send_and_wait(name, b"of the first", partition=0)
    second = await producer("fence")
    try:
        await first.commit_transaction()
    except ProducerFenced:
        pass
    else:
        raise AssertionError("the first was not fenced")
    async with second.transaction():
        await second.send(name, b"of the second", partition=0)
    await shows(name, "read_committed", ["of the second"])
    assert await read(name, "read_uncommitted") == ["of the first", "of the second"]
    await second.stop()
    await first.stop()


async def main():
    for step in [committed_and_aborted, offsets_in_the_transaction, a_second_instance_fences_the_first]:
        began = time.time()
        await asyncio.wait_for(step(), 60)
        print(f"{step.__name__}: {time.time() - began:.1f} s", flush=True)
    print("done", flush=True)


asyncio.run(main())
