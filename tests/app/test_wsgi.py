"""The WSGI middleware: Flask and Django by their test clients, a real server, and reservations."""

import contextlib
import threading
from wsgiref.simple_server import WSGIRequestHandler, make_server

import django
import httpx
import pytest
from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpResponse
from django.urls import path
from flask import Flask, Response, request, stream_with_context
from werkzeug.test import Client

from ratelimit import AsyncLimiter, InvalidRequest, Limit, Usage
from ratelimit.wsgi import RateLimitMiddleware

from .requests import KEYED, METERED, SECRET, THREE, WITH_ANONYMOUS, find_key, read_left

ESTIMATE = {"key": find_key, "cost": {"tokens": 100}, "reserve": True}


def show(request):
    return HttpResponse(request.META["ratelimit.decision"].plan)


urlpatterns = [path("", show)]


def make_flask():
    app = Flask(__name__)

    @app.get("/")
    def index():
        return request.environ["ratelimit.decision"].plan

    return app.wsgi_app


def make_django():
    if not settings.configured:
        settings.configure(ROOT_URLCONF=__name__, SECRET_KEY="x", ALLOWED_HOSTS=["*"], USE_TZ=True)
        django.setup()
    return WSGIHandler()


@pytest.mark.parametrize("make_app", [make_flask, make_django])
def test_a_framework_serves_behind_it(make_limits, make_app):
    client = Client(RateLimitMiddleware(make_app(), make_limits(THREE), **KEYED))
    *passed, denied = [client.get("/", headers=SECRET) for _ in range(4)]
    assert [answer.status_code for answer in passed] == [200] * 3
    assert passed[0].text == "default"
    assert passed[0].headers["RateLimit"].startswith('"requests";r=2')
    assert denied.status_code == 429
    assert denied.content_type == "application/problem+json"
    assert denied.json["violated-policies"] == ["requests"]
    assert "Retry-After" in denied.headers


def test_a_real_server_serves_behind_it(make_limits):
    class Quiet(WSGIRequestHandler):
        def log_message(self, *_):
            pass

    app = RateLimitMiddleware(make_flask(), make_limits(WITH_ANONYMOUS), **KEYED)
    with make_server("127.0.0.1", 0, app, handler_class=Quiet) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            address = f"http://127.0.0.1:{server.server_port}/"
            with httpx.Client(trust_env=False) as client:
                statuses = [client.get(address, headers=headers).status_code for headers in ({}, {}, SECRET)]
        finally:
            server.shutdown()
            thread.join()
    assert statuses == [200, 429, 200]


def test_an_outage_that_denies_is_a_503(make_limits, short_dir):
    limit = Limit("requests", "3/365d", on_outage="deny")
    limits = make_limits(limit, store=f"unix://{short_dir}/nothing-listens.sock")
    answer = Client(RateLimitMiddleware(make_flask(), limits, **KEYED)).get("/", headers=SECRET)
    assert answer.status_code == 503


def test_excluded_paths_and_requests_without_a_key(make_limits):
    client = Client(RateLimitMiddleware(make_flask(), make_limits(THREE), exclude=["/none"], **KEYED))
    assert client.get("/none").status_code == 404
    assert client.get("/").status_code == 401


def use_thirty(answer):
    return {"output_tokens": 30}


def serve(limits, app, read_chunks=list, **options):
    """Serve one request as a server does, which closes the answer whatever happens."""
    started = []
    chunks = RateLimitMiddleware(app, limits, **ESTIMATE, **options)(
        {"PATH_INFO": "/", "REMOTE_ADDR": "203.0.113.7"},
        lambda *start: started.append(start) or started.append,
    )
    try:
        return read_chunks(chunks)
    finally:
        if hasattr(chunks, "close"):
            chunks.close()


def answer(environ, start_response):
    start_response("200 OK", [("X-Tokens", "30")])
    yield b"a"
    yield b"b"


class BrokenAnswerError(Exception):
    pass


def fail_at_once(environ, start_response):
    raise BrokenAnswerError


def fail_halfway(environ, start_response):
    start_response("200 OK", [])
    yield b"a"
    raise BrokenAnswerError


def test_p6_the_usage_is_read_from_the_answer_once_and_settled(make_limits):
    limits, seen = make_limits(*METERED), []

    def read(answer):
        seen.append((answer.status, answer.headers["x-tokens"], answer.body, answer.complete))
        return Usage(output_tokens=30)

    assert serve(limits, answer, usage=read, body_tail=1) == [b"a", b"b"]
    assert seen == [(200, "30", b"b", True)]
    assert (read_left(limits), read_left(limits, "parallel")) == (970, 2)


def test_p7_without_usage_the_estimate_stays_charged_and_the_slot_is_freed(make_limits):
    limits = make_limits(*METERED)
    serve(limits, answer)
    assert (read_left(limits), read_left(limits, "parallel")) == (900, 2)


@pytest.mark.parametrize("app", [fail_at_once, fail_halfway])
@pytest.mark.parametrize(("usage", "left"), [(None, 900), (use_thirty, 970)])
def test_p7_an_error_settles_what_is_known(make_limits, app, usage, left):
    limits = make_limits(*METERED)
    with pytest.raises(BrokenAnswerError):
        serve(limits, app, usage=usage)
    assert (read_left(limits), read_left(limits, "parallel")) == (left, 2)


def test_p7_a_client_that_goes_away_settles_what_is_known_once(make_limits):
    limits, seen = make_limits(*METERED), []

    def read(answer):
        seen.append(answer.complete)
        return {"output_tokens": 30}

    assert serve(limits, answer, next_chunk, usage=read) == b"a"
    assert (read_left(limits), read_left(limits, "parallel"), seen) == (970, 2, [False])


def next_chunk(chunks):
    return next(iter(chunks))


def test_ten_thousand_chunks_pass_one_by_one_as_they_come(make_limits):
    limits, made, lead = make_limits(*METERED), [], []

    def stream(environ, start_response):
        start_response("200 OK", [])
        for number in range(10_000):
            made.append(number)
            yield b"%04d" % number

    def read_chunks(chunks):
        received = []
        for chunk in chunks:
            received.append(chunk)
            lead.append(len(made) - len(received))
        return received

    assert serve(limits, stream, read_chunks, usage=use_thirty) == [b"%04d" % n for n in range(10_000)]
    assert set(lead) == {0}
    assert read_left(limits) == 970


def test_flask_streams_and_settles_what_the_endpoint_stored(make_limits):
    limits, app = make_limits(*METERED), Flask(__name__)

    @app.get("/")
    def stream():
        def chunks():
            yield from "abc"
            request.environ["app.used"] = 30

        return Response(stream_with_context(chunks()))

    def read(answer):
        return {"output_tokens": answer.request["app.used"]}

    client = Client(RateLimitMiddleware(app.wsgi_app, limits, **ESTIMATE, usage=read))
    assert client.get("/", buffered=True).text == "abc"
    assert read_left(limits) == 970


def test_a_wrong_option_says_what_is_allowed(make_limits, url):
    with pytest.raises(TypeError, match="did you mean 'exclude'"):
        RateLimitMiddleware(answer, make_limits(THREE), excludes=[], **KEYED)
    with pytest.raises(InvalidRequest, match=r"needs an? Limiter, not AsyncLimiter"):
        RateLimitMiddleware(answer, AsyncLimiter(url, THREE), **KEYED)


def write_only(environ, start_response):
    write = start_response("200 OK", [])
    write(b"written")
    return []


def start_and_fail(environ, start_response):
    start_response("200 OK", [])
    yield b""
    raise BrokenAnswerError


@pytest.mark.parametrize(
    ("app", "status", "charged"),
    [(fail_at_once, 500, 1), (start_and_fail, 500, 1), (fail_halfway, 200, 0), (write_only, 200, 0)],
)
def test_p7_an_error_before_the_answer_counts_as_a_500(make_limits, app, status, charged):
    limits, seen = make_limits(*METERED, Limit("failures", "2/365d", unit="failures")), []

    def read(answer):
        seen.append(answer.status)
        return Usage()

    with contextlib.suppress(BrokenAnswerError):
        serve(limits, app, usage=read)
    assert (seen, read_left(limits, "failures")) == ([status], 2 - charged)


def test_what_an_application_writes_belongs_to_the_body(make_limits):
    seen = []

    def read(answer):
        seen.append(answer.body)

    limits = make_limits(*METERED)
    RateLimitMiddleware(write_only, limits, **ESTIMATE, usage=read, body_tail=100)(
        {"PATH_INFO": "/", "REMOTE_ADDR": "203.0.113.7"}, lambda *_: lambda _: None
    ).close()
    assert seen == [b"written"]


def test_a_denied_head_request_has_no_body(make_limits):
    client = Client(RateLimitMiddleware(make_flask(), make_limits(Limit("requests", "1/365d")), **KEYED))
    assert client.head("/", headers=SECRET).status_code == 200
    denied = client.head("/", headers=SECRET)
    assert (denied.status_code, denied.data) == (429, b"")
    assert int(denied.headers["Content-Length"]) > 0
