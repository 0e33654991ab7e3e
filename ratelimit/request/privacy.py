"""Identifiers in place of secrets, and a shorter form of them for people to read (P10)."""

from __future__ import annotations

import hashlib
import hmac

_HEAD, _TAIL = 6, 3


def mask(identifier: str) -> str:
    """Return enough of an identifier to recognise it, never all of it: `vk_9f3…c21`."""
    if len(identifier) >= (_HEAD + _TAIL) * 4 // 3:
        return f"{identifier[:_HEAD]}…{identifier[-_TAIL:]}"
    return f"{identifier[: len(identifier) // 2]}…"


def identifier_of(secret: str, pepper: str, prefix: str = "vk_") -> str:
    """Return the identifier of a secret: HMAC-SHA256 (RFC 2104) keyed with the pepper, 128 bits of it.

    The pepper keeps a leaked identifier from being matched to a guessed secret.
    """
    digest = hmac.digest(pepper.encode(), secret.encode("utf-8", "surrogateescape"), hashlib.sha256)
    return prefix + digest[:16].hex()
