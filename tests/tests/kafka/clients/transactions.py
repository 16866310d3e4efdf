"""Transactions by librdkafka: committed, aborted, with offsets, fenced, and too slow."""

import sys
import time
import uuid

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

BOOTSTRAP = sys.argv[1]
RUN = uuid.uuid4().hex[:8]


def producer(name, **more):
    return Producer({
        "bootstrap.servers": BOOTSTRAP,
        "transactional.id": f"{RUN}-{name}",
        "transaction.timeout.ms": 30000,
        **more,
    })


def consumer(isolation, group=None, **more):
    return Consumer({
        "bootstrap.servers": BOOTSTRAP,
        "group.id": group or uuid.uuid4().hex,
        "isolation.level": isolation,
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
        "enable.partition.eof": True,
        **more,
    })


def read(topic, partitions, isolation):
    """Everything up to the end of each partition, by partition."""
    reader = consumer(isolation)
    reader.assign([TopicPartition(topic, n, 0) for n in range(partitions)])
    found, ended, deadline = [], set(), time.time() + 30
    while len(ended) < partitions:
        assert time.time() < deadline, f"{topic}: no end after 30 s, {len(found)} records"
        message = reader.poll(1.0)
        if message is None:
            continue
        if message.error():
            assert message.error().name() == "_PARTITION_EOF", message.error()
            ended.add(message.partition())
        else:
            found.append(message.value().decode())
    reader.close()
    return sorted(found)


def topic(name, partitions=3):
    full = f"{name}-{RUN}"
    admin = AdminClient({"bootstrap.servers": BOOTSTRAP})
    for future in admin.create_topics([NewTopic(full, partitions, -1)]).values():
        future.result(30)
    return full


def refused(action, *codes):
    try:
        action()
    except KafkaException as exception:
        name = exception.args[0].name()
        assert name in codes, f"{name} is none of {codes}"
        return
    raise AssertionError(f"nothing was refused: {codes} were expected")


def committed_and_aborted():
    name = topic("txn-plain")
    writer = producer("plain")
    writer.init_transactions(30)
    wanted, all_of_them = [], []
    for round_ in range(10):
        writer.begin_transaction()
        values = [f"{round_}-{n}" for n in range(30)]
        for n, value in enumerate(values):
            writer.produce(name, value, partition=n % 3)
        all_of_them += values
        if round_ % 3 == 1:
            writer.flush(30)
            writer.abort_transaction(30)
        else:
            writer.commit_transaction(30)
            wanted += values
    assert read(name, 3, "read_committed") == sorted(wanted)
    assert read(name, 3, "read_uncommitted") == sorted(all_of_them)


def open_ones_are_not_shown():
    name = topic("txn-open", 1)
    writer, other = producer("open"), Producer({"bootstrap.servers": BOOTSTRAP})
    writer.init_transactions(30)
    other.produce(name, "before", partition=0)
    other.flush(30)
    writer.begin_transaction()
    writer.produce(name, "inside", partition=0)
    writer.flush(30)
    other.produce(name, "behind", partition=0)
    other.flush(30)
    assert read(name, 1, "read_committed") == ["before"]
    assert read(name, 1, "read_uncommitted") == ["before", "behind", "inside"]
    ends = consumer("read_committed").get_watermark_offsets(TopicPartition(name, 0), 10)
    writer.commit_transaction(30)
    assert read(name, 1, "read_committed") == ["before", "behind", "inside"]
    return ends


def offsets_in_the_transaction():
    source, sink = topic("txn-source", 1), topic("txn-sink", 1)
    feeder = Producer({"bootstrap.servers": BOOTSTRAP})
    for n in range(40):
        feeder.produce(source, str(n), partition=0)
    feeder.flush(30)
    group = f"txn-group-{RUN}"

    def work(writer, count, commit):
        reader = consumer("read_committed", group, **{"enable.partition.eof": False})
        reader.subscribe([source])
        writer.begin_transaction()
        taken, deadline = [], time.time() + 40
        while len(taken) < count:
            assert time.time() < deadline, f"{len(taken)} of {count} were read"
            message = reader.poll(1.0)
            if message is not None and not message.error():
                taken.append(message.value().decode())
                writer.produce(sink, taken[-1], partition=0)
        position = reader.position(reader.assignment())
        writer.send_offsets_to_transaction(position, reader.consumer_group_metadata(), 30)
        if commit:
            writer.commit_transaction(30)
        else:
            writer.abort_transaction(30)
        reader.close()
        return taken

    writer = producer("pipe")
    writer.init_transactions(30)
    first = work(writer, 20, True)
    again = work(writer, 20, False)
    last = work(writer, 20, True)
    assert again == last, "an aborted transaction commits no offset"
    numbers = sorted(str(n) for n in range(40))
    assert sorted(first + last) == numbers
    assert read(sink, 1, "read_committed") == numbers


def a_second_instance_fences_the_first():
    name = topic("txn-fence", 1)
    first, second = producer("fence"), producer("fence")
    first.init_transactions(30)
    first.begin_transaction()
    first.produce(name, "of the first", partition=0)
    first.flush(30)
    second.init_transactions(30)
    refused(lambda: first.commit_transaction(30), "_FENCED", "PRODUCER_FENCED", "INVALID_PRODUCER_EPOCH")
    second.begin_transaction()
    second.produce(name, "of the second", partition=0)
    second.commit_transaction(30)
    assert read(name, 1, "read_committed") == ["of the second"]


def slow_ones_are_aborted():
    name = topic("txn-slow", 1)
    writer = producer("slow", **{"transaction.timeout.ms": 2000, "message.timeout.ms": 2000})
    writer.init_transactions(30)
    writer.begin_transaction()
    writer.produce(name, "too late", partition=0)
    writer.flush(30)
    Producer({"bootstrap.servers": BOOTSTRAP}).flush(0)
    plain = Producer({"bootstrap.servers": BOOTSTRAP})
    plain.produce(name, "plain", partition=0)
    plain.flush(30)
    deadline = time.time() + 20
    while read(name, 1, "read_committed") != ["plain"]:
        assert time.time() < deadline, "the transaction is still open"
        time.sleep(0.2)
    try:
        writer.commit_transaction(30)
    except KafkaException as exception:
        assert not exception.args[0].retriable(), exception
    else:
        raise AssertionError("a transaction that was aborted cannot be committed")
    refused(lambda: producer("long", **{"transaction.timeout.ms": 901000}).init_transactions(30),
            "INVALID_TRANSACTION_TIMEOUT")


def main():
    steps = [committed_and_aborted, open_ones_are_not_shown, offsets_in_the_transaction,
             a_second_instance_fences_the_first, slow_ones_are_aborted]
    for step in steps:
        began = time.time()
        step()
        print(f"{step.__name__}: {time.time() - began:.1f} s", flush=True)
    print("done")


main()
