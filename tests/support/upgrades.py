"""V2 clients that ask for TLS and compression."""

import json
import ssl
from typing import Any

from tests.support.nodes import DEADLINE_S, OK, V2
from tests.support.wire import Address, command

FEATURES = ("tls_v1", "snappy", "deflate", "tls_v1+snappy", "tls_v1+deflate")


def asking(features: str, **more: Any) -> bytes:
    """Return an IDENTIFY that asks for ``features``, joined by a plus."""
    body = {"feature_negotiation": True, **dict.fromkeys(filter(None, features.split("+")), True), **more}
    return command(b"IDENTIFY", json.dumps(body).encode())


async def upgraded(address: Address, features: str, context: ssl.SSLContext | None = None, **more: Any) -> V2:
    """Connect, and go through the upgrade to its last OK."""
    client = await V2.open(address, deadline_s=DEADLINE_S)
    await client.send(asking(features, **more))
    answer = json.loads((await client.frame()).payload)
    wanted = features.split("+")
    assert {feature for feature in ("tls_v1", "snappy", "deflate") if answer[feature]} == set(wanted)
    if "tls_v1" in wanted:
        assert context is not None
        await client.start_tls(context)
        assert await client.frame() == OK
    for feature, start in (("snappy", client.start_snappy), ("deflate", client.start_deflate)):
        if feature in wanted:
            start()
            assert await client.frame() == OK
    return client
