"""What a verified history shows: where a promise was broken, and what was counted."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from ratelimit.request.timestamp import as_datetime

if TYPE_CHECKING:
    from collections.abc import Iterable

FaultKind = Literal["over-admitted", "lost", "charged-more", "denied-without-reason", "answered-differently"]
"""What was wrong.

`over-admitted`: more passed in a window than the limit allows. `lost`: the store no longer knew a charge.
`charged-more`: the store had charged something that is not in the history. `denied-without-reason`: every
limit had room. `answered-differently`: a repeated check got another answer."""


@dataclass(frozen=True, slots=True)
class HistoryFault:
    """One place where a history breaks a promise.

    Attributes:
        promise: the promise, such as `P1`.
        kind: what was wrong.
        source: the name of the file.
        line: the number of the line at which it shows, counted from 1.
        key: the key of that line, masked.
        limit: the limit's name; empty if it is about no single limit.
        unit: what the limit counts.
        start: the begin of the window, microseconds since the epoch.
        end: its end.
        admitted: what was admitted in the window, less what was refunded.
        bound: what might have been admitted in it.
        amount: by how much the promise was broken, in the limit's unit.
        explanation: what would explain it.
    """

    promise: str
    kind: FaultKind
    source: str
    line: int
    key: str
    limit: str
    unit: str
    start: int
    end: int
    admitted: float
    bound: float
    amount: float
    explanation: str

    def as_dict(self) -> dict[str, Any]:
        """Return the members for JSON."""
        return {
            "promise": self.promise,
            "kind": self.kind,
            "source": self.source,
            "line": self.line,
            "key": self.key,
            "limit": self.limit,
            "unit": self.unit,
            "from": _write_time(self.start),
            "to": _write_time(self.end),
            "admitted": round(self.admitted, 6),
            "bound": round(self.bound, 6),
            "amount": round(self.amount, 6),
            "explanation": self.explanation,
        }


def _write_time(t: int) -> str:
    return as_datetime(t).isoformat(timespec="microseconds").replace("+00:00", "Z")


@dataclass(slots=True)
class HistoryReport:
    """What a verified history shows.

    Attributes:
        faults: the faults, in the order in which they were found.
        decisions: how many decisions the history has.
        admitted: how many of them let a request pass.
        settlements: how many settlements and cancellations it has.
        repeated: how many lines repeat an earlier check or settlement, and so charge nothing.
        sources: the number of decisions by who decided.
        outage_admissions: how many requests passed because the store did not answer. No limit counts them.
        buckets: how many buckets were followed charge by charge.
        windows_only: of how many only the windows were checked: the order of their charges is not known.
        unanswered_settlements: how many more the store did not answer, so that they may have been made.
        unknown_settlements: how many settlements are of a reservation that is not in the history.
    """

    faults: list[HistoryFault] = field(default_factory=list)
    decisions: int = 0
    admitted: int = 0
    settlements: int = 0
    repeated: int = 0
    sources: Counter[str] = field(default_factory=Counter)
    outage_admissions: int = 0
    buckets: int = 0
    windows_only: int = 0
    unanswered_settlements: int = 0
    unknown_settlements: int = 0

    @property
    def is_sound(self) -> bool:
        """Whether no promise was broken."""
        return not self.faults

    def select_faults(self, *kinds: FaultKind) -> list[HistoryFault]:
        """Return the faults of some kinds."""
        return [fault for fault in self.faults if fault.kind in kinds]

    def sum_amounts(self, *kinds: FaultKind) -> float:
        """Return the sum of the amounts of the faults of some kinds."""
        return sum(fault.amount for fault in self.select_faults(*kinds))

    def as_dict(self, most: int | None = None) -> dict[str, Any]:
        """Return the report for JSON, with at most `most` faults."""
        return {
            "sound": self.is_sound,
            "decisions": self.decisions,
            "admitted": self.admitted,
            "denied": self.decisions - self.admitted,
            "settlements": self.settlements,
            "repeated": self.repeated,
            "sources": dict(self.sources),
            "outage_admissions": self.outage_admissions,
            "buckets": self.buckets,
            "windows_only": self.windows_only,
            "unanswered_settlements": self.unanswered_settlements,
            "unknown_settlements": self.unknown_settlements,
            "fault_counts": _count(fault.kind for fault in self.faults),
            "faults": [fault.as_dict() for fault in self.faults[:most]],
        }


def _count(names: Iterable[str]) -> dict[str, int]:
    return dict(Counter(names))
