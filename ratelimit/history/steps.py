"""Lines of a history with what the policy says about them, in the order of the decisions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from ratelimit.engine.resolver import Resolver
from ratelimit.errors import Fault, InvalidRequest
from ratelimit.request.check import Check
from ratelimit.request.timestamp import MICROSECONDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ratelimit.decision.decision import Source
    from ratelimit.engine.resolver import Subject
    from ratelimit.history.lines import HistoryLine, NumberedLine
    from ratelimit.policy import Policy


_MAX_STEP_BACK: Final = MICROSECONDS
"""A store's clock that goes back by more than this has been set; microseconds. A process writes the lines of
several connections in another order than they were decided, but not by so much."""


class Step(NamedTuple):
    """One line with what the policy says about it.

    Attributes:
        t: its time, microseconds since the epoch.
        place: the name of the file, and the number of the line.
        subject: who it is about, and which limits apply.
        costs: what it takes of each limit of the subject's layout.
        allowed: whether the request might pass.
        decided_by: who decided.
        request_id: the check's request id.
        reservation: the reservation that it made or settles.
        settled: what was really used, by unit; None for a check.
        used: the tokens that each bucket lacked after it, by the limit's name.
        violated: the limits that denied it; None if the line does not say.
        process: the process that wrote the line.
        clock: whose clock `t` is from: `store`, `request`, or None for a history that does not say.
    """

    t: int
    place: tuple[str, int]
    subject: Subject
    costs: tuple[float, ...]
    allowed: bool
    decided_by: Source
    request_id: str | None
    reservation: str | None
    settled: Mapping[str, float] | None
    used: Mapping[str, float] | None
    violated: tuple[str, ...] | None
    process: str | None
    clock: str | None


def make_steps(lines: Iterable[NumberedLine], policy: Policy) -> list[Step]:
    """Return the steps of a history, in the order of the decisions.

    Lines that say whose clock their timestamp is from are put in the order of their timestamps: the store
    decides in the order of its clock. Other lines are taken in the order in which they are given. So are
    all lines if the store's clock was set back.

    Raises:
        InvalidRequest: a line names a plan that the policy does not have, or a unit that no plan meters.
    """
    resolver = Resolver(policy)
    steps = [_make_step(numbered, resolver) for numbered in lines]
    if any(step.clock is not None for step in steps) and not is_clock_set_back(steps):
        steps.sort(key=lambda step: step.t)
    return steps


def is_clock_set_back(steps: Sequence[Step]) -> bool:
    """Whether the store's clock was set back while a process wrote its lines, in the order of the steps."""
    latest: dict[tuple[str, str | None], int] = {}
    for step in steps:
        # A repeated check or settlement has the time of its first answer.
        if step.clock == "store" and step.used is not None and step.request_id is None:
            process = step.place[0], step.process
            if step.t < latest.get(process, 0) - _MAX_STEP_BACK:
                return True
            latest[process] = max(step.t, latest.get(process, 0))
    return False


def _make_step(numbered: NumberedLine, resolver: Resolver) -> Step:
    source, number, line = numbered
    try:
        resolved = resolver.resolve(_make_check(line), take=True)
    except InvalidRequest as error:
        place = f"{source}:{number}"
        raise InvalidRequest(
            [Fault(f"{place}: {path}", message) for path, message, _ in error.faults]
        ) from None
    return Step(
        line.timestamp,
        (source, number),
        resolved.subject,
        resolved.costs,
        line.allowed,
        line.source,
        line.request_id,
        line.reservation,
        line.settled,
        line.used,
        line.violated,
        line.process,
        line.clock,
    )


def _make_check(line: HistoryLine) -> Check:
    """Return the check of a line; a settlement takes nothing as a check."""
    is_check = line.settled is None
    return Check.model_construct(
        key=line.key,
        timestamp=None,
        plan=line.plan,
        model=line.model,
        tenant=line.tenant,
        request_id=None,
        reserve=is_check and line.reservation is not None,
        cost=line.cost if is_check else {"requests": 0.0},
    )
