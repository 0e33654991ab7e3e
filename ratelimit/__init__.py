"""A token-bucket rate limiter on Redis or Valkey, for APIs whose requests differ in cost."""

from ratelimit.decision.decision import Decision
from ratelimit.decision.limit_state import LimitState
from ratelimit.decision.settlement import Settlement
from ratelimit.errors import (
    Fault,
    InvalidRequest,
    LimiterClosed,
    PolicyError,
    RateLimited,
    RateLimitError,
    StoreUnavailable,
    UnknownReservation,
)
from ratelimit.limiters.aio import AsyncLimiter
from ratelimit.limiters.decorator import limited
from ratelimit.limiters.limiter import Limiter
from ratelimit.limiters.reservation import AsyncReservation, Reservation
from ratelimit.observers.observer import End, Observer
from ratelimit.policy import Limit, Plan, Policy
from ratelimit.policy.rate import Rate
from ratelimit.request.check import Check
from ratelimit.request.usage import Usage
from ratelimit.version import __version__

__all__ = [
    "AsyncLimiter",
    "AsyncReservation",
    "Check",
    "Decision",
    "End",
    "Fault",
    "InvalidRequest",
    "Limit",
    "LimitState",
    "Limiter",
    "LimiterClosed",
    "Observer",
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
    "__version__",
    "limited",
]
