"""A token-bucket rate limiter on Redis for APIs whose requests do not all cost the same."""

from ratelimit.aio import AsyncLimiter
from ratelimit.decision import Decision, LimitState
from ratelimit.errors import Fault, InvalidRequest, PolicyError, RateLimited, RateLimitError, StoreUnavailable
from ratelimit.limiter import Limiter
from ratelimit.policy import Limit, Plan, Policy
from ratelimit.rate import Rate
from ratelimit.request import Check

__all__ = [
    "AsyncLimiter",
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
    "StoreUnavailable",
]
