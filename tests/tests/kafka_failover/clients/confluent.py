"""Produces and consumes in a group until the standard input ends, whatever happens to brokers."""
import sys
import threading
import time

from confluent_kafka import Consumer, KafkaError, Producer

bootstrap, topic = sys.argv[1:3]
acknowledged, read, errors = {}, {}, []
stop = threading.Event()
finished = threading.Event()
# What librdkafka tells while it connects anew by itself; the application has nothing to do.
INFORMATIONAL = {KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN}


def told(error, message):
    if error:
        errors.append(f"producing: {error}")
    else:
        acknowledged[message.partition(), message.offset()] = message.value()


def produce():
    producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True, "log_level": 0})
    number = 0
    while not stop.is_set():
        for partition in range(3):
            producer.produce(topic, str(number), partition=partition, on_delivery=told)
            number += 1
        producer.poll(0.02)
    if left := producer.flush(60):
        errors.append(f"{left} records are never acknowledged")
    assert len(acknowledged) == number or errors, "an offset is told twice"


def consume():
    consumer = Consumer({
        "bootstrap.servers": bootstrap,
        "group.id": topic,
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
        "log_level": 0,
    })
    consumer.subscribe([topic])
    committed = time.time()
    while not finished.is_set():
        message = consumer.poll(0.1)
        if message is not None and not message.error():
            place = message.partition(), message.offset()
            if read.setdefault(place, message.value()) != message.value():
                errors.append(f"another record is at {place}")
        elif message is not None and message.error().code() not in INFORMATIONAL:
            errors.append(f"consuming: {message.error()}")
        if read and time.time() - committed > 0.5:
            try:
                consumer.commit(asynchronous=False)
            except Exception as exception:
                # There is nothing new to commit.
                if exception.args[0].code() != KafkaError._NO_OFFSET:
                    errors.append(f"committing: {exception}")
            committed = time.time()
    consumer.close()


def main():
    tasks = [threading.Thread(target=produce), threading.Thread(target=consume)]
    for task in tasks:
        task.start()
    while not read:
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
    judge()


def judge():
    assert not errors, errors[:5]
    assert acknowledged == read, (sorted(acknowledged.items() ^ read.items())[:5], len(acknowledged), len(read))
    assert len(set(read.values())) == len(read), "a record is stored twice"
    print(f"{len(read)} records", "done", sep="\n", flush=True)


main()
