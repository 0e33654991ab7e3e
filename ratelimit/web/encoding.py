"""Headers as ASGI sends them."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

RawHeaders = list[tuple[bytes, bytes]]


def encode_headers(headers: Mapping[str, str]) -> RawHeaders:
    """Encode headers, with lower-case names."""
    return [(encode_name(name), value.encode("latin-1")) for name, value in headers.items()]


@functools.lru_cache(maxsize=64)  # more than there are header names in responses
def encode_name(name: str) -> bytes:
    """Encode the name of a header, in lower case."""
    return name.lower().encode("latin-1")
