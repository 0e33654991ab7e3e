"""Which command goes to which server of a cluster, and what follows from each kind of reply."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.crc import key_slot
from redis.exceptions import ConnectionError as LostConnection
from redis.exceptions import NoScriptError, ResponseError

from ratelimit.engine.keyspace import SHARDS, SLOTS, Keyspace, find_slot, find_tag
from ratelimit.stores.routing import RoutedCommand, route
from ratelimit.stores.topology import Topology, parse_redirect

A, B, C = ("a", 1), ("b", 2), ("c", 3)
NON_LOCAL = "ERR Error running script: Script attempted to access a non local key in a cluster node"


@pytest.fixture
def topology():
    topology = Topology([A])
    topology.read_slots([[0, 99, [b"a", 1, b"id"]], [100, 16_383, [b"b", 2, b"id"], [b"c", 3, b"id"]]], A)
    return topology


class Named(RoutedCommand):
    def __init__(self, slot, name="X", smaller=()):
        super().__init__(slot)
        self.name, self.smaller = name, smaller

    def encode(self):
        return (self.name, "source" if self.needs_source else "name")

    def split(self):
        return self.smaller


def read(command):
    return [read(part) for part in command.parts] or command.outcome


def play(topology, commands, answer):
    """Route commands, which `answer(address, command)` answers. Return the outcomes and the steps."""
    routing, steps = route(topology, commands), []
    step = next(routing)
    while True:
        steps.append(step)
        answers = [[answer(batch.address, command) for command in batch.commands] for batch in step.batches]
        try:
            step = routing.send(answers)
            if len(steps) > 20:
                step = routing.send(None)
        except StopIteration:
            return [read(command) for command in commands], steps


def test_commands_for_one_server_go_together_in_their_order(topology):
    commands = [Named(5, "1"), Named(200, "2"), Named(6, "3")]
    outcomes, [step] = play(topology, commands, lambda address, command: (address, command[0]))
    assert outcomes == [(A, "1"), (B, "2"), (A, "3")]
    assert [(batch.address, [name for name, _ in batch.commands]) for batch in step.batches] == [
        (A, ["1", "3"]),
        (B, ["2"]),
    ]


def test_p6_a_slot_that_has_moved_is_asked_for_where_it_is_and_stays_there(topology):
    def answer(address, _):
        return "done" if address == C else ResponseError("MOVED 5 c:3")

    outcomes, steps = play(topology, [Named(5)], answer)
    assert (outcomes, len(steps)) == (["done"], 2)
    assert topology.find_primary(5) == C
    assert topology.find_primary(6) == A


def test_p6_a_slot_that_is_being_moved_is_asked_for_once(topology):
    def answer(address, command):
        if address == A:
            return ResponseError("ASK 5 c:3")
        return "OK" if command == ("ASKING",) else "done"

    outcomes, steps = play(topology, [Named(5)], answer)
    assert (outcomes, len(steps)) == (["done"], 2)
    assert steps[1].batches[0].commands == [("ASKING",), ("X", "name")]
    assert topology.find_primary(5) == A


@pytest.mark.parametrize("text", ["TRYAGAIN Multiple keys request during rehashing of slot", NON_LOCAL])
def test_what_no_server_can_run_now_is_sent_again_after_a_pause(topology, text):
    answers = iter([ResponseError(text), ResponseError(text), "done"])
    outcomes, steps = play(topology, [Named(5)], lambda *_: next(answers))
    assert outcomes == ["done"]
    assert [step.pause for step in steps] == [0, 0.001, 0.002]


def test_when_the_time_is_over_the_outcome_is_the_last_refusal(topology):
    refusal = ResponseError("TRYAGAIN")
    outcomes, _ = play(topology, [Named(5), Named(6)], lambda *_: refusal)
    assert outcomes == [refusal, refusal]


@pytest.mark.parametrize("text", ["TRYAGAIN", "ASK 5 c:3"])
def test_a_call_with_keys_on_both_servers_is_split(topology, text):
    parts = [Named(5, "1"), Named(5, "2")]

    def answer(_, command):
        return ResponseError(text) if command[0] == "both" else command[0]

    outcomes, _ = play(topology, [Named(5, "both", parts), Named(6, "3")], answer)
    assert outcomes == [["1", "2"], "3"]


def test_a_server_without_the_script_gets_its_source(topology):
    outcomes, _ = play(
        topology,
        [Named(5)],
        lambda _, command: "done" if command[1] == "source" else NoScriptError("NOSCRIPT"),
    )
    assert outcomes == ["done"]


@pytest.mark.parametrize("error", [LostConnection("gone"), TimeoutError(), ResponseError("CLUSTERDOWN x")])
def test_p6_what_has_an_unknown_outcome_is_never_sent_again(topology, error):
    outcomes, steps = play(topology, [Named(5)], lambda *_: error)
    assert (outcomes, len(steps)) == ([error], 1)


def test_two_servers_that_name_each_other_do_not_keep_it_busy(topology):
    def answer(address, _):
        return ResponseError(f"MOVED 5 {'b:2' if address == A else 'a:1'}")

    _, steps = play(topology, [Named(5)], answer)
    assert all(step.pause for step in steps[1:])


@pytest.mark.parametrize(
    ("text", "redirect"),
    [
        ("MOVED 3999 127.0.0.1:6381", ("moved", ("127.0.0.1", 6381))),
        ("MOVED 3999 :6381", ("moved", ("", 6381))),
        ("ASK 1 ::1:7000", ("ask", ("::1", 7000))),
        ("TRYAGAIN Multiple keys", ("again", None)),
        (NON_LOCAL, ("again", None)),
        ("ERR MOVED 1 a:1", None),
        ("CLUSTERDOWN Hash slot not served", None),
    ],
)
def test_error_replies_are_told_apart(text, redirect):
    assert parse_redirect(ResponseError(text)) == redirect


def test_a_server_may_leave_out_its_own_host(topology):
    topology.read_slots([[0, 16_383, [b"", 9, b"id"]]], ("seed", 1))
    assert topology.list_primaries() == [("seed", 9)]


def test_slots_that_a_server_does_not_know_stay_as_they_were(topology):
    assert not topology.read_slots([], A)
    assert topology.list_candidates() == [A, B]
    assert topology.is_known


@given(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=20))
def test_a_tenant_has_the_slot_that_servers_compute(tenant):
    prefix = Keyspace(SHARDS).make_prefix(tenant)
    assert find_slot(find_tag(prefix)) == key_slot(prefix.encode())


@pytest.mark.parametrize("servers", [1, 2, 3, 5, 8, 16])
def test_servers_with_equal_parts_of_the_slots_have_equally_many_shards(servers):
    tags = {find_tag(stream) for stream in Keyspace(SHARDS).usage_streams}
    assert len(tags) == SHARDS
    counts = [0] * servers
    for tag in tags:
        counts[find_slot(tag) * servers // SLOTS] += 1
    assert max(counts) - min(counts) <= 1
