"""Log injection: whatever a client writes, a log line is one line, and says nothing that it should not."""

import json
import re
import secrets

import pytest

from ..processes import wait_until
from ..rls_client import run_rls_sidecar
from .wire import send_alone, send_in_turn, write_request

POLICY = """
default_plan: free
plans:
  free: {limits: {requests: {rate: 1/day}}}
"""
CONSOLE_LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z \[(info|warning|error) *\] \S.*")
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e]")
FORGED = "2026-01-01T00:00:00.000000Z [error    ] forged"
CONTROLS = ["\r\nforged", "\nforged", "\x1b[2J\x1b[31mforged", "\x00forged", "\u2028forged", f"\n{FORGED}"]
CONTROLS += ["\u202eforged", "\x9b31mforged", "\x08\x08forged"]
QUOTES = ['" forged="', "'forged", '\\", "forged": "', "{forged}", "%(forged)s", "$(forged)", "%0d%0aforged"]
EVIL = [*CONTROLS, *QUOTES]


def write_headers(text):
    """Return requests with a text in every place where a client can write."""
    raw = text.encode("latin-1", "replace")
    fields = ("Key", "Model", "Tenant", "Plan", "Request-Id", "Cost", "Timestamp", "Reserve")
    names = [f"X-RateLimit-{field}".encode() for field in fields]
    for name in (*names, b"User-Agent", b"X-Forwarded-For", b"traceparent"):
        keys = [] if name == b"X-RateLimit-Key" else [b"X-RateLimit-Key: vk_log_line_of_headers"]
        yield write_request("GET", "/v1/authorize", *keys, name + b": " + raw)
    yield write_request("GET", "/" + text.encode().hex(), raw)
    path = "/v1/authorize" + text.replace("\r", "").replace("\n", "")
    yield write_request("GET", path, b"X-RateLimit-Key: vk_log_line_of_path")


def write_bodies(text):
    for field in ("key", "model", "tenant", "plan", "request_id", "timestamp", text):
        body = json.dumps({"key": "vk_log_line_of_bodies", field: text}).encode()
        yield write_request("POST", "/v1/check", body=body)
        yield write_request("POST", "/v1/settle", body=body)


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_p10_a_log_line_is_one_line_without_control_characters_keys_or_secrets(log_format, valkey_url):
    keys = [f"vk_{secrets.token_hex(12)}" for _ in range(12)]
    secret = f"sk-{secrets.token_hex(12)}"
    flags = ["--redis", valkey_url, "--log-format", log_format, "--key-pepper", "a-pepper-for-tests"]
    with run_rls_sidecar(*flags, policy=POLICY) as (sidecar, service, _):
        banner = len(sidecar.output)
        for key in keys:  # each is denied once, which is logged
            for request_id in ('a"b', "a'b\\n"):
                sidecar.check(key, request_id=request_id, model="m=x", tenant=f"{key}[0m")
                sidecar.check(key, model='"forged":1')
        sidecar.client.get("/v1/authorize", headers={"Authorization": f"Bearer {secret}"})
        sidecar.client.get("/v1/authorize", headers={"Authorization": f"Bearer {secret}"})
        messages = [request for text in EVIL for request in (*write_headers(text), *write_bodies(text))]
        statuses = [status for status, _ in send_in_turn(sidecar.port, messages)]
        send_alone(sidecar.port, *(text.encode() + b"\r\n\r\n" for text in EVIL))
        for text in EVIL:
            service.ask({"key": "vk_log", "model": text}, domain=text)
        wait_until(lambda: "denied" in sidecar.output)
        printed = sidecar.output[banner:]
    lines = printed.split("\n")[:-1]
    assert len(lines) > 12
    for line in lines:
        assert not CONTROL.search(line), line
        if log_format == "json":
            assert {"timestamp", "severity_text", "body"} <= json.loads(line).keys()
            assert "forged" not in json.loads(line)
        else:
            assert CONSOLE_LINE.fullmatch(line), line
            assert " forged=" not in line
    assert not [key for key in (*keys, secret, "vk_log_line_of") if key in printed]
    print(f"{log_format}: {len(statuses)} requests, {len(lines)} log lines, each one line")  # noqa: T201 - figures


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_a_policy_with_control_characters_in_its_names_is_refused_on_single_lines(log_format, valkey_url):
    """Whoever writes the policy may not be who reads the log."""
    with run_rls_sidecar("--redis", valkey_url, "--log-format", log_format, policy=POLICY) as (sidecar, _, _):
        banner = len(sidecar.output)
        names = "".join(f"    {json.dumps(name)}: 1\n" for name in CONTROLS)
        sidecar.policy_file.write_text(f"default_plan: free\nplans:\n  free:\n{names}")
        wait_until(lambda: sidecar.output.count("policy refused") >= len(CONTROLS))
        printed = sidecar.output[banner:]
    for line in printed.split("\n")[:-1]:
        assert not CONTROL.search(line), line
        assert line.startswith("{") if log_format == "json" else CONSOLE_LINE.fullmatch(line), line
