"""A pynsq reader that prints each body as a line. Arguments: topic, channel, lookupds (HTTP)."""

import sys

import nsq


def handle(message: nsq.Message) -> bool:
    print(message.body.decode(), flush=True)
    return True


topic, channel, *lookupds = sys.argv[1:]
nsq.Reader(
    topic,
    channel,
    handle,
    lookupd_http_addresses=lookupds,
    lookupd_poll_interval=1,
    max_in_flight=200,
    heartbeat_interval=1,
)
nsq.run()
