"""The interface by which a limiter tells others what it does."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ratelimit.decision.decision import Decision
    from ratelimit.decision.limit_state import LimitState
    from ratelimit.engine.resolver import ResolvedCheck
    from ratelimit.policy import Policy
    from ratelimit.request.usage import Usage
    from ratelimit.stores.failures import FailureReason

EndOutcome = Literal["settled", "cancelled", "replayed", "charged"]
"""What became of a reservation or a usage record. `replayed`: it was settled or cancelled before.

A usage record without a reservation is `charged`."""


NoteDecision = Callable[["ResolvedCheck", "Decision", int, int], None]
"""`Observer.note_decision` of one observer."""


class End(NamedTuple):
    """The end of a request: a settlement, or the cancellation of a reservation.

    Attributes:
        outcome: what became of it.
        usage: what was used; None for a cancellation.
        key: the API key's identifier.
        tenant: the account that owns the key.
        plan: the plan that was charged.
        model: the model that answered; None if nothing names it.
        model_class: the class of that model; None if nothing names a model.
        started: when the call to the store began, monotonic nanoseconds.
        reservation: the reservation; None for a usage record without one.
        t: the time of the charge, microseconds since the epoch.
        limits: the state of each limit that was settled, after it.
    """

    outcome: EndOutcome
    usage: Usage | None
    key: str
    tenant: str
    plan: str
    model: str | None
    model_class: str | None
    started: int
    reservation: str | None = None
    t: int = 0
    limits: tuple[LimitState, ...] = ()


class UnansweredEnd(NamedTuple):
    """A settlement or a cancellation that the store did not answer.

    Attributes:
        usage: what was used; None for a cancellation.
        tenant: the account that owns the key.
        reservation: the reservation; None for a usage record without one.
    """

    usage: Usage | None
    tenant: str
    reservation: str | None


class Observer:
    """Is told what a limiter does. Subclasses override the methods that they need.

    ```python
    class Printer(Observer):
        def note_decision(self, check, decision, started, call_size):
            print(decision.key, decision.allowed)

    limiter = Limiter("redis://localhost:6379", policy, observers=[Printer()])
    ```

    The methods run in the thread of the check, before its caller gets the decision: they must be quick and
    must not raise. Those of a `Limiter` may run in several threads at the same time.
    """

    def note_decision(self, check: ResolvedCheck, decision: Decision, started: int, call_size: int) -> None:
        """Note a decision on a check that takes its cost. A `peek` is not noted.

        Args:
            check: the check, with everything that the policy says about it.
            decision: the decision.
            started: when the check began, monotonic nanoseconds.
            call_size: how many checks shared the call to the store; 0 if it was decided without a call.
        """

    def note_invalid(self) -> None:
        """Note a check, or a list of checks, that was refused before it was decided."""

    def note_call(self, checks: int, seconds: float) -> None:
        """Note a call that the store answered.

        Args:
            checks: how many checks it carried; 0 for anything else than checks.
            seconds: how long it took.
        """

    def note_failure(self, reason: FailureReason) -> None:
        """Note a call that the store did not answer, or answered with an error."""

    def note_breaker(self, is_open: bool) -> None:  # noqa: FBT001 - a callback
        """Note that the circuit breaker opened (`is_open`), so that no calls are made, or closed."""

    def note_end(self, end: End) -> None:
        """Note a settlement or a cancellation."""

    def note_unanswered_end(self, end: UnansweredEnd) -> None:
        """Note a settlement or a cancellation of which it is not known whether it took effect."""

    def note_policy(self, policy: Policy) -> None:
        """Note the policy in force: when the limiter is made, and whenever another one is set."""


class Observers:
    """Several observers as one. A method that nobody overrides costs nothing: its list is empty.

    Args:
        observers: the observers, in the order in which they are told.
    """

    def __init__(self, observers: Iterable[Observer]) -> None:
        told = tuple(observers)
        self.note_decision = [one.note_decision for one in told if _overrides(one, Observer.note_decision)]
        self.note_invalid = [one.note_invalid for one in told if _overrides(one, Observer.note_invalid)]
        self.note_call = [one.note_call for one in told if _overrides(one, Observer.note_call)]
        self.note_failure = [one.note_failure for one in told if _overrides(one, Observer.note_failure)]
        self.note_breaker = [one.note_breaker for one in told if _overrides(one, Observer.note_breaker)]
        self.note_end = [one.note_end for one in told if _overrides(one, Observer.note_end)]
        self.note_unanswered_end = [
            one.note_unanswered_end for one in told if _overrides(one, Observer.note_unanswered_end)
        ]
        self.note_policy = [one.note_policy for one in told if _overrides(one, Observer.note_policy)]


def _overrides(observer: Observer, method: Callable[..., None]) -> bool:
    return getattr(type(observer), method.__name__) is not method
