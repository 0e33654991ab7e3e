"""The objects that every route needs: the limiter, the settings, the pepper and the observers."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection

    from ratelimit import AsyncLimiter, Decision
    from ratelimit.observers.activity import Activity
    from ratelimit.observers.denial_log import DenialLog
    from service.drain import Drain
    from service.metrics import SidecarMetrics
    from service.settings import Settings


@dataclass(frozen=True, slots=True)
class Sidecar:
    """One running sidecar.

    Attributes:
        limiter: decides checks.
        settings: the settings at the start.
        pepper: the secret key of the hash that turns secrets into keys.
        metrics: counts decisions, calls and settlements.
        denial_log: logs denials.
        activity: counts what keys, tenants, models and plans do.
        drain: whether the sidecar is about to stop.
    """

    limiter: AsyncLimiter
    settings: Settings
    pepper: str = field(repr=False)
    metrics: SidecarMetrics
    denial_log: DenialLog
    activity: Activity
    drain: Drain

    @classmethod
    def from_request(cls, request: HTTPConnection) -> Sidecar:
        """Return the sidecar that serves a request."""
        sidecar: Sidecar = request.scope["app"].sidecar
        return sidecar

    def make_headers(self, decision: Decision) -> dict[str, str]:
        """Make the headers of a decision, in the dialects of the settings."""
        return decision.headers(self.settings.dialect)


def choose_pepper(settings: Settings) -> str:
    """Return the pepper of the settings, or else a random one for this process."""
    return settings.key_pepper.get_secret_value() if settings.key_pepper else secrets.token_hex(32)
