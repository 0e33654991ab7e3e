"""A gateway of any kind with a client, and what holds of every one of them."""

import math
import time
from contextlib import contextmanager

import httpx
import pytest

from .gateways import GATEWAYS

BURST = 5  # of the plans `free` and `anonymous` of the starter policy
FREE_RATE = 20 / 60  # that of `anonymous` is lower

CLAIMS = {
    "X-RateLimit-Key": "vk_claimed",
    "X-RateLimit-Plan": "pro",
    "X-RateLimit-Model": "claimed",
    "X-RateLimit-Tenant": "claimed",
    "X-RateLimit-Cost": "requests=0",
    "X-RateLimit-Timestamp": "1",
    "X-RateLimit-Reserve": "?1",
    "X-RateLimit-Reservation": "claimed",
    "X-RateLimit-Request-Id": "claimed",
    "X-RateLimit-Outcome": "claimed",
    "X-RateLimit-Gateway-Token": "claimed",
}
"""What a client may try to decide itself."""


class Gateway:
    """A running gateway: its URL, a client, and the API behind it."""

    def __init__(self, url, client, upstream):
        self.url, self.client, self.upstream = url, client, upstream

    def send_request(self, method="GET", path="/", **options):
        return self.client.request(method, path, **options)

    def get_answer(self, method="GET", path="/", **options):
        """Send a request again until the gateway got the sidecar's answer in time.

        A gateway waits 100 ms, and a busy machine can stall for longer.
        """
        for _ in range(50):
            self.upstream.requests.clear()
            answer = self.send_request(method, path, **options)
            if answer.status_code < 500 and not find_unchecked(self.upstream):
                return answer
        pytest.fail(f"the gateway got no answer of the sidecar in time, 50 times; the last: {answer}")

    def get_refusal(self):
        """Send a request again until it does not reach the API, for the same reason; give the answer."""
        for _ in range(50):
            self.upstream.requests.clear()
            answer = self.send_request()
            if not self.upstream.requests:
                return answer
        pytest.fail("the request reached the API 50 times")


def find_unchecked(upstream):
    """Return the requests that reached the API without a check: no sidecar said whose they are."""
    return [request for request in upstream.requests if "X-RateLimit-Key" not in request.headers]


@contextmanager
def run_gateway(name, sidecar_port, upstream, folder):
    """Run the gateway until the end of the block, in front of the API and of a sidecar on a given port."""
    with (
        GATEWAYS[name](sidecar_port, upstream.port, folder) as url,
        httpx.Client(base_url=url, trust_env=False, timeout=20) as client,
    ):
        yield Gateway(url, client, upstream)


def bearer(secret):
    return {"Authorization": f"Bearer {secret}"}


def send_50_of_which_the_burst_passes(send_request, upstream):
    """Send 50 requests, expect that the burst of 5 passes and no more, and return the last answer.

    Where the gateway gave up waiting, nobody knows whether the check was charged; and the bucket refills.
    """
    upstream.requests.clear()
    started = time.monotonic()
    answers = [send_request() for _ in range(50)]
    refilled = math.floor(FREE_RATE * (time.monotonic() - started) + 1e-3)
    unanswered = len(find_unchecked(upstream)) + sum(answer.status_code >= 500 for answer in answers)
    passed = len(upstream.requests) - len(find_unchecked(upstream))
    assert BURST - unanswered <= passed <= BURST + refilled
    assert unanswered < 10
    denied = [answer for answer in answers if answer.status_code == 429]
    assert len(denied) == 50 - passed - unanswered
    return denied[-1]
