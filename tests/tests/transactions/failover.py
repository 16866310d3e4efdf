"""Transactions one after the other until the standard input ends, whatever happens to brokers;
then everything that was read committed is compared with what was committed."""

import sys
import threading
import time
import uuid

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

BOOTSTRAP = sys.argv[1]
NAME = f"failover-{uuid.uuid4().hex[:8]}"
PARTITIONS = 3


def producer():
    made = Producer({
        "bootstrap.servers": BOOTSTRAP,
        "transactional.id": NAME,
        "transaction.timeout.ms": 30000,
        "message.timeout.ms": 30000,
        "log_level": 0,
    })
    made.init_transactions(60)
    return made


def finish(writer, commit):
    while True:
        try:
            return writer.commit_transaction(30) if commit else writer.abort_transaction(30)
        except KafkaException as exception:
            if not exception.args[0].retriable():
                raise


def read():
    reader = Consumer({
        "bootstrap.servers": BOOTSTRAP,
        "group.id": uuid.uuid4().hex,
        "isolation.level": "read_committed",
        "enable.partition.eof": True,
        "enable.auto.commit": False,
        "log_level": 0,
    })
    reader.assign([TopicPartition(NAME, n, 0) for n in range(PARTITIONS)])
    found, ended, deadline = [], set(), time.time() + 60
    while len(ended) < PARTITIONS:
        assert time.time() < deadline, "what was committed is not shown to its end"
        message = reader.poll(1.0)
        if message is None:
            continue
        if not message.error():
            found.append(message.value().decode())
        elif message.error().name() == "_PARTITION_EOF":
            ended.add(message.partition())
    reader.close()
    return found


def main():
    admin = AdminClient({"bootstrap.servers": BOOTSTRAP})
    admin.create_topics([NewTopic(NAME, PARTITIONS, -1)])[NAME].result(30)
    stop = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
    writer = producer()
    committed, aborted, unknown, worst = set(), 0, [], 0.0
    number = 0
    while not stop.is_set():
        number += 1
        values = {f"{number}-{n}" for n in range(2 * PARTITIONS)}
        began = time.time()
        try:
            writer.begin_transaction()
            for n, value in enumerate(sorted(values)):
                writer.produce(NAME, value, partition=n % PARTITIONS)
            finish(writer, number % 5 != 4)
            if number % 5 != 4:
                committed |= values
            else:
                aborted += 1
        except KafkaException as exception:
            # Nobody knows what became of it; it is there as a whole, or not at all.
            print(f"{number}: {exception.args[0]}", file=sys.stderr)
            unknown.append(values)
            writer = producer()
        worst = max(worst, time.time() - began)
    found = read()
    shown = set(found)
    assert len(shown) == len(found), "a record is shown twice"
    assert committed <= shown, f"missing: {sorted(committed - shown)[:5]}"
    for values in unknown:
        assert values <= shown or not values & shown, f"torn: {sorted(values)}"
        shown -= values
    assert shown <= committed, f"never committed: {sorted(shown - committed)[:5]}"
    print(f"{number} transactions, {aborted} aborted, {len(unknown)} unknown, the longest took {worst:.2f} s")
    print("done")


main()
