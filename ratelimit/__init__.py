"""A token-bucket rate limiter on Redis for APIs whose requests do not all cost the same."""

from ratelimit.aio import AsyncLimiter
from ratelimit.decision import Decision, LimitState
from ratelimit.errors import (
    Fault,
    InvalidRequest,
    PolicyError,
    RateLimited,
    RateLimitError,
    StoreUnavailable,
    UnknownReservation,
)
from ratelimit.limiter import Limiter
from ratelimit.policy import Limit, Plan, Policy
from ratelimit.rate import Rate
from ratelimit.request import Check
from ratelimit.reservation import AsyncReservation, Reservation
from ratelimit.settlement import Settlement
from ratelimit.usage import Usage

__all__ = [
    "AsyncLimiter",
    "AsyncReservation",
    "Check",
    "Decision",
    "Fault",
    "InvalidRequest",
    "Limit",
    "LimitState",
    "Limiter",
    "Plan",
    "Policy",
    "PolicyError",
    "Rate",
    "RateLimitError",
    "RateLimited",
    "Reservation",
    "Settlement",
    "StoreUnavailable",
    "UnknownReservation",
    "Usage",
]
