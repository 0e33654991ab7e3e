"""What a limiter knows of one server of the store: whether it answers."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ratelimit.stores.breaker import Breaker
from ratelimit.stores.failures import classify_error, explain_error
from ratelimit.stores.outage_log import OutageLog

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ratelimit.observers.observer import Observers


class ServerWatch:
    """Notes what happens to calls to one server, for its circuit breaker, the log and the observers.

    Attributes:
        breaker: whether calls are made.

    Args:
        name: the server's name in the log, without a password.
        observers: are told of calls.
        note_breaker: is told when the breaker opens or closes.
        note_answer: is told of each call that was answered.
    """

    def __init__(
        self,
        name: str,
        observers: Observers,
        note_breaker: Callable[[bool], None],
        note_answer: Callable[[], None],
    ) -> None:
        self._log = OutageLog(name)
        self._observers = observers
        self._note_answer = note_answer
        self.breaker = Breaker(note_breaker)

    def close(self) -> None:
        """Note that this server is not used any more."""
        self.breaker.note_success()

    def note_call(self, checks: int, started: int) -> None:
        """Note a call that the server answered; `started` is monotonic nanoseconds."""
        self.note_calls((checks,), started)

    def note_calls(self, check_counts: Sequence[int], started: int) -> None:
        """Note calls that the server answered together: how many checks each of them carried."""
        self._log.note_success()
        self.breaker.note_success()
        self._note_answer()
        if self._observers.note_call:
            seconds = (time.monotonic_ns() - started) / 1_000_000_000
            for note_call in self._observers.note_call:
                for checks in check_counts:
                    note_call(checks, seconds)

    def note_failure(self, error: Exception, started: int) -> None:
        """Note a call that the server did not answer, or answered with an error; `started` as above."""
        self._log.note_failure(explain_error(error))
        reason = classify_error(error)
        if reason in {"timeout", "connection"}:  # what is refused or an error costs no time
            self.breaker.note_failure(started, time.monotonic_ns())
        for note_failure in self._observers.note_failure:
            note_failure(reason)
