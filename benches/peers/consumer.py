"""What people glue together: records from Kafka, decoded by orjson, scored by an autoencoder in onnxruntime in batches of 256.

    consumer.py BOOTSTRAP TOPIC COUNT    prints processor time for a record, all threads
"""

import sys
import time

import numpy
import orjson
from confluent_kafka import Consumer

from peers import session

BATCH = 256
FIELDS = [f"s{field:02}" for field in range(38)]

bootstrap, topic, count = sys.argv[1:]
count = int(count)
consumer = Consumer(
    {
        "bootstrap.servers": bootstrap,
        "group.id": f"peers-python-{time.time_ns()}",
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
    }
)
network = session([38, 24, 8, 24, 38])
before, seen, strange = time.process_time(), 0, 0
consumer.subscribe([topic])
while seen < count:
    messages = consumer.consume(min(BATCH, count - seen), timeout=60)
    if not messages:
        sys.exit(f"{seen} of {count} records within a minute")
    rows = []
    for message in messages:
        if message.error():
            sys.exit(str(message.error()))
        record = orjson.loads(message.value())
        rows.append([record[field] for field in FIELDS])
    x = numpy.array(rows, dtype=numpy.float32)
    error = ((network.run(None, {"x": x})[0] - x) ** 2).mean(axis=1)
    strange += int((error > 1e9).sum())
    seen += len(messages)
print((time.process_time() - before) / count)
consumer.close()
