"""Identifiers instead of secrets, and masked identifiers for people to read (P10)."""

from __future__ import annotations

import functools
import hashlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable
    from hashlib import _Hash as Hash

_MASK_HEAD, _MASK_TAIL = 6, 3
_BLOCK: Final = 64  # bytes that SHA-256 takes at a time
_INNER, _OUTER = (bytes(byte ^ pad for byte in range(256)) for pad in (0x36, 0x5C))  # RFC 2104, section 2


def mask(identifier: str) -> str:
    """Return a part of an identifier that people can recognise, never all of it: `vk_9f3…c21`."""
    if len(identifier) >= (_MASK_HEAD + _MASK_TAIL) * 4 // 3:
        return f"{identifier[:_MASK_HEAD]}…{identifier[-_MASK_TAIL:]}"
    return f"{identifier[: len(identifier) // 2]}…"


def identifier_of(secret: str, pepper: str, prefix: str = "vk_") -> str:
    """Return the identifier of a secret: the first 128 bits of its HMAC-SHA256 (RFC 2104).

    The pepper is the key of the HMAC. Without it, someone with a leaked identifier could find the
    secret by trying guesses.
    """
    copy_inner, copy_outer = _start_hmac(pepper)
    inner, outer = copy_inner(), copy_outer()
    inner.update(secret.encode("utf-8", "surrogateescape"))
    outer.update(inner.digest())
    return prefix + outer.digest()[:16].hex()


@functools.lru_cache(maxsize=16)  # A program has one pepper.
def _start_hmac(pepper: str) -> tuple[Callable[[], Hash], Callable[[], Hash]]:
    """Return what copies the inner and the outer hash of an HMAC (RFC 2104, section 4).

    Both have taken the pepper, which is most of the work of `hmac.digest`: that takes three times as long.
    """
    sha256 = hashlib.sha256
    key = pepper.encode()
    block = (sha256(key).digest() if len(key) > _BLOCK else key).ljust(_BLOCK, b"\0")
    return sha256(block.translate(_INNER)).copy, sha256(block.translate(_OUTER)).copy
