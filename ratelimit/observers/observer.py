"""The interface by which a limiter tells others what it does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, ParamSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from ratelimit.decision.decision import Decision
    from ratelimit.engine.resolver import ResolvedCheck
    from ratelimit.request.usage import Usage

P = ParamSpec("P")

FailureReason = Literal["timeout", "connection", "refused", "error"]
"""Why a call to the store failed: no answer within the deadline; the connection; the store refuses this client;
any other error that the store replied."""

EndOutcome = Literal["settled", "cancelled", "replayed"]
"""What became of a reservation or a usage record. `replayed` means that it was settled or cancelled before."""


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
    """

    outcome: EndOutcome
    usage: Usage | None
    key: str
    tenant: str
    plan: str
    model: str | None
    model_class: str | None


class Observer:
    """Is told what a limiter does. Subclasses override the methods that they need.

    ```python
    class Printer(Observer):
        def note_decision(self, check, decision, started, call_size):
            print(decision.key, decision.allowed)

    limiter = Limiter("redis://localhost:6379", policy, observers=[Printer()])
    ```

    The methods run in the thread of the check, before its caller gets the decision: they must be quick and must
    not raise. Those of a `Limiter` may run in several threads at the same time.
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

    def note_end(self, end: End) -> None:
        """Note a settlement or a cancellation."""

    def note_lease(self, check: ResolvedCheck, tokens: Sequence[float], sign: Literal[1, -1]) -> None:
        """Note a lease that begins (`sign` 1) or ends (-1).

        Args:
            check: the check that took it.
            tokens: how many tokens of each limit it took, in the order of the layout's placed limits.
            sign: 1 or -1.
        """


class Observers:
    """Several observers as one. A method that nobody overrides costs nothing: its list is empty.

    Args:
        observers: the observers, in the order in which they are told.
    """

    def __init__(self, observers: Iterable[Observer]) -> None:
        observers = tuple(observers)
        self.note_decision = _list_methods(observers, Observer.note_decision)
        self.note_invalid = _list_methods(observers, Observer.note_invalid)
        self.note_call = _list_methods(observers, Observer.note_call)
        self.note_failure = _list_methods(observers, Observer.note_failure)
        self.note_end = _list_methods(observers, Observer.note_end)
        self.note_lease = _list_methods(observers, Observer.note_lease)


def _list_methods(observers: Iterable[Observer], method: Callable[P, None]) -> tuple[Callable[P, None], ...]:
    """Return the methods of the observers that override a method of `Observer`."""
    name = method.__name__
    return tuple(getattr(one, name) for one in observers if getattr(type(one), name) is not method)
