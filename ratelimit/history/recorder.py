"""Writes every decision and every settlement of a limiter as a line of a history."""

from __future__ import annotations

import json
import logging
import os
import stat
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Self

from ratelimit.history.lines import HALF_A_LINE
from ratelimit.observers.observer import Observer
from ratelimit.policy.spec import CONCURRENT, FAILURES
from ratelimit.request.timestamp import as_datetime

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ratelimit.decision.decision import Decision
    from ratelimit.decision.limit_state import LimitState
    from ratelimit.engine.resolver import ResolvedCheck
    from ratelimit.observers.observer import End, UnansweredEnd
    from ratelimit.request.usage import Usage

_log: Final = logging.getLogger("ratelimit")
_WITHOUT_TOKENS: Final = frozenset({CONCURRENT, FAILURES})
_ONLY_OWNER: Final = 0o600
_write_json: Final = json.JSONEncoder(separators=(",", ":")).encode


class HistoryRecorder(Observer):
    """Appends a line for each decision and settlement to a file, for `verify_history`.

    ```python
    with HistoryRecorder("history.jsonl") as recorder:
        limiter = Limiter("redis://localhost:6379", policy, observers=[recorder])
    ```

    Each line is written at once, by one call of the operating system: several processes may share a file, and
    a process that is killed loses no line that it has written. The lines have whole keys and reservations, so
    only the owner can read a new file. If a line cannot be written, that is logged once, decisions go on, and
    the next line is tried again. Half a line, which a full disk leaves, is marked as such when there is room.

    Args:
        path: the file; lines are added at its end.

    Raises:
        OSError: the file cannot be opened.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, _ONLY_OWNER)
        self._path = os.fspath(path)
        self._has_failed = False
        self._has_half_a_line = self._ends_in_half_a_line()

    def _ends_in_half_a_line(self) -> bool:
        """Whether the file ends with half a line, of a process that was killed or had no room."""
        if not stat.S_ISREG(os.fstat(self._file).st_mode):
            return False
        with open(self._path, "rb") as file:  # noqa: PTH123 - a path of any kind
            file.seek(max(file.seek(0, os.SEEK_END) - 1, 0))
            return file.read(1) not in (b"", b"\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file. Nothing is written after that."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def note_decision(self, check: ResolvedCheck, decision: Decision, started: int, call_size: int) -> None:  # noqa: ARG002 - the interface
        """Write a line for a decision; see `Observer.note_decision`."""
        subject = check.subject
        limits = zip(subject.layout.placed_limits, check.costs, strict=True)
        # Slots and failures are not costs of a request.
        cost = {placed.unit: amount for placed, amount in limits if placed.unit not in _WITHOUT_TOKENS}
        line: dict[str, Any] = {
            "timestamp": _write_time(decision.timestamp),
            "key": subject.key,
            "plan": subject.plan,
            "model": check.model,
            "tenant": subject.tenant,
            "cost": {"requests": 0.0, **cost},
            "allowed": decision.allowed,
            "source": decision.source,
            "clock": "store" if check.timestamp is None else "request",
        }
        if check.request_id is not None:
            line["request_id"] = check.request_id
        if decision.reservation is not None:
            line["reservation"] = decision.reservation
        if not decision.allowed:
            line["violated"] = decision.violated
        if decision.source == "store":
            line["used"] = _list_used(decision.limits)
        self._write(line)

    def note_end(self, end: End) -> None:
        """Write a line for a settlement or a cancellation; see `Observer.note_end`."""
        if end.usage is None:
            settled: dict[str, float] = {state.unit: 0.0 for state in end.limits}
        else:
            settled = _list_settled(end.usage)
        is_timed = end.usage is not None and end.usage.timestamp is not None
        line: dict[str, Any] = {
            "timestamp": _write_time(as_datetime(end.t)),
            "key": end.key,
            "plan": end.plan,
            "model": end.model,
            "tenant": end.tenant,
            "allowed": True,
            "settled": settled,
            "clock": "request" if is_timed else "store",
        }
        if end.reservation is not None:
            line["reservation"] = end.reservation
        if end.outcome != "replayed":
            line["used"] = _list_used(end.limits)
        self._write(line)

    def note_unanswered_end(self, end: UnansweredEnd) -> None:
        """Write a line for a settlement or a cancellation that may have taken effect or not."""
        usage = end.usage
        line: dict[str, Any] = {
            "timestamp": _write_time(datetime.now(UTC)),
            "key": (usage and usage.key) or end.tenant,
            "plan": usage.plan if usage else None,
            "model": usage.model if usage else None,
            "tenant": end.tenant,
            "allowed": True,
            "source": "outage",
            "settled": _list_settled(usage) if usage else {},
            "clock": "store",
        }
        if end.reservation is not None:
            line["reservation"] = end.reservation
        self._write(line)

    def _write(self, line: dict[str, Any]) -> None:
        line["process"] = str(os.getpid())
        text = HALF_A_LINE * self._has_half_a_line + _write_json(line).encode() + b"\n"
        try:
            written = os.write(self._file, text)
        except OSError as error:
            self._note_failure(error.strerror or str(error))
            return
        self._has_half_a_line = written < len(text)
        if self._has_half_a_line:
            self._note_failure("no room for a whole line")

    def _note_failure(self, reason: str) -> None:
        if not self._has_failed:
            self._has_failed = True
            _log.error("the history %s is incomplete: %s", self._path, reason)


def _write_time(time: datetime) -> str:
    return time.isoformat(timespec="microseconds")


def _list_settled(usage: Usage) -> dict[str, float]:
    return {**usage.known(), FAILURES: 1.0} if usage.failed else usage.known()


def _list_used(states: Iterable[LimitState]) -> dict[str, float]:
    """Return the tokens that each bucket lacks, to within what one microsecond refills."""
    return {
        state.name: state.reset_after * state.limit / state.period
        for state in states
        if state.unit not in _WITHOUT_TOKENS
    }
