"""Passes the answer of an ASGI application on, and ends the reservation of its request, once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from ratelimit.errors import RateLimitError
from ratelimit.web.answer import Answer, BodyTail, log_unsettled, read_usage

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    from ratelimit.limiters.reservation import AsyncReservation
    from ratelimit.web.rules import MiddlewareRules

    Scope = MutableMapping[str, Any]
    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]
    ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

_CHUNKS: Final = frozenset({"http.response.body", "http.response.zerocopysend"})
_WHOLE_FILE: Final = "http.response.pathsend"  # an extension, which has one message for all of the body
_pending: set[asyncio.Task[None]] = set()  # the event loop itself keeps only weak references


class Ending:
    """Passes an answer on, and ends the reservation of its request, once."""

    def __init__(self, rules: MiddlewareRules[Scope], reservation: AsyncReservation, scope: Scope) -> None:
        self._rules, self._reservation = rules, reservation
        self._answer, self._tail = Answer(scope), BodyTail(rules.body_tail)
        self._ending: asyncio.Task[None] | None = None

    async def serve(self, app: ASGIApp, receive: Receive, send: Send) -> None:
        """Let the application answer, and end the reservation with its answer."""
        is_websocket = self._answer.request["type"] == "websocket"
        is_client_gone = False

        async def watch(message: Message) -> None:
            kind = message["type"]
            if kind == "http.response.start":
                headers = list(message.get("headers", ()))  # may be an iterator
                message = {**message, "headers": headers}
                self._answer.status = message["status"]
                self._answer.headers = {
                    name.decode("latin-1").lower(): value.decode("latin-1") for name, value in headers
                }
            await send(message)
            if kind in _CHUNKS:
                self._tail.add(message.get("body", b""))
            if kind == _WHOLE_FILE or (kind in _CHUNKS and not message.get("more_body")):
                self._answer.complete = True
                await self._end()

        async def listen() -> Message:
            nonlocal is_client_gone
            message = await receive()
            is_client_gone |= message["type"] == "http.disconnect"
            return message

        try:
            await app(self._answer.request, listen, watch)
            self._answer.complete |= is_websocket  # It has no last chunk.
        except Exception:  # a cancellation is no failure of the application, so it is not among these
            if self._answer.status is None and not is_websocket and not is_client_gone:
                self._answer.status = 500  # which the server answers, or a part of the framework around this
            raise
        finally:
            await self._end()

    async def _end(self) -> None:
        """End the reservation once. If this task is cancelled, it ends all the same.

        Starlette cancels a stream whose client has its last chunk. Then the second call waits for the end.
        """
        if self._ending is None:
            self._ending = asyncio.create_task(self._settle())
            _pending.add(self._ending)
            self._ending.add_done_callback(_pending.discard)
        await asyncio.shield(self._ending)

    async def _settle(self) -> None:
        self._answer.body = self._tail.read()
        usage = read_usage(self._rules.usage, self._answer)
        try:
            if usage is not None:
                await self._reservation.settle(usage)
        except RateLimitError as error:
            log_unsettled(error)
        await self._reservation.__aexit__()  # frees the slots, unless the reservation has been settled
