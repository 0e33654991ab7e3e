"""`ShouldRateLimit`: the one method of Envoy's rate-limit service (envoy.service.ratelimit.v3)."""

from __future__ import annotations

import asyncio
import dataclasses
import hmac
from typing import TYPE_CHECKING, Any

import grpc
import structlog
from envoy.service.ratelimit.v3.rls_pb2 import RateLimitRequest
from google.protobuf.message import DecodeError

from ratelimit import StoreUnavailable
from ratelimit.web.problems import Problem
from service.problems import REFUSALS
from service.rls import answers
from service.rls.charges import Charge, read_charges
from service.rls.spans import start_span
from service.rls.turns import Turns
from service.tokens import GATEWAY_HEADER

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ratelimit import AsyncLimiter, Decision
    from service.sidecar import Sidecar

log = structlog.get_logger("ratelimit")

_TOKEN_KEY = GATEWAY_HEADER.lower()


class RateLimitService:
    """Answers Envoy by the sidecar's limiter.

    Args:
        sidecar: the sidecar that this service belongs to.
    """

    def __init__(self, sidecar: Sidecar) -> None:
        self._sidecar = sidecar
        self._domains = frozenset(sidecar.settings.grpc_domains)
        self._turns = Turns()
        self._token = sidecar.settings.gateway_token

    async def handle(self, message: bytes, context: grpc.aio.ServicerContext) -> bytes:
        """Answer `ShouldRateLimit`, in protobuf's wire format: decide a request, or settle one that is over.

        A gRPC error is raised only for what no client can cause: UNAUTHENTICATED for a wrong gateway token,
        UNAVAILABLE if the store does not answer a settlement, whose outcome is then unknown, and INTERNAL
        for a bug.
        """
        if self._token is not None and not self._has_token(context):
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, f"{_TOKEN_KEY} is missing or wrong")
        try:
            with start_span(context.invocation_metadata()):
                return await self._answer(message)
        except StoreUnavailable as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
        except Exception as error:
            log.exception("a bug in the rate-limit service", exc_info=error)
            await context.abort(grpc.StatusCode.INTERNAL, "the sidecar has a bug; see its log")
        raise AssertionError("abort does not return")

    async def _answer(self, message: bytes) -> bytes:
        try:
            request = RateLimitRequest.FromString(message)
        except DecodeError:
            # A client can cause this, too: Envoy forwards a header that is not UTF-8 as it is.
            self._sidecar.limiter.note_invalid_check()
            error = Problem(400, "the request is not protobuf, or one of its texts is not UTF-8")
            return answers.make_refusal(0, error)
        count = len(request.descriptors)
        if self._domains and request.domain not in self._domains:
            self._sidecar.metrics.count_unlimited_request("unknown-domain")
            return answers.make_response(count, {})
        try:
            charges = read_charges(request, self._sidecar)
        except REFUSALS as error:
            self._sidecar.limiter.note_invalid_check()
            return answers.make_refusal(count, error)
        if sum(len(charge.units) for charge in charges) < count:
            self._sidecar.metrics.count_unlimited_request("no-key")
        try:
            await self._turns.wait()
            return await self._charge(count, charges)
        except REFUSALS as error:
            return answers.make_refusal(count, error)

    def _has_token(self, context: grpc.aio.ServicerContext) -> bool:
        expected = self._token.get_secret_value().encode() if self._token else b""
        sent = [value for name, value in context.invocation_metadata() or () if name == _TOKEN_KEY]
        return any(
            hmac.compare_digest(value.encode() if isinstance(value, str) else value, expected)
            for value in sent
        )

    async def _charge(self, count: int, charges: list[Charge]) -> bytes:
        limiter = self._sidecar.limiter
        statuses: dict[int, Any] = {}
        checks = [charge for charge in charges if not charge.settles]
        if len(charges) > 1:  # a settlement that is refused must not leave the others charged
            await asyncio.gather(*(_look(limiter, charge) for charge in charges if charge.settles))
        decisions = await _decide(limiter, checks)
        for charge, decision in zip(checks, decisions, strict=True):
            statuses |= answers.make_statuses(charge, decision)
        for charge in charges:
            if charge.settles:
                statuses |= await _settle(limiter, charge)
        if not decisions:
            return answers.make_response(count, statuses)
        key, shown = checks[0].key, next((one for one in decisions if not one), decisions[0])
        return answers.make_response(count, statuses, shown, self._sidecar.make_headers(shown), key)


async def _settle(limiter: AsyncLimiter, charge: Charge) -> dict[int, Any]:
    """Charge what was used, even past zero."""
    if charge.only_looks:
        return answers.make_settled_statuses(charge, ())
    settlement = await limiter.settle({"key": charge.key, "cost": charge.cost, **charge.fields})
    return answers.make_settled_statuses(charge, settlement.limits)


async def _decide(limiter: AsyncLimiter, charges: Sequence[Charge]) -> list[Decision]:
    """Decide all charges of a request. If one is denied, none of them takes anything."""
    if len(charges) == 1:
        return [await _decide_alone(limiter, charges[0])]
    looks = [charge for charge in charges if charge.only_looks]
    looked = await asyncio.gather(*(_look(limiter, charge) for charge in looks))
    takes = [charge for charge in charges if not charge.only_looks]
    if all(looked):
        taken = await _take_together(limiter, takes)
    else:
        taken = await asyncio.gather(*(_look(limiter, charge) for charge in takes))
    found = {
        id(charge): decision for charge, decision in zip([*looks, *takes], [*looked, *taken], strict=True)
    }
    return [found[id(charge)] for charge in charges]


async def _decide_alone(limiter: AsyncLimiter, charge: Charge) -> Decision:
    if charge.only_looks:
        return await _look(limiter, charge)
    return await limiter.check(charge.key, **charge.fields, cost=_cost_of(charge))


async def _look(limiter: AsyncLimiter, charge: Charge) -> Decision:
    """Decide without taking anything. An addend of 0 looks whether there is at least 1 left."""
    cost = {unit: amount or 1 for unit, amount in charge.cost.items()}
    return await limiter.peek(charge.key, **charge.fields, cost={"requests": 0, **cost})


async def _take_together(limiter: AsyncLimiter, charges: Sequence[Charge]) -> list[Decision]:
    """Decide charges of different keys or plans; if one is denied, the others get back what they took."""
    if not charges:
        return []
    checks = [
        {"key": charge.key, "cost": _cost_of(charge), "reserve": True, **charge.fields} for charge in charges
    ]
    decisions = await limiter.check_many(checks)
    # A reservation that is released keeps its cost charged, and a cancelled one is refunded.
    end = limiter.release if all(decisions) else limiter.cancel
    reservations = [decision.reservation for decision in decisions if decision.reservation]
    # If the store stops answering now, the cost stays charged.
    await asyncio.gather(*map(end, reservations), return_exceptions=True)
    return [dataclasses.replace(decision, reservation=None) for decision in decisions]


def _cost_of(charge: Charge) -> dict[str, float]:
    """Return the cost of a check, which takes a request only where a descriptor counts requests."""
    return charge.cost if "requests" in charge.cost else {"requests": 0, **charge.cost}
