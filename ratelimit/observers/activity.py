"""Counts what keys, tenants, models and plans do, for `ratelimit top`. Denials leave nothing in the store."""

from __future__ import annotations

import os
import secrets
import socket
import time
from threading import Lock
from typing import TYPE_CHECKING, Final

from ratelimit.metering.activity import INTERVAL_SECONDS, IntervalCounts, encode_report, write_report
from ratelimit.observers.observer import Observer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ratelimit.decision.decision import Decision
    from ratelimit.engine.check_script import ScriptArgument
    from ratelimit.engine.keyspace import Keyspace
    from ratelimit.engine.resolver import ResolvedCheck, Subject
    from ratelimit.metering.activity import Names
    from ratelimit.observers.observer import End

MAX_PENDING: Final = 1024
"""Names that are counted before they go into the sketches. It bounds how long that takes at once."""


class Activity(Observer):
    """Counts checks, denials and settled tokens of the current interval.

    ```python
    activity = Activity()
    limiter = Limiter("redis://localhost:6379", policy, observers=[activity])
    limiter.publish_activity(activity)  # every second
    ```

    Args:
        clock: returns seconds since the epoch.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._process = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._clock = clock
        self._lock = Lock()
        # Checks and denials of each subject, by the subject's id: a check only adds to this, which is fast.
        # The limiter keeps its subjects; that they are here keeps their ids theirs.
        self._pending: dict[int, _Pending] = {}
        self._interval = self._find_interval()
        self._counts = IntervalCounts()
        self._has_news = False
        self._untold: list[tuple[int, str]] = []  # of intervals that have ended

    def note_decision(self, check: ResolvedCheck, decision: Decision, started: int, call_size: int) -> None:  # noqa: ARG002 - the interface
        """Count a check; see `Observer.note_decision`."""
        subject = check.subject
        with self._lock:
            pending = self._pending.get(id(subject))
            if pending is None:
                pending = self._add_pending(subject, check.model)
            pending.checks += 1
            if not decision.allowed:
                pending.denied += 1

    def note_end(self, end: End) -> None:
        """Count settled tokens; see `Observer.note_end`."""
        if end.usage is None or end.outcome not in {"settled", "charged"}:
            return
        tokens = (end.usage.input_tokens or 0) + (end.usage.output_tokens or 0)
        if tokens:
            with self._lock:
                self._count({(end.key, end.tenant, end.model or "", end.plan): [0.0, 0.0, tokens]})

    def encode_report(self, keyspace: Keyspace) -> list[tuple[list[str], list[ScriptArgument]]]:
        """Return KEYS and ARGV of the calls of lua/report.lua that tell the store what was counted.

        There are none if there is nothing new.
        """
        with self._lock:
            self._count_pending()
            if self._has_news:
                self._has_news = False
                self._untold.append((self._interval, write_report(self._counts)))
            untold, self._untold = self._untold, []
        return [encode_report(keyspace, self._process, interval, text) for interval, text in untold]

    def _find_interval(self) -> int:
        return int(self._clock() // INTERVAL_SECONDS)

    def _add_pending(self, subject: Subject, model: str | None) -> _Pending:
        if len(self._pending) >= MAX_PENDING:
            self._count_pending()
            self._pending.clear()
        return self._pending.setdefault(id(subject), _Pending(subject, model or ""))

    def _count_pending(self) -> None:
        """Put what is pending into the sketches."""
        news: dict[Names, list[float]] = {}
        used: dict[int, _Pending] = {}
        for number, pending in self._pending.items():
            if pending.checks:
                amounts = news.setdefault(pending.names, [0.0, 0.0, 0.0])
                amounts[0] += pending.checks
                amounts[1] += pending.denied
                pending.checks = pending.denied = 0
                used[number] = pending
        # Subjects that were not used since the last time are forgotten; the others will be needed again.
        self._pending = used
        self._count(news)

    def _count(self, news: Mapping[Names, Sequence[float]]) -> None:
        """Add amounts to the sketches of the current interval."""
        interval = self._find_interval()
        if interval != self._interval:
            if self._has_news:  # counted since the last report
                self._untold.append((self._interval, write_report(self._counts)))
                self._has_news = False
            self._interval, self._counts = interval, IntervalCounts()
        if news:
            self._has_news = True
            self._counts.add(news)


class _Pending:
    """What one subject has done since it was last counted.

    Attributes:
        subject: the subject.
        names: its key, tenant, model and plan.
        checks: how many checks.
        denied: how many of them were denied.
    """

    __slots__ = ("checks", "denied", "names", "subject")

    def __init__(self, subject: Subject, model: str) -> None:
        self.subject = subject
        self.names: Names = (subject.key, subject.tenant, model, subject.plan)
        self.checks = self.denied = 0
