"""What the blocking and the asyncio limiter have in common: everything but the waiting."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from redis.exceptions import AuthenticationError, AuthorizationError, NoPermissionError, RedisError

from ratelimit.call import Asker, Question, read
from ratelimit.errors import Fault, InvalidRequest, PolicyError, StoreUnavailable
from ratelimit.layout import hash_of
from ratelimit.outage import Outage
from ratelimit.policy import Limit, Policy
from ratelimit.rate import MICROSECONDS
from ratelimit.request import MAX_BATCH, Check, fault, make_check

if TYPE_CHECKING:
    from ratelimit.decision import Decision
    from ratelimit.request import CheckOptions
    from ratelimit.stores import StoreURL

CONNECTION_ERRORS = (RedisError, OSError, TimeoutError)
"""All that can go wrong between us and a store."""

REFUSALS = (AuthenticationError, AuthorizationError, NoPermissionError)
"""What no waiting mends: the store is there and will not serve us."""

AskedFor = Check | str | Mapping[str, Any]
"""What may be asked for: a key, or a whole check, or its fields."""


class Shell:
    """The state of a limiter that does not depend on how its calls travel."""

    def __init__(
        self, url: StoreURL, policy: Policy | Limit | Iterable[Limit], max_skew: float | None
    ) -> None:
        self._asker = Asker(as_policy(policy))
        self._outage = Outage(str(url))
        self.max_skew = skew_of(max_skew)
        self.store = str(url)

    @property
    def policy(self) -> Policy:
        """The policy in force. Assign another to change it: buckets keep what was used."""
        return self._asker.policy

    @policy.setter
    def policy(self, policy: Policy | Limit | Iterable[Limit]) -> None:
        self._asker = Asker(as_policy(policy))

    def _ask(self, asked: AskedFor, options: CheckOptions | None = None, *, take: bool = True) -> Question:
        if isinstance(asked, str):
            asked = {"key": asked, **(options or {})}
        elif options:
            raise fault(next(iter(options)), "goes into the check itself, not beside it")
        return self._asker.ask(make_check(asked), take=take)

    def _ask_many(self, checks: Sequence[AskedFor]) -> list[Question]:
        if len(checks) > MAX_BATCH:
            raise fault("checks", f"{len(checks)} is too many at once; at most {MAX_BATCH}")
        questions = []
        for index, check in enumerate(checks):
            try:
                questions.append(self._ask(check))
            except InvalidRequest as error:
                faults = (fault._replace(path=f"{index}.{fault.path}") for fault in error.faults)
                raise InvalidRequest(list(faults)) from None
        return questions

    def _read(self, questions: Sequence[Question], replies: Sequence[Any]) -> list[Decision]:
        self._outage.ended()
        return [read(question, reply) for question, reply in zip(questions, replies, strict=True)]

    def _without_store(self, questions: Sequence[Question], error: Exception) -> list[Decision]:
        self._outage.began(explain(error))
        return [self._outage.answer(question, self.max_skew) for question in questions]

    def _unavailable(self, error: Exception) -> StoreUnavailable:
        return StoreUnavailable(f"{self.store}: {explain(error)}", refused=isinstance(error, REFUSALS))

    def _owned(self, key: str, tenant: str | None) -> list[str]:
        """Return the hashes that hold what a key has used, and nobody else's."""
        check = make_check({"key": key, "tenant": tenant})
        owner = check.tenant or self.policy.assignment(key).tenant or key
        hashes = [hash_of("key", key, owner)]
        return [*hashes, hash_of("tenant", key, owner)] if owner == key else hashes


def as_policy(policy: Policy | Limit | Iterable[Limit]) -> Policy:
    """Take a policy, or make one of limits.

    Raises:
        PolicyError: it is neither.
    """
    if isinstance(policy, Policy):
        return policy
    if isinstance(policy, Limit):
        return Policy.of(policy)
    with contextlib.suppress(TypeError):  # it is not several of anything
        limits = tuple(policy)
        if all(isinstance(limit, Limit) for limit in limits):
            return Policy.of(*limits)
    message = "must be a Policy, a Limit or several; a file is read with Policy.from_file(path)"
    raise PolicyError([Fault("", message)], "policy")


def skew_of(max_skew: float | None) -> int | None:
    """Return seconds of skew as microseconds; None, for trusting timestamps entirely, stays None.

    Raises:
        InvalidRequest: it is negative or above a day.
    """
    if max_skew is None:
        return None
    if not 0 <= max_skew <= 86_400:  # noqa: PLR2004 - a day
        raise fault("max_skew", "must be from 0 to 86400 seconds, or None to trust timestamps entirely")
    return round(max_skew * MICROSECONDS)


def explain(error: Exception) -> str:
    """Say in one line what went wrong between us and a store."""
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, TimeoutError) or "Timeout" in type(error).__name__:
        return "no answer within the deadline"
    return text.rstrip(".")
