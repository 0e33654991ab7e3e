"""The limiter for asyncio."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Self

from redis.exceptions import NoScriptError

from ratelimit.call import encode
from ratelimit.courier import Courier, within
from ratelimit.errors import RateLimited
from ratelimit.scripts import CHECK
from ratelimit.shell import CONNECTION_ERRORS, AskedFor, Shell
from ratelimit.stores import connect_async

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Unpack

    from ratelimit.call import Question
    from ratelimit.decision import Decision
    from ratelimit.policy import Limit, Policy
    from ratelimit.request import CheckOptions


class AsyncLimiter(Shell):
    """`Limiter` for asyncio: the same arguments, methods and errors, awaited.

    ```python
    async with AsyncLimiter("redis://localhost:6379", policy) as limiter:
        decision = await limiter.check("vk_9f3", cost={"tokens": 850})
    ```
    """

    def __init__(
        self,
        store: str,
        policy: Policy | Limit | Iterable[Limit],
        *,
        max_skew: float | None = 5.0,
        deadline: float = 0.05,
    ) -> None:
        opened = connect_async(store, deadline)
        super().__init__(opened.url, policy, max_skew)
        self._opened = opened
        self._deadline = deadline
        self._courier = Courier(self._run)

    async def check(self, key: AskedFor, **options: Unpack[CheckOptions]) -> Decision:
        """See `Limiter.check`."""
        return (await self._decide([self._ask(key, options)]))[0]

    async def check_many(self, checks: Sequence[AskedFor]) -> list[Decision]:
        """See `Limiter.check_many`."""
        return await self._decide(self._ask_many(checks))

    async def peek(self, key: AskedFor, **options: Unpack[CheckOptions]) -> Decision:
        """See `Limiter.peek`."""
        return (await self._decide([self._ask(key, options, take=False)]))[0]

    async def acquire(
        self,
        key: AskedFor,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - a limit on waiting, not a cancellation
        **options: Unpack[CheckOptions],
    ) -> Decision:
        """See `Limiter.acquire`; other tasks run while this one waits."""
        until = None if timeout is None else time.monotonic() + timeout
        while not (decision := await self.check(key, **options)):
            wait = decision.retry_after
            if wait is None or (until is not None and time.monotonic() + wait > until):
                raise RateLimited(decision)
            await asyncio.sleep(wait)
        return decision

    async def reset(self, key: str, *, tenant: str | None = None) -> None:
        """See `Limiter.reset`."""
        try:
            await within(self._deadline, self._opened.client.unlink(*self._owned(key, tenant)))
        except CONNECTION_ERRORS as error:
            raise self._unavailable(error) from None

    async def ping(self) -> None:
        """See `Limiter.ping`."""
        try:
            await within(self._deadline, self._opened.client.ping())
        except CONNECTION_ERRORS as error:
            raise self._unavailable(error) from None

    async def _decide(self, questions: list[Question]) -> list[Decision]:
        try:
            replies = await self._courier.ask(questions)
        except CONNECTION_ERRORS as error:
            return self._without_store(questions, error)
        return self._read(questions, replies)

    async def _run(self, questions: list[Question]) -> Any:  # noqa: ANN401 - whatever the script said
        keys, args = encode(questions, self.max_skew)
        client: Any = self._opened.client  # redis-py leaves execute_command untyped
        call = client.execute_command
        try:
            return await within(self._deadline, call("EVALSHA", CHECK.sha, len(keys), *keys, *args))
        except NoScriptError:  # it did not run: a flush, a restart, a failover
            return await within(self._deadline, call("EVAL", CHECK.source, len(keys), *keys, *args))

    async def close(self) -> None:
        """See `Limiter.close`; checks under way are answered first."""
        await self._courier.rest()
        await self._opened.client.aclose()
        await self._opened.client.connection_pool.disconnect()
        await asyncio.to_thread(self._opened.release)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
