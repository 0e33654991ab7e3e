"""Ids of reservations: random, and they name the tenant, so that any sidecar finds the record."""

from __future__ import annotations

import base64
import binascii
import secrets

from ratelimit.engine.layout import make_record_store_key


def make_reservation_id(tenant: str) -> str:
    """Return a new reservation's id: 96 random bits and the tenant, so that any sidecar finds the record."""
    return f"{secrets.token_urlsafe(12)}.{_encode_tenant(tenant)}"


def find_record_store_key(reservation: str) -> str | None:
    """Return the store key of a reservation's record; None if the text cannot be a reservation's id."""
    tenant = find_reservation_tenant(reservation)
    return None if tenant is None else make_record_store_key(tenant, reservation.partition(".")[0])


def find_reservation_tenant(reservation: str) -> str | None:
    """Return the tenant that a reservation's id names; None if the text cannot be a reservation's id.

    Of the texts in base64 that stand for the same tenant, only the one of `make_reservation_id` is an id: the
    reservation's slots are stored under it.
    """
    token, _, tag = reservation.partition(".")
    try:
        tenant = base64.b64decode(tag + "=" * (-len(tag) % 4), altchars=b"-_", validate=True).decode("ascii")
    except (binascii.Error, ValueError):
        return None
    return tenant if tenant and _is_token(token) and tag == _encode_tenant(tenant) else None


def _encode_tenant(tenant: str) -> str:
    return base64.urlsafe_b64encode(tenant.encode()).decode().rstrip("=")


def _is_token(token: str) -> bool:
    return len(token) == 16 and token.replace("-", "a").replace("_", "a").isalnum() and token.isascii()  # noqa: PLR2004 - the length of 96 bits in base64
