"""A process that is killed while it settles: a settlement and its usage record are one step."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from ratelimit import Limiter, Usage

from .settling_process import TOKENS

KILLS = 200


@pytest.mark.parametrize("kind", ["valkey", "cluster"])
def test_p6_p7_each_settlement_that_took_effect_has_exactly_one_record(request, open_client, kind, report):
    url = request.getfixturevalue(f"{kind}_url")
    client = open_client(url)
    with Limiter(url, TOKENS, deadline=20) as limiter:
        for number in range(KILLS):  # so that every server has the script
            limiter.settle(Usage(key=f"vk-{number}", input_tokens=1))
        client.flushall()
        held = [limiter.reserve(f"vk-{number}", cost={"tokens": 20}).id for number in range(KILLS)]
        done = subprocess.run(
            [sys.executable, Path(__file__).with_name("settling_process.py"), url],
            input="\n".join(held),
            text=True,
            check=False,
            capture_output=True,
        )
        assert done.returncode == 0, done.stderr

        records = count_records(client)
        settled = [reservation for reservation in held if read_state(client, reservation) == "s"]
        assert records == Counter(settled)
        replayed = [
            limiter.settle(Usage(input_tokens=3, output_tokens=4), reservation=one).replayed for one in held
        ]
        assert sum(replayed) == len(settled) >= KILLS // 2
        assert count_records(client) == Counter(held)
    report(f"{kind}: {KILLS} killed, {len(settled)} settlements took effect, each with one record")


def count_records(client):
    return Counter(fields["reservation"] for _, fields in client.xrange("rl1:usage"))


def read_state(client, reservation):
    """Return the first letter of a reservation's record: o for open, s for settled."""
    [name] = client.keys(f"*:R:{reservation.partition('.')[0]}")
    return client.get(name)[0]
