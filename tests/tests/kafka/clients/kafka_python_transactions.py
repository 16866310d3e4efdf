"""Transactions by kafka-python: committed, aborted, with offsets, and fenced."""
import sys
import time
import uuid

from kafka import KafkaConsumer, KafkaProducer, OffsetAndMetadata, TopicPartition
from kafka.admin import KafkaAdminClient, NewTopic
from kafka.errors import InvalidProducerEpochError, ProducerFencedError

bootstrap = sys.argv[1]
RUN = uuid.uuid4().hex[:8]


def topic(name):
    full = f"kafka-python-{name}-{RUN}"
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    admin.create_topics([NewTopic(full, 1, 3)])
    admin.close()
    return full


def producer(name):
    made = KafkaProducer(bootstrap_servers=bootstrap, transactional_id=f"kafka-python-{name}-{RUN}",
                         transaction_timeout_ms=30000)
    made.init_transactions()
    return made


def read(name, isolation):
    """Everything up to the end that this reader is told of."""
    part = TopicPartition(name, 0)
    reader = KafkaConsumer(bootstrap_servers=bootstrap, isolation_level=isolation, group_id=None)
    reader.assign([part])
    reader.seek(part, 0)
    end, found, deadline = reader.end_offsets([part])[part], [], time.time() + 40
    while reader.position(part) < end:
        assert time.time() < deadline, (found, reader.position(part), end)
        for records in reader.poll(500).values():
            found.extend(record.value.decode() for record in records)
    reader.close()
    return found


def shows(name, isolation, wanted):
    """A transaction's end is answered once it is decided: readers see it a moment later."""
    deadline = time.time() + 30
    while (found := read(name, isolation)) != wanted:
        assert time.time() < deadline, (found, wanted)


def committed_and_aborted():
    name, writer, wanted = topic("plain"), producer("plain"), []
    for round_ in range(6):
        writer.begin_transaction()
        values = [f"{round_}-{n}" for n in range(20)]
        for value in values:
            writer.send(name, value.encode(), partition=0)
        if round_ % 3 == 1:
            writer.flush(30)
            writer.abort_transaction()
        else:
            writer.commit_transaction()
            wanted += values
    shows(name, "read_committed", wanted)
    assert len(read(name, "read_uncommitted")) == 120
    writer.begin_transaction()
    writer.send(name, b"open", partition=0).get(30)
    shows(name, "read_committed", wanted)
    writer.commit_transaction()
    shows(name, "read_committed", wanted + ["open"])
    writer.close()


def offsets_in_the_transaction():
    source, sink, group = topic("source"), topic("sink"), f"kafka-python-{RUN}"
    feeder = KafkaProducer(bootstrap_servers=bootstrap)
    for n in range(40):
        feeder.send(source, b"%d" % n, partition=0)
    feeder.flush(30)
    feeder.close()
    writer, part = producer("pipe"), TopicPartition(source, 0)

    def work(commit):
        reader = KafkaConsumer(source, bootstrap_servers=bootstrap, group_id=group, enable_auto_commit=False,
                               auto_offset_reset="earliest", isolation_level="read_committed", max_poll_records=20)
        taken, deadline = [], time.time() + 60
        while not taken:
            assert time.time() < deadline, "nothing is read"
            taken = reader.poll(1000).get(part, [])
        assert len(taken) == 20, len(taken)
        writer.begin_transaction()
        for record in taken:
            writer.send(sink, record.value, partition=0)
        offsets = {part: OffsetAndMetadata(taken[-1].offset + 1, "how far", -1)}
        writer.send_offsets_to_transaction(offsets, reader.group_metadata())
        if commit:
            writer.commit_transaction()
        else:
            writer.abort_transaction()
        reader.close()
        return [record.value.decode() for record in taken]

    first, again, last = work(True), work(False), work(True)
    assert again == last, "an aborted transaction commits no offset"
    numbers = [str(n) for n in range(40)]
    assert first + last == numbers, (first, last)
    shows(sink, "read_committed", numbers)
    writer.close()
    reader = KafkaConsumer(bootstrap_servers=bootstrap, group_id=group)
    kept = reader.committed(part, metadata=True)
    assert (kept.offset, kept.metadata) == (40, "how far"), kept
    reader.close()


def a_second_instance_fences_the_first():
    name, first = topic("fence"), producer("fence")
    first.begin_transaction()
    first.send(name, b"of the first", partition=0).get(30)
    second = producer("fence")
    try:
        first.commit_transaction()
    except (ProducerFencedError, InvalidProducerEpochError):
        pass
    else:
        raise AssertionError("the first was not fenced")
    second.begin_transaction()
    second.send(name, b"of the second", partition=0)
    second.commit_transaction()
    shows(name, "read_committed", ["of the second"])
    assert read(name, "read_uncommitted") == ["of the first", "of the second"]
    second.close()


for step in [committed_and_aborted, offsets_in_the_transaction, a_second_instance_fences_the_first]:
    began = time.time()
    step()
    print(f"{step.__name__}: {time.time() - began:.1f} s", flush=True)
print("done", flush=True)
