"""Ids of reservations: random, and they name the tenant, so that any sidecar finds the record."""

from __future__ import annotations

import base64
import binascii
import secrets
from typing import NamedTuple


def make_reservation_id(tenant: str) -> str:
    """Return a new reservation's id: 96 random bits and the tenant, so that any sidecar finds the record."""
    return f"{secrets.token_urlsafe(12)}.{_encode_tenant(tenant)}"


class ReservationId(NamedTuple):
    """The two parts of a reservation's id.

    Attributes:
        token: 96 random bits as text.
        tenant: the tenant.
    """

    token: str
    tenant: str


def parse_reservation_id(reservation: str) -> ReservationId | None:
    """Return the parts of a reservation's id; None if the text cannot be a reservation's id.

    Of the texts in base64 that stand for the same tenant, only the one of `make_reservation_id` is an id: the
    reservation's slots are stored under it.
    """
    token, _, tag = reservation.partition(".")
    try:
        tenant = base64.b64decode(tag + "=" * (-len(tag) % 4), altchars=b"-_", validate=True).decode("ascii")
    except (binascii.Error, ValueError):
        return None
    is_valid = tenant and _is_token(token) and tag == _encode_tenant(tenant)
    return ReservationId(token, tenant) if is_valid else None


def _encode_tenant(tenant: str) -> str:
    return base64.urlsafe_b64encode(tenant.encode()).decode().rstrip("=")


def _is_token(token: str) -> bool:
    return len(token) == 16 and token.replace("-", "a").replace("_", "a").isalnum() and token.isascii()  # noqa: PLR2004 - the length of 96 bits in base64
