"""Identifiers instead of secrets, and masked identifiers for people to read (P10)."""

from __future__ import annotations

import hashlib
import hmac

_MASK_HEAD, _MASK_TAIL = 6, 3


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
    digest = hmac.digest(pepper.encode(), secret.encode("utf-8", "surrogateescape"), hashlib.sha256)
    return prefix + digest[:16].hex()
