"""Lines of a history with what the policy says about them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ratelimit.engine.resolver import Resolver
from ratelimit.errors import Fault, InvalidRequest
from ratelimit.request.check import Check

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from ratelimit.decision.decision import Source
    from ratelimit.engine.resolver import Subject
    from ratelimit.history.lines import HistoryLine, NumberedLine
    from ratelimit.policy import Policy


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
        estimates: what the check took of each limit, if the line is of a check and of its settlement at once.
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
    estimates: tuple[float, ...] = ()


def make_steps(lines: Iterable[NumberedLine], policy: Policy) -> Iterator[Step]:
    """Return the steps of a history, one for each line.

    Raises:
        InvalidRequest: a line names a plan that the policy does not have, or a unit that no plan meters.
    """
    resolver = Resolver(policy)
    return (_make_step(numbered, resolver) for numbered in lines)


def _make_step(numbered: NumberedLine, resolver: Resolver) -> Step:
    source, number, line = numbered
    try:
        resolved = resolver.resolve(_make_check(line, is_check=line.settled is None), take=True)
        is_both = line.settled is not None and line.cost and line.reservation
        estimates = resolver.resolve(_make_check(line, is_check=True), take=True).costs if is_both else ()
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
        estimates,
    )


def _make_check(line: HistoryLine, *, is_check: bool) -> Check:
    """Return the check of a line; a settlement takes nothing as a check."""
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
