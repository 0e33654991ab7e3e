"""The user of docs/operations/stores.md has every right that it needs, and needs every right that it has."""

import re
from pathlib import Path

import pytest

from ratelimit.engine.keyspace import ONE_SERVER

from .every_call import CALLS, RefusedError, prepare

TEXT = (Path(__file__).parents[2] / "docs" / "operations" / "stores.md").read_text()
[LINE] = re.findall(r"^ACL SETUSER ratelimit .*$", TEXT, re.MULTILINE)
WORDS = LINE.split()[3:]
RIGHTS = [word for word in WORDS if word[0] in "~+"]

NEEDED_FOR = {
    "~rl1:*": "check",
    "+evalsha": "check",
    "+eval": "check",
    "+time": "check",
    "+mget": "check",
    "+set": "check",
    "+get": "reserve, settle",
    "+zadd": "reserve, settle",
    "+zcount": "reserve, settle",
    "+zremrangebyscore": "reserve, settle",
    "+pttl": "reserve, settle",
    "+zrem": "reserve, settle",
    "+zrangebyscore": "no free slot",
    "+pexpire": "settle failures",
    "+xadd": "settle failures",
    "+xlen": "settle failures",
    "+xrange": "settle failures",
    "+xtrim": "trim usage",
    "+xinfo|groups": "trim usage",
    "+incrby": "trim usage",
    "+hset": "publish activity",
    "+incr": "assign",
    "+hdel": "unassign",
    "+hgetall": "refresh",
    "+unlink": "reset",
    "+ping": "ping",
    "+xrevrange": "ratelimit usage --last",
    "+xread": "ratelimit usage --follow",
}
"""A call that fails without each right."""


@pytest.fixture
def make_user(open_client, real_url):
    """Make the user of the documentation, without some of its rights; return the URL of the store for it."""
    client = open_client(real_url)

    def make(*without):
        prepare(client)
        client.script_flush()
        client.execute_command(
            "ACL", "SETUSER", "ratelimit", *(word for word in WORDS if word not in without)
        )
        return f"unix://ratelimit:PASSWORD@{real_url.removeprefix('unix://')}"

    yield make
    client.execute_command("ACL", "DELUSER", "ratelimit")


@pytest.mark.parametrize("call", CALLS)
def test_with_the_rights_in_the_documentation_everything_works(make_user, call):
    CALLS[call](make_user())


def test_the_tables_here_and_in_the_documentation_have_every_right():
    table = TEXT[TEXT.index("| right | without it |") :].partition("\n\n")[0]
    shown = [
        right for row in table.splitlines() for right in re.findall(r"`([~+][^`]+)`", row.split(" | ")[0])
    ]
    assert sorted(right.replace("\\|", "|") for right in shown) == sorted(RIGHTS)
    assert NEEDED_FOR.keys() == set(RIGHTS)


@pytest.mark.parametrize(("right", "call"), NEEDED_FOR.items())
def test_each_right_is_needed_and_the_complaint_names_it(make_user, right, call, open_client, real_url):
    url = make_user(right)
    open_client(real_url).incr(ONE_SERVER.counter)  # so that there are assignments to read
    with pytest.raises(RefusedError) as refused:
        CALLS[call](url)
    name = right if right[0] == "~" else f"the command {right[1:].upper()}"
    assert re.search(rf"{re.escape(name)}(?![A-Z|])", str(refused.value)), refused.value
