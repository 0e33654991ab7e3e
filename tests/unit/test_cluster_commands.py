"""Which checks share a call on a cluster, and where their replies go."""

from hypothesis import given
from hypothesis import strategies as st
from redis.exceptions import ConnectionError as LostConnection

from ratelimit import Limit, Policy
from ratelimit.engine.check_script import MAX_LIMITS_PER_CALL
from ratelimit.engine.keyspace import SHARDS, Keyspace
from ratelimit.engine.resolver import Resolver
from ratelimit.limiters.cluster_commands import collect_replies, make_check_commands
from ratelimit.request.check import make_check

LIMITS = 7  # of each check, so that a call never has exactly as many as it may have
POLICY = Policy.of(*(Limit(f"limit-{number}", f"{number + 1}/minute") for number in range(LIMITS)))
RESOLVER = Resolver(POLICY, keyspace=Keyspace(SHARDS))
LOST = LostConnection("gone")
tenants = st.lists(st.integers(0, 30).map(str), min_size=1, max_size=60)


def make(keys):
    checks = [RESOLVER.resolve(make_check({"key": key}), take=True) for key in keys]
    return checks, make_check_commands(checks, lambda checks: ([], [check.subject.key for check in checks]))


@given(tenants)
def test_each_check_is_in_one_call_with_others_of_its_slot_in_their_order(keys):
    checks, commands = make(keys)
    assert sorted(index for command in commands for index in command.indexes) == list(range(len(keys)))
    for command in commands:
        assert command.checks == [checks[index] for index in command.indexes]
        assert {check.subject.cluster_slot for check in command.checks} == {command.slot}
        assert command.check_count * LIMITS <= MAX_LIMITS_PER_CALL
    for slot in {command.slot for command in commands}:
        order = [index for command in commands if command.slot == slot for index in command.indexes]
        assert order == sorted(order)


@given(tenants)
def test_no_call_is_made_while_the_one_before_has_room(keys):
    _, commands = make(keys)
    for slot in {command.slot for command in commands}:
        *full, _ = (command.check_count for command in commands if command.slot == slot)
        assert all((count + 1) * LIMITS > MAX_LIMITS_PER_CALL for count in full)


@given(tenants, st.data())
def test_p6_each_check_gets_its_own_reply_or_the_error_of_its_call(keys, data):
    _, commands = make(keys)
    expected = {}
    for command in commands:
        is_lost = data.draw(st.booleans())
        command.outcome = LOST if is_lost else [b"1" + check.subject.key.encode() for check in command.checks]
        if not is_lost and len(command.checks) == 1:
            [command.outcome] = command.outcome
        expected |= {index: LOST if is_lost else b"1" + keys[index].encode() for index in command.indexes}
    assert collect_replies(commands, len(keys)) == [expected[index] for index in range(len(keys))]


@given(tenants)
def test_a_call_that_is_split_has_the_replies_of_its_parts(keys):
    _, commands = make(keys)
    for command in commands:
        command.parts = command.split()
        assert (not command.parts) == (len(command.checks) == 1)
        for part in command.parts or [command]:
            [check], [_] = part.checks, part.indexes
            assert (part.slot, part.split()) == (command.slot, ())
            part.outcome = check.subject.key.encode()
    assert collect_replies(commands, len(keys)) == [key.encode() for key in keys]


def test_a_check_with_more_limits_than_a_call_may_have_gets_a_call_of_its_own():
    policy = Policy.of(*(Limit(f"limit-{number}", "1/minute") for number in range(MAX_LIMITS_PER_CALL + 1)))
    resolver = Resolver(policy, keyspace=Keyspace(SHARDS))
    checks = [resolver.resolve(make_check({"key": "k"}), take=True)] * 2
    commands = make_check_commands(checks, lambda _: ([], []))
    assert [command.indexes for command in commands] == [[0], [1]]
