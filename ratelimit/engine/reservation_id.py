"""Ids of reservations: random, and they name the tenant, so that any sidecar finds the record."""

from __future__ import annotations

import base64
import binascii
import secrets

from ratelimit.engine.layout import make_record_store_key


def make_reservation_id(tenant: str) -> str:
    """Return a new reservation's id: 96 random bits and the tenant, so that any sidecar finds the record."""
    return f"{secrets.token_urlsafe(12)}.{base64.urlsafe_b64encode(tenant.encode()).decode().rstrip('=')}"


def find_record_store_key(reservation: str) -> str | None:
    """Return the store key of a reservation's record; None if the text cannot be a reservation's id."""
    token, _, tag = reservation.partition(".")
    try:
        tenant = base64.b64decode(tag + "=" * (-len(tag) % 4), altchars=b"-_", validate=True).decode("ascii")
    except (binascii.Error, ValueError):
        return None
    return make_record_store_key(tenant, token) if tenant and _is_token(token) else None


def _is_token(token: str) -> bool:
    return len(token) == 16 and token.replace("-", "a").replace("_", "a").isalnum() and token.isascii()  # noqa: PLR2004 - the length of 96 bits in base64
