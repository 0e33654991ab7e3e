"""Limiters that are made before a fork start again in the child.

Without this, parent and child would read each other's replies from one connection, and both spend the
same leases.
"""

from __future__ import annotations

import os
import weakref
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from ratelimit.limiters.base import BaseLimiter

_limiters: Final[weakref.WeakSet[BaseLimiter]] = weakref.WeakSet()


def start_again_after_fork(limiter: BaseLimiter) -> None:
    """Make a limiter start again in every child of this process that is forked from now on."""
    _limiters.add(limiter)


def _start_all() -> None:
    for limiter in list(_limiters):
        limiter._start_in_child()  # noqa: SLF001 - not for users; this module belongs to the limiters


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_start_all)
