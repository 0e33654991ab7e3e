"""Makes requests each of which must be refused, the same ones in every run."""

import json
import random

from .bad_values import (
    BAD_HEADERS,
    BAD_NUMBERS,
    BAD_TIMES,
    BAD_VALUES,
    BROKEN_UTF8,
    NO_HTTP,
    NO_JSON,
    UNKNOWN_FIELDS,
)
from .conftest import ADMIN_LINE, TOKEN_LINE
from .wire import write_request


class BadRequests:
    """Makes requests of each kind, all with the gateway token unless the kind is about it."""

    def __init__(self, seed):
        self._random = random.Random(seed)
        self._number = 0

    def make(self, kind):
        """Return the bytes of one request of a kind."""
        self._number += 1
        return getattr(self, f"_make_{kind}")()

    def _choose(self, *options):
        return self._random.choice(options)

    def _make_key(self):
        return f"vk_bad_{self._number}"

    def _post(self, path, body, *headers):
        content = (
            body
            if isinstance(body, bytes)
            else json.dumps(body, ensure_ascii=self._random.random() < 0.5).encode()
        )
        types = [
            b"Content-Type: " + kind
            for kind in (b"application/json", b"text/plain", b"application/xml", b"x")
        ]
        return write_request(
            "POST",
            path,
            TOKEN_LINE,
            *headers,
            *self._choose([], types[:1], types[1:2], types[2:]),
            body=content,
        )

    def _break_json(self, fields):
        """Return what no longer is the JSON of these fields."""
        text = json.dumps(fields).encode()
        position = self._random.randrange(1, len(text) - 1)
        return self._choose(
            text[:position],
            text + self._choose(b"x", b"}", b",{}", b"\x00", b"\xff"),
            text.replace(b"vk_", b"vk_" + self._choose(*BROKEN_UTF8)),
            text.replace(b'"key"', self._choose(b"key", b"'key'", b'"key', b'"k\ney"')),
            self._choose(*NO_JSON),
        )

    def _spoil_check(self):
        """Return a check with one fault."""
        fields = {"key": self._make_key(), "cost": {"tokens": 1}}
        spoil = self._random.randrange(6)
        if spoil == 0:
            fields["key"] = self._choose(None, *BAD_VALUES)
        elif spoil == 1:
            fields[self._choose("plan", "model", "tenant", "request_id")] = self._choose(*BAD_VALUES)
        elif spoil == 2:
            fields[self._choose(*UNKNOWN_FIELDS)] = self._choose(*BAD_VALUES)
        elif spoil == 3:
            fields["timestamp"] = self._choose(*BAD_TIMES)
        elif spoil == 4:
            fields["cost"] = self._choose(
                5,
                "tokens",
                [1],
                {"bananas": 1},
                {"": 1},
                {"concurrent": 1},
                {"failures": 1},
                {"to\x00kens": 1},
            )
        else:
            fields["reserve"] = self._choose(1, "true", "?1", [], {})
        return fields

    def _spoil_number(self, path, fields):
        template = json.dumps(fields)
        return self._post(path, template.replace("4711", self._choose(*BAD_NUMBERS)).encode())

    def _make_check(self):
        spoil = self._random.randrange(3)
        if spoil == 0:
            return self._spoil_number("/v1/check", {"key": self._make_key(), "cost": {"tokens": 4711}})
        if spoil == 1:
            return self._post("/v1/check", self._break_json({"key": self._make_key(), "cost": {"tokens": 1}}))
        return self._post("/v1/check", self._spoil_check())

    def _make_batch(self):
        checks = [{"key": self._make_key()} for _ in range(self._random.randrange(4))]
        checks.insert(self._random.randrange(len(checks) + 1), self._spoil_check())
        body = self._choose(checks, checks, checks, {"checks": checks}, [checks], [{"key": "vk_many"}] * 257)
        return self._post(
            "/v1/check/batch", self._break_json(checks) if self._random.random() < 0.2 else body
        )

    def _make_settle(self):
        fields = {"key": self._make_key(), "input_tokens": 1}
        spoil = self._random.randrange(5)
        if spoil == 0:
            name = self._choose("input_tokens", "output_tokens", "latency_ms", "status")
            return self._spoil_number("/v1/settle", {"key": self._make_key(), name: 4711})
        if spoil == 1:
            return self._post("/v1/settle", self._break_json(fields))
        if spoil == 2:
            fields[self._choose(*UNKNOWN_FIELDS)] = self._choose(*BAD_VALUES)
        elif spoil == 3:
            fields["status"] = self._choose(0, 99, 600, -200, "200", 200.5)
        else:
            fields = {"reservation": self._make_reservation(), "input_tokens": 1}
        return self._post("/v1/settle", fields)

    def _make_reservation(self):
        """Return what is no reservation's id, or one that nobody made."""
        token = "".join(self._random.choices("abcXYZ019-_", k=16))
        return self._choose(
            f"{token}.dmtfYQ", f"{token}.", token, "." * 40, f"{token}.!!!!", f"{token}.dmtfYQ==", "x" * 513
        )

    def _make_cancel(self):
        return write_request("DELETE", f"/v1/reservations/{self._make_reservation()}", TOKEN_LINE)

    def _make_authorize(self):
        header = self._choose(*BAD_HEADERS)
        keys = [] if b"-Key" in header or b"Authorization" in header else [b"X-RateLimit-Key: vk_bad"]
        path = self._choose("/v1/authorize", "/v1/authorize/v1/chat", "/v1/authorize/%00/..//x?y=%ff")
        return write_request(
            self._choose("GET", "POST", "DELETE", "OPTIONS"), path, TOKEN_LINE, *keys, header
        )

    def _make_token(self):
        """Return a valid request without the right token."""
        token = self._choose(
            [],
            [
                b"X-RateLimit-Gateway-Token: "
                + self._choose(b"x", b"", b"\xff", TOKEN_LINE[27:-1], b"x" * 9_000)
            ],
        )
        if self._random.random() < 0.5:
            return write_request("GET", "/v1/authorize", b"X-RateLimit-Key: vk_bad", *token)
        body = json.dumps({"key": self._make_key()}).encode()
        path = self._choose("/v1/check", "/v1/settle")
        return write_request("POST", path, *token, body=body)

    def _make_operator(self):
        """Return an operator's request without the right token, or with a wrong body."""
        path = f"/v1/{self._choose('keys', 'tenants')}/{self._make_key()}"
        if self._random.random() < 0.5:
            wrong = self._choose(
                b"Bearer x",
                b"Basic x",
                b"Bearer",
                b"",
                b"Bearer \xff",
                ADMIN_LINE[15:-1],
                b"Bearer " + TOKEN_LINE[27:],
            )
            return write_request(
                "PUT", path, b"Authorization: " + wrong, TOKEN_LINE, body=b'{"plan":"crowd"}'
            )
        body = self._choose(
            {"plan": "gold"},
            {"plan": 1},
            {"x": 1},
            [],
            "free",
            {"plan": "a\x00"},
            {"blocked": "yes"},
            *NO_JSON,
        )
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return write_request("PUT", path, ADMIN_LINE, body=content)

    def _make_path(self):
        path = self._choose(
            "/",
            "/v1",
            "/v1/nothing",
            "//v1/check",
            "/v1/check%00",
            "/v1/%63heck/..",
            "/../etc/passwd",
            "/V1/CHECK",
        )
        return write_request(
            self._choose("GET", "POST", "PUT", "DELETE"), path, TOKEN_LINE, body=b'{"key":"vk_bad"}'
        )

    def _make_http(self):
        return self._choose(*NO_HTTP)

    def _make_size(self):
        body = b" " * self._choose(65_537, 70_000, 100_000)
        return self._post(self._choose("/v1/check", "/v1/check/batch", "/v1/settle"), body)
