"""What every route needs: the limiter and the settings."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection

    from ratelimit import AsyncLimiter, Decision
    from service.settings import Settings


@dataclass(frozen=True, slots=True)
class Sidecar:
    """One running sidecar.

    Attributes:
        limiter: decides.
        settings: what it was told at the start.
        pepper: the key under which secrets become identifiers.
    """

    limiter: AsyncLimiter
    settings: Settings
    pepper: str = field(repr=False)

    @classmethod
    def of(cls, request: HTTPConnection) -> Sidecar:
        """Return the sidecar that serves a request."""
        return cast("Sidecar", request.scope["app"].state.sidecar)

    def headers(self, decision: Decision) -> dict[str, str]:
        """Return a decision's headers in the dialects of the settings."""
        return decision.headers(self.settings.dialect)


def pepper_of(settings: Settings) -> str:
    """Return the pepper of the settings, or one that lasts until the end of this process."""
    return settings.key_pepper.get_secret_value() if settings.key_pepper else secrets.token_hex(32)
