"""Records read from the usage stream, and their totals per key and model.

record = read_record(id, fields)      # an entry of the stream `rl1:usage`
summary = summarise(records)          # for billing and for people
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from ratelimit.request.timestamp import MICROSECONDS, as_datetime
from ratelimit.request.usage import FIRST_FAILURE_STATUS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

_MILLISECOND: Final = 1000


@dataclass(frozen=True, slots=True)
class Record:
    """The usage record of one settlement. A field that the stream's entry does not have is None.

    Attributes:
        id: the entry's id: when it was settled (milliseconds since the epoch, by the store's clock),
            and a number.
        key: the API key's identifier, not masked.
        tenant: the account that owns the key.
        plan: the plan that was charged.
        model: the model that answered.
        timestamp: when the request was made, or when it was settled if that is not known.
        reservation: the reservation that was settled.
        input_tokens: tokens of the prompt.
        output_tokens: tokens of the answer.
        latency_ms: how long the answer took, in milliseconds.
        status: the HTTP status of the answer.
        cost: how much of other units was used.
    """

    id: str
    key: str
    tenant: str | None
    plan: str | None
    model: str | None
    timestamp: datetime
    reservation: str | None
    input_tokens: int | None
    output_tokens: int | None
    latency_ms: float | None
    status: int | None
    cost: dict[str, float]

    @property
    def failed(self) -> bool:
        """Whether the answer was a failure."""
        return self.status is not None and self.status >= FIRST_FAILURE_STATUS

    def as_dict(self) -> dict[str, Any]:
        """Return the members of the JSON form."""
        members = {name: getattr(self, name) for name in self.__slots__}
        return {**members, "timestamp": self.timestamp.strftime("%Y-%m-%dT%H:%M:%S.%fZ")}


def read_record(entry: str, fields: Mapping[str, str]) -> Record:
    """Read an entry of the stream. Unknown fields are ignored, because newer versions may add some.

    Raises:
        ValueError: the entry is not a usage record.
    """
    try:
        return Record(
            id=entry,
            key=fields["key"],
            tenant=fields.get("tenant"),
            plan=fields.get("plan"),
            model=fields.get("model"),
            timestamp=_read_time(entry, fields.get("timestamp")),
            reservation=fields.get("reservation"),
            input_tokens=int(fields["input_tokens"]) if "input_tokens" in fields else None,
            output_tokens=int(fields["output_tokens"]) if "output_tokens" in fields else None,
            latency_ms=float(fields["latency_ms"]) if "latency_ms" in fields else None,
            status=int(fields["status"]) if "status" in fields else None,
            cost=dict(json.loads(fields.get("cost", "{}"))),
        )
    except (KeyError, TypeError, ValueError, OverflowError):
        raise ValueError(f"entry {entry} is not a usage record") from None


def _read_time(entry: str, timestamp: str | None) -> datetime:
    if timestamp is not None:
        return as_datetime(round(float(timestamp) * MICROSECONDS))
    return as_datetime(int(entry.partition("-")[0]) * _MILLISECOND)


@dataclass(slots=True)
class Totals:
    """Totals of usage records. A field that a record does not have adds nothing.

    Attributes:
        requests: the number of records.
        input_tokens: tokens of all prompts.
        output_tokens: tokens of all answers.
        errors: the number of answers with a status of 400 or more.
        latencies: milliseconds, one for each record that has a latency.
    """

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    errors: int = 0
    latencies: list[float] = field(default_factory=list)

    def add(self, record: Record) -> None:
        """Add a record."""
        self.requests += 1
        self.input_tokens += record.input_tokens or 0
        self.output_tokens += record.output_tokens or 0
        self.errors += record.failed
        if record.latency_ms is not None:
            self.latencies.append(record.latency_ms)

    @property
    def sort_key(self) -> tuple[int, int]:
        """The sort key that puts most tokens first, then most requests."""
        return -self.input_tokens - self.output_tokens, -self.requests

    def latency(self, percent: int) -> float | None:
        """Return the exact latency in milliseconds that `percent` of the answers did not exceed.

        It is the latency of one record (nearest rank), never a value between two; None without latencies.
        """
        rank = -(-len(self.latencies) * percent // 100)
        return sorted(self.latencies)[rank - 1] if rank else None


@dataclass(slots=True)
class Summary:
    """Totals of usage records: of all, by key, and by key and model.

    Attributes:
        total: the totals of all records.
        keys: totals by key.
        models: totals by key and model.
        first: the earliest timestamp; None without records.
        last: the latest timestamp; None without records.
    """

    total: Totals = field(default_factory=Totals)
    keys: dict[str, Totals] = field(default_factory=dict)
    models: dict[tuple[str, str | None], Totals] = field(default_factory=dict)
    first: datetime | None = None
    last: datetime | None = None

    def add(self, record: Record) -> None:
        """Add a record."""
        self.total.add(record)
        self.keys.setdefault(record.key, Totals()).add(record)
        self.models.setdefault((record.key, record.model), Totals()).add(record)
        self.first = min(self.first or record.timestamp, record.timestamp)
        self.last = max(self.last or record.timestamp, record.timestamp)

    def ranked(self) -> list[tuple[str, str | None, Totals]]:
        """Return key, model and totals: keys with most tokens first, and so the models of each key."""

        def make_sort_key(group: tuple[str, str | None, Totals]) -> tuple[object, ...]:
            key, model, totals = group
            return (*self.keys[key].sort_key, key, *totals.sort_key, model or "")

        return sorted(((*names, totals) for names, totals in self.models.items()), key=make_sort_key)


def summarise(records: Iterable[Record]) -> Summary:
    """Return the totals of records. The records are read once and not kept."""
    summary = Summary()
    for record in records:
        summary.add(record)
    return summary
