"""Headers as ASGI sends them."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from ratelimit.decision.decision import write_deferred_headers

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ratelimit.decision.decision import Decision
    from ratelimit.decision.headers import Dialect

RawHeaders = list[tuple[bytes, bytes]]


def encode_decision(decision: Decision, dialects: Sequence[Dialect]) -> RawHeaders:
    """Encode the headers of a decision, in the given dialects."""
    written = write_deferred_headers(decision, dialects)
    if written is None:
        return encode_headers(decision.headers(dialects))
    _, encoded_policy, entries = written
    return [encoded_policy, (b"ratelimit", entries.encode())] if entries else []


def encode_headers(headers: Mapping[str, str]) -> RawHeaders:
    """Encode headers, with lower-case names."""
    return [(encode_name(name), value.encode("latin-1")) for name, value in headers.items()]


@functools.lru_cache(maxsize=64)  # more than there are header names in responses
def encode_name(name: str) -> bytes:
    """Encode the name of a header, in lower case."""
    return name.lower().encode("latin-1")
