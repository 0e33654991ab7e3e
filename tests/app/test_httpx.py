"""The httpx transports: they wait for the limiter and for the server, and repeat only what is safe."""

import asyncio
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import pytest

from ratelimit import InvalidRequest, Limit, RateLimited
from ratelimit.httpx import AsyncRateLimitTransport, RateLimitTransport

from .requests import THREE, read_left

MANY = Limit("requests", "100/365d")
KINDS = ("threads", "asyncio")


class Api:
    """An API that answers in turn as it is told to, then with 200.

    Attributes:
        requests: what it was asked.
        waits: how long the transport waited, in seconds; nobody waits in these tests.
    """

    def __init__(self, monkeypatch, open_limiter, make_limits):
        self._open_limiter, self._make_limits = open_limiter, make_limits
        self.requests, self.waits, self._answers = [], [], []

        async def sleep(seconds):
            self.waits.append(seconds)

        monkeypatch.setattr("ratelimit.httpx.time", type("Time", (), {"sleep": self.waits.append}))
        monkeypatch.setattr("ratelimit.httpx.asyncio", type("Asyncio", (), {"sleep": staticmethod(sleep)}))

    def answer(self, request):
        self.requests.append(request)
        status, headers = self._answers.pop(0) if self._answers else (200, {})
        return httpx.Response(status, headers=headers)

    def ask(self, kind, *requests, answers=(), limit=MANY, **options):
        """Send requests through a transport; return the statuses of their answers."""
        self._answers = list(answers)
        options = {"key": "the-api", **options}
        mock = httpx.MockTransport(self.answer)
        if kind == "threads":
            transport = RateLimitTransport(self._make_limits(limit), mock, **options)
            with httpx.Client(transport=transport, base_url="http://api.test") as client:
                return [client.request(*request[:2], **dict(request[2:])).status_code for request in requests]

        async def run():
            async with self._open_limiter(limit) as limiter:
                transport = AsyncRateLimitTransport(limiter, mock, **options)
                async with httpx.AsyncClient(transport=transport, base_url="http://api.test") as client:
                    sent = [await client.request(*one[:2], **dict(one[2:])) for one in requests]
                    return [answer.status_code for answer in sent]

        return asyncio.run(run())


@pytest.fixture
def api(monkeypatch, open_limiter, make_limits):
    return Api(monkeypatch, open_limiter, make_limits)


GET = ("GET", "/models")
POST = ("POST", "/chat", ("json", {"prompt": "hello"}))


@pytest.mark.parametrize("kind", KINDS)
def test_it_waits_for_the_limiter(api, kind):
    quick = Limit("requests", "100/second", burst=1)
    assert api.ask(kind, GET, GET, limit=quick) == [200, 200]
    assert api.waits == []  # acquire has waited


@pytest.mark.parametrize("kind", KINDS)
def test_a_request_that_is_never_admitted_is_not_sent(api, kind):
    with pytest.raises(RateLimited):
        api.ask(kind, *[GET] * 4, limit=THREE, timeout=1)
    assert len(api.requests) == 3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("request_", [GET, POST])
def test_any_method_is_sent_again_after_a_429(api, kind, request_):
    assert api.ask(kind, request_, answers=[(429, {"Retry-After": "7"})]) == [200]
    assert api.waits == [7]
    assert len({request.content for request in api.requests}) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_after_a_503_only_an_idempotent_method_is_sent_again(api, kind):
    unavailable = (503, {"Retry-After": "7"})
    assert api.ask(kind, GET, answers=[unavailable]) == [200]
    assert api.ask(kind, POST, answers=[unavailable]) == [503]
    assert api.waits == [7]


@pytest.mark.parametrize("kind", KINDS)
def test_every_request_that_is_sent_is_charged(api, kind, make_limits):
    api.ask(kind, GET, answers=[(429, {"Retry-After": "1"})] * 2)
    assert read_left(make_limits(MANY), "requests", "the-api") == 97


@pytest.mark.parametrize("kind", KINDS)
def test_the_last_answer_is_returned_after_so_many_retries(api, kind):
    assert api.ask(kind, GET, answers=[(429, {"Retry-After": "1"})] * 9, retries=4) == [429]
    assert len(api.requests) == 5
    assert api.ask(kind, GET, answers=[(429, {"Retry-After": "1"})], retries=0) == [429]


@pytest.mark.parametrize("retry_after", ["", "soon", "61", "-1"])
def test_an_answer_that_says_no_wait_to_obey_is_returned(api, retry_after):
    headers = {"Retry-After": retry_after} if retry_after else {}
    assert api.ask("threads", GET, answers=[(429, headers)]) == [429]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "date",
    [
        "Mon, 01 Jan 99999999999 00:00:00 GMT",
        "Mon, 01 Jan 2035 99999999999:00:00 GMT",
        "Mon, 01 Jan 2035 00:00:00 +99999999999999",
        "Mon, 01 Jan 2035 00:00:00 +9999",
    ],
)
def test_an_answer_with_an_impossible_date_is_returned_and_can_be_closed(
    open_limiter, make_limits, kind, date
):
    ended = []

    class Body(httpx.SyncByteStream, httpx.AsyncByteStream):
        def __iter__(self):
            yield b""

        async def __aiter__(self):
            yield b""

        def close(self):
            ended.append("closed")

        async def aclose(self):
            ended.append("closed")

    def answer(_request):
        return httpx.Response(429, headers={"Retry-After": date}, stream=Body())

    def ask():
        transport = RateLimitTransport(make_limits(MANY), httpx.MockTransport(answer), key="k")
        response = transport.handle_request(httpx.Request("GET", "http://api.test"))
        assert (response.status_code, ended) == (429, [])
        response.close()

    async def ask_async():
        async with open_limiter(MANY) as limiter:
            transport = AsyncRateLimitTransport(limiter, httpx.MockTransport(answer), key="k")
            response = await transport.handle_async_request(httpx.Request("GET", "http://api.test"))
            assert (response.status_code, ended) == (429, [])
            await response.aclose()

    ask() if kind == "threads" else asyncio.run(ask_async())
    assert ended == ["closed"]


def test_a_wait_may_be_a_date(api):
    when = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    past = format_datetime(datetime.now(UTC) - timedelta(seconds=30), usegmt=True)
    assert api.ask("threads", GET, answers=[(429, {"Retry-After": at}) for at in (when, past)]) == [200]
    assert 0 < api.waits[0] <= 30
    assert api.waits[1] == 0


def test_a_body_that_is_a_stream_is_not_sent_twice(api, make_limits):
    class Denying(httpx.BaseTransport):
        def handle_request(self, _request):
            return httpx.Response(429, headers={"Retry-After": "1"})

    transport = RateLimitTransport(make_limits(MANY), Denying(), key="k")
    with httpx.Client(transport=transport) as client:
        assert client.post("http://api.test", content=iter([b"a", b"b"])).status_code == 429
    assert api.waits == []


def test_functions_of_the_request_say_key_cost_and_model(api, make_limits):
    tokens = Limit("tokens", "100/365d", unit="tokens")
    options = {
        "key": lambda request: request.url.host,
        "cost": lambda request: {"tokens": len(request.content)},
        "model": lambda _: "small",
    }
    api.ask("threads", ("POST", "/", ("content", b"x" * 30)), limit=tokens, **options)
    assert read_left(make_limits(tokens), key="api.test") == 70


@pytest.mark.parametrize(
    ("options", "error", "told"),
    [
        ({"key": 7}, InvalidRequest, "key: must be a text"),
        ({"key": "k", "retry": 7}, TypeError, "allowed: cost, plan, model, timeout, retries, max_wait"),
        ({"key": "k", "retries": 101}, InvalidRequest, "from 0 to 100"),
        ({"key": "k", "max_wait": -1}, InvalidRequest, "max_wait: must be 0 seconds or more"),
        ({"key": "k", "timeout": -1}, InvalidRequest, "timeout: must be 0 seconds or more"),
        ({"key": "k", "cost": 7}, InvalidRequest, "cost: must be amounts by unit"),
        ({"key": "k", "model": "m"}, InvalidRequest, "model: must be a function"),
    ],
)
def test_a_wrong_option_says_what_is_allowed(make_limits, options, error, told):
    with pytest.raises(error) as caught:
        RateLimitTransport(make_limits(THREE), **options)
    assert told in str(caught.value)


def test_a_limiter_of_the_other_kind_is_refused(make_limits):
    with pytest.raises(InvalidRequest, match="needs an AsyncLimiter, not Limiter"):
        AsyncRateLimitTransport(make_limits(THREE), key="k")
