"""Limits, plans and model classes, and the YAML file that defines them."""

from ratelimit.policy.limit import Limit
from ratelimit.policy.policy import Plan, Policy

__all__ = ["Limit", "Plan", "Policy"]
