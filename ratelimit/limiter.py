"""The blocking limiter."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Self

from redis.exceptions import NoScriptError

from ratelimit.call import encode
from ratelimit.errors import RateLimited
from ratelimit.scripts import CHECK
from ratelimit.shell import CONNECTION_ERRORS, AskedFor, Shell
from ratelimit.stores import connect

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Unpack

    from ratelimit.call import Question
    from ratelimit.decision import Decision
    from ratelimit.policy import Limit, Policy
    from ratelimit.request import CheckOptions


class Limiter(Shell):
    """Decides which requests may pass; for threads. `AsyncLimiter` is the same for asyncio.

    ```python
    limiter = Limiter("redis://localhost:6379", Policy.from_file("policy.yaml"))
    decision = limiter.check("vk_9f3", model="qwen3-4b", cost={"tokens": 850})
    ```

    Safe to share between threads; create a new one after a fork.

    Args:
        store: the URL of the store: `redis://`, `rediss://`, `unix://`, `embedded://[path]` for
            a private server, `memory://` for none at all.
        policy: a policy, one limit, or several.
        max_skew: seconds that a request's timestamp may lie ahead of the store's clock;
            None trusts timestamps entirely, for replays.
        deadline: seconds that one call of the store may take before `on_outage` applies.

    Raises:
        InvalidRequest: the URL names no store, or an argument is out of range.
        PolicyError: the policy cannot be run.
        StoreUnavailable: the embedded server does not start.
    """

    def __init__(
        self,
        store: str,
        policy: Policy | Limit | Iterable[Limit],
        *,
        max_skew: float | None = 5.0,
        deadline: float = 0.05,
    ) -> None:
        opened = connect(store, deadline)
        super().__init__(opened.url, policy, max_skew)
        self._opened = opened
        self.address = opened.address

    def check(self, key: AskedFor, **options: Unpack[CheckOptions]) -> Decision:
        """Ask whether a request may pass, and charge it if so.

        Args:
            key: the API key's identifier; or a whole `Check`, or its fields as a mapping.
            **options: see `CheckOptions`: timestamp, plan, model, tenant, cost.

        Raises:
            InvalidRequest: the check cannot be asked; nothing was charged.
        """
        return self._decide([self._ask(key, options)])[0]

    def check_many(self, checks: Sequence[AskedFor]) -> list[Decision]:
        """Ask for up to 256 requests in one call; each is all or nothing on its own, in order.

        Raises:
            InvalidRequest: one of the checks cannot be asked; nothing was charged for any.
        """
        return self._decide(self._ask_many(checks))

    def peek(self, key: AskedFor, **options: Unpack[CheckOptions]) -> Decision:
        """Say what a check would answer now, and charge nothing."""
        return self._decide([self._ask(key, options, take=False)])[0]

    def acquire(
        self, key: AskedFor, *, timeout: float | None = None, **options: Unpack[CheckOptions]
    ) -> Decision:
        """Wait until a request may pass.

        Args:
            key: the API key's identifier.
            timeout: seconds to wait at most; None waits for as long as it takes.
            **options: as for `check`.

        Raises:
            RateLimited: it will not pass in time, or never can; said at once, not at the end.
            InvalidRequest: the check cannot be asked.
        """
        until = None if timeout is None else time.monotonic() + timeout
        while not (decision := self.check(key, **options)):
            wait = decision.retry_after
            if wait is None or (until is not None and time.monotonic() + wait > until):
                raise RateLimited(decision)
            time.sleep(wait)
        return decision

    def reset(self, key: str, *, tenant: str | None = None) -> None:
        """Forget what a key has used. Buckets that it shares with others stay as they are.

        Raises:
            StoreUnavailable: the store did not answer.
        """
        try:
            self._opened.client.unlink(*self._owned(key, tenant))
        except CONNECTION_ERRORS as error:
            raise self._unavailable(error) from None

    def ping(self) -> None:
        """Make sure that the store answers.

        Raises:
            StoreUnavailable: it does not; the message says why.
        """
        try:
            self._opened.client.ping()
        except CONNECTION_ERRORS as error:
            raise self._unavailable(error) from None

    def _decide(self, questions: list[Question]) -> list[Decision]:
        try:
            replies = self._run(questions)
        except CONNECTION_ERRORS as error:
            return self._without_store(questions, error)
        return self._read(questions, replies)

    def _run(self, questions: list[Question]) -> Any:  # noqa: ANN401 - whatever the script said
        keys, args = encode(questions, self.max_skew)
        client: Any = self._opened.client  # redis-py leaves execute_command untyped
        call = client.execute_command
        try:
            return call("EVALSHA", CHECK.sha, len(keys), *keys, *args)
        except NoScriptError:  # it did not run: a flush, a restart, a failover
            return call("EVAL", CHECK.source, len(keys), *keys, *args)

    def close(self) -> None:
        """Close every connection; stop the embedded server if nobody else uses it."""
        self._opened.client.close()
        self._opened.client.connection_pool.disconnect()
        self._opened.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
