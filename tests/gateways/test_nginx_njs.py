"""The shipped configuration of nginx with njs: what it settles after a response."""

import json
import subprocess
import threading

import pytest

from ..processes import wait_until
from .common import PROBLEM, GatewayTests, bearer
from .run_nginx import build_nginx_command
from .run_nginx_njs import EXAMPLE, run_nginx_njs

JSON = {"Content-Type": "application/json; charset=utf-8"}
EVENTS = {"Content-Type": "text/event-stream"}
TEXT = "a very private completion: жжж"


def build_completion(usage, text=TEXT):
    """Return the JSON body of a completion."""
    return json.dumps(
        {"choices": [{"message": {"content": text}}], "usage": usage}, ensure_ascii=False
    ).encode()


def build_events(*usages):
    """Return the events of a streamed completion, one for each usage."""
    events = [{"choices": [{"delta": {"content": TEXT}}], "usage": usage} for usage in usages]
    return (
        "".join(f"data: {json.dumps(event, ensure_ascii=False)}\n\n" for event in events).encode()
        + b"data: [DONE]\n\n"
    )


USAGE = {"prompt_tokens": 310, "completion_tokens": 502, "total_tokens": 812}
LIE = r'"usage": {"prompt_tokens": 1, "completion_tokens": 1}'


def cut(body, size):
    return [body[start : start + size] for start in range(0, len(body), size)]


class TestNginxNjs(GatewayTests):
    run_gateway = run_nginx_njs
    authorize_headers = frozenset({"x-ratelimit-reserve"})
    api_settles = False

    @pytest.mark.parametrize(
        ("headers", "body"),
        [
            (JSON, build_completion(USAGE)),
            (JSON, cut(build_completion(USAGE), 7)),
            (JSON, build_completion({"input_tokens": 310, "output_tokens": 502})),
            (JSON, build_completion(USAGE, LIE)),
            (JSON, build_completion(USAGE, "ж" * 300_000)),
            (EVENTS, [build_events(None, None, USAGE)]),
            (EVENTS, cut(build_events(None, {"prompt_tokens": 310, "completion_tokens": 1}, USAGE), 11)),
            (EVENTS, build_events(USAGE).split(b"data: [DONE]")[:1]),
        ],
        ids=["json", "in pieces", "other names", "text like a usage", "large", "stream", "cut", "no end"],
    )
    def test_what_the_api_says_is_settled_and_no_text_leaves_nginx(
        self, scripted, scripted_sidecar, upstream, headers, body
    ):
        scripted_sidecar.set_answer(200, {"X-RateLimit-Reservation": "r1"})
        upstream.set_answer(200, headers, body)
        answer = scripted.post("/v1/chat/completions", headers={"Accept-Encoding": "gzip"})
        assert answer.content == (body if isinstance(body, bytes) else b"".join(body))
        settlement = self.wait_for_settlement(scripted_sidecar)
        assert settlement.pop("latency_ms") >= 0
        assert settlement == {"reservation": "r1", "input_tokens": 310, "output_tokens": 502, "status": 200}
        assert "Accept-Encoding" not in upstream.requests[0].headers
        everything = str([(request.headers.raw, request.body) for request in scripted_sidecar.requests])
        assert "private" not in everything

    @pytest.mark.parametrize(
        ("status", "headers", "body"),
        [
            (500, JSON, b'{"error": "cut off'),
            (200, JSON, b'{"usage": {"prompt_tokens": "a secret", "completion_tokens": -1}}'),
            (200, JSON, b"[]"),
            (200, JSON, b"null"),
            (200, JSON, build_completion(USAGE, "x" * 1_200_000)),
            (200, {"Content-Type": "text/html"}, build_completion(USAGE)),
            (204, {}, b""),
        ],
        ids=["not json", "no counts", "a list", "null", "too large", "html", "empty"],
    )
    def test_where_the_usage_is_not_known_the_estimate_stays(
        self, scripted, scripted_sidecar, upstream, status, headers, body
    ):
        scripted_sidecar.set_answer(200, {"X-RateLimit-Reservation": "r1"})
        upstream.set_answer(status, headers, body)
        assert scripted.get("/").content == body
        settlement = self.wait_for_settlement(scripted_sidecar)
        assert set(settlement) == {"reservation", "status", "latency_ms"}
        assert settlement["status"] == status

    def test_a_client_that_leaves_in_the_middle_is_settled_with_its_estimate(
        self, scripted, scripted_sidecar, upstream
    ):
        client_left = threading.Event()

        def generate():
            yield build_events(None)
            client_left.wait(timeout=30)
            while True:
                yield b": ping\n\n" * 1000

        scripted_sidecar.set_answer(200, {"X-RateLimit-Reservation": "r1"})
        upstream.set_answer(200, EVENTS, generate())
        with scripted.stream("POST", "/v1/chat/completions") as answer:
            next(answer.iter_raw())
        client_left.set()
        settlement = self.wait_for_settlement(scripted_sidecar)
        assert set(settlement) == {"reservation", "status", "latency_ms"}

    def test_a_settlement_that_fails_is_sent_again(self, scripted, scripted_sidecar):
        scripted_sidecar.set_answer(200, {"X-RateLimit-Reservation": "r1"})
        scripted.get("/")
        scripted_sidecar.set_answer(503, PROBLEM)
        wait_until(lambda: len(self.read_settlements(scripted_sidecar)) >= 2)
        scripted_sidecar.set_answer(200)
        sent = len(self.read_settlements(scripted_sidecar))
        wait_until(lambda: len(self.read_settlements(scripted_sidecar)) > sent)
        scripted_sidecar.set_answer(200, {"X-RateLimit-Reservation": "r2"})
        scripted.get("/")
        wait_until(lambda: self.read_settlements(scripted_sidecar)[-1]["reservation"] == "r2")

    def test_a_denied_request_is_not_settled(self, scripted, scripted_sidecar, tmp_path):
        scripted_sidecar.set_answer(429, PROBLEM)
        scripted.get("/")
        log = tmp_path / "access.log"
        wait_until(log.read_text)
        assert json.loads(log.read_text())["settlement"] == ""

    def test_the_real_sidecar_charges_the_usage_instead_of_the_estimate(
        self, sidecar, client, upstream, api_key
    ):
        upstream.set_answer(
            200, JSON, build_completion({"prompt_tokens": 9_000, "completion_tokens": 11_000})
        )
        client.post("/v1/chat/completions", headers=bearer(api_key), content=b"x" * 400)
        key = upstream.requests[0].headers["X-RateLimit-Key"]

        def read_remaining():
            """Return what is left of the 30,000 tokens a minute."""
            limits = sidecar.check(key, cost={"requests": 0}).json()["limits"]
            return next(limit["remaining"] for limit in limits if limit["name"] == "tokens")

        wait_until(lambda: read_remaining() <= 20_000)

    def wait_for_settlement(self, scripted_sidecar):
        (settlement,) = wait_until(lambda: self.read_settlements(scripted_sidecar))
        return settlement

    @staticmethod
    def read_settlements(scripted_sidecar):
        return [json.loads(r.body) for r in scripted_sidecar.requests if r.path == "/v1/settle"]


def test_nginx_accepts_the_shipped_files_unchanged(tmp_path):
    command = build_nginx_command("-t", "-p", f"{tmp_path}/", "-c", str(EXAMPLE / "nginx.conf"))
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    assert "[warn]" not in checked.stderr
