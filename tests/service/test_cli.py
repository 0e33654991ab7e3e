"""The `ratelimit` command: what it prints, and its exit codes."""

import json
from pathlib import Path

import jsonschema_rs
import pytest
import yaml

from service.settings import Settings

from ..processes import run_ratelimit

EXAMPLES = Path(__file__).parents[2] / "examples" / "policies"
STARTER = str(EXAMPLES / "starter.yaml")


@pytest.fixture
def store(tmp_path):
    return f"embedded://{tmp_path / 'store'}"


def test_a_valid_policy_exits_0_and_is_summed_up():
    done = run_ratelimit("policy", "check", STARTER)
    assert done.returncode == 0
    assert "is valid: plans anonymous (1), free (3), pro (3); default free; 1 keys" in done.stdout
    assert json.loads(run_ratelimit("policy", "check", STARTER, "--json").stdout)["valid"] is True


def test_an_invalid_policy_exits_1_with_every_fault_on_its_line(tmp_path):
    file = tmp_path / "p.yaml"
    file.write_text(
        "plans:\n  free:\n    limits:\n      r: {rate: 0/day}\n      s: {rate: 1/day, brust: 2}\n"
    )
    done = run_ratelimit("policy", "check", str(file))
    assert done.returncode == 1
    assert f"{file}:4: plans.free.limits.r.rate" in done.stderr
    assert (
        f"{file}:5: plans.free.limits.s.brust: there is no such field; did you mean `burst`?" in done.stderr
    )
    faults = json.loads(run_ratelimit("policy", "check", str(file), "--json").stdout)["faults"]
    assert [fault["line"] for fault in faults] == [4, 5]


def test_the_schema_accepts_the_examples_and_refuses_a_misspelt_field():
    schema = json.loads(run_ratelimit("policy", "schema").stdout)
    validator = jsonschema_rs.validator_for(schema)
    for file in EXAMPLES.glob("*.yaml"):
        validator.validate(yaml.safe_load(file.read_text()))
    assert not validator.is_valid({"plans": {"free": {"limits": {"r": {"rate": "1/day", "brust": 2}}}}})
    assert not validator.is_valid({"plans": {"free": {"limits": {"r": {"rate": "1/fortnight"}}}}})


def test_check_exits_0_when_allowed_and_1_when_denied(store):
    def check(*more):
        return run_ratelimit("check", "vk_demo_0123456789", "--policy", STARTER, "--redis", store, *more)

    allowed = check("--cost", "tokens=29000", "--json")
    assert (allowed.returncode, json.loads(allowed.stdout)["allowed"]) == (0, True)
    denied = check("--cost", "tokens=29000")
    assert denied.returncode == 1
    assert "denied by tokens" in denied.stdout
    assert "retry in" in denied.stdout
    assert "vk_demo_0123456789" not in denied.stdout


def test_without_a_store_named_it_is_the_embedded_one_as_for_serve():
    done = run_ratelimit("check", "vk_demo", "--policy", STARTER, "--json")
    assert (done.returncode, json.loads(done.stdout)["source"]) == (0, "store")


def test_keys_are_shown_and_reset(store):
    flags = ("--policy", STARTER, "--redis", store)
    run_ratelimit("check", "vk_demo", *flags)
    # The daily limit: what it refills while commands start does not show.
    shown = json.loads(run_ratelimit("keys", "show", "vk_demo", *flags, "--json").stdout)
    assert shown["limits"][1]["remaining"] == 999
    assert run_ratelimit("keys", "reset", "vk_demo", *flags).returncode == 0
    shown = json.loads(run_ratelimit("keys", "show", "vk_demo", *flags, "--json").stdout)
    assert shown["limits"][1]["remaining"] == 1000


@pytest.mark.parametrize(
    ("args", "complaint"),
    [
        (("check", "k"), "--policy"),
        (("check", "k", "--policy", STARTER, "--redis", "ftp://x"), "names no store"),
        (("check", "k", "--policy", STARTER, "--redis", "redis://127.0.0.1:1"), "onnection refused"),
        (
            ("check", "k", "--policy", STARTER, "--redis", "memory://", "--cost", "tokens"),
            "write a unit and an amount",
        ),
        (
            ("check", "k", "--policy", STARTER, "--redis", "memory://", "--plan", "gold"),
            "there is no such plan",
        ),
        (("check", "k", "--policy", "nowhere.yaml", "--redis", "memory://"), "cannot be read"),
        (("nonsense",), "No such command"),
    ],
)
def test_wrong_usage_exits_2_with_one_clear_line(args, complaint):
    done = run_ratelimit(*args)
    assert done.returncode == 2
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr


def test_help_names_every_command_and_every_flag():
    done = run_ratelimit("--help")
    assert done.returncode == 0
    for command in ("serve", "check", "keys", "policy"):
        assert command in done.stdout
        assert run_ratelimit(command, "--help").returncode == 0
    flags = run_ratelimit("serve", "--help").stdout
    # `last_policy` has no flag: only `serve` sets it, for its workers.
    for name in Settings.model_fields.keys() - {"last_policy"}:
        assert f"--{name.replace('_', '-')}" in flags
