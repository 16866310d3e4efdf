"""Produces and consumes in a group until the standard input ends, whatever happens to brokers."""
import sys
import threading
import time

from kafka import KafkaConsumer, KafkaProducer

bootstrap, topic = sys.argv[1], sys.argv[2]
acknowledged, read, errors = {}, {}, []
stop = threading.Event()
finished = threading.Event()


def produce():
    producer = KafkaProducer(bootstrap_servers=bootstrap, enable_idempotence=True)
    sent, number = [], 0
    while not stop.is_set():
        for partition in range(3):
            value = str(number).encode()
            sent.append((value, producer.send(topic, value, partition=partition)))
            number += 1
        time.sleep(0.02)
    producer.flush(60)
    for value, future in sent:
        stored = future.get(60)
        acknowledged[stored.partition, stored.offset] = value
    producer.close()
    assert len(acknowledged) == number, "an offset is told twice"


def consume():
    consumer = KafkaConsumer(
        topic,
        bootstrap_servers=bootstrap,
        group_id=topic,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    committed = time.time()
    while not finished.is_set():
        for records in consumer.poll(100).values():
            for record in records:
                place = record.partition, record.offset
                if read.setdefault(place, record.value) != record.value:
                    errors.append(f"another record is at {place}")
        if read and time.time() - committed > 0.5:
            consumer.commit()
            committed = time.time()
    consumer.close()


def noted(task):
    def run():
        try:
            task()
        except BaseException as exception:
            errors.append(f"{task.__name__}: {exception!r}")

    return threading.Thread(target=run)


def main():
    tasks = [noted(produce), noted(consume)]
    for task in tasks:
        task.start()
    while not read and not errors:
        time.sleep(0.05)
    print("ready", flush=True)
    sys.stdin.read()
    stop.set()
    tasks[0].join()
    deadline = time.time() + 60
    while acknowledged.keys() - read.keys() and time.time() < deadline:
        time.sleep(0.05)
    finished.set()
    tasks[1].join()
    assert not errors, errors[:5]
    assert acknowledged == read, (sorted(acknowledged.items() ^ read.items())[:5], len(acknowledged), len(read))
    assert len(set(read.values())) == len(read), "a record is stored twice"
    print(f"{len(read)} records", "done", sep="\n", flush=True)


main()
