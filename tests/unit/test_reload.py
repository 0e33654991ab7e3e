"""P10 and P11: what the sidecar does with a policy file that has changed, and with one that is bad."""

import asyncio
from types import SimpleNamespace

import pytest

from ratelimit import Policy, PolicyError
from service.reload import _mask_path, _reload_policy, load_initial_policy

GOOD = "plans: {free: {limits: {requests: {rate: 5/minute}}}}"
BETTER = GOOD.replace("5/", "6/")
BAD = GOOD.replace("rate", "rat")


@pytest.fixture
def files(tmp_path):
    """The policy file, and that of the last valid policy, which does not exist yet."""
    return tmp_path / "policy.yaml", tmp_path / "last.json"


def read_rate(policy):
    return str(policy.plans["free"].limits[0].rate)


def test_p11_a_process_that_starts_while_the_file_is_bad_runs_the_last_valid_policy(files):
    file, last = files
    file.write_text(GOOD)
    assert read_rate(load_initial_policy(file, last)) == "5/minute"
    file.write_text(BAD)
    assert read_rate(load_initial_policy(file, last)) == "5/minute"
    file.write_text(BETTER)
    assert read_rate(load_initial_policy(file, last)) == "6/minute"


def test_p11_without_a_last_valid_policy_a_bad_file_is_refused(files):
    files[0].write_text(BAD)
    for last in (None, files[1]):
        with pytest.raises(PolicyError):
            load_initial_policy(files[0], last)


def test_p11_a_bad_file_leaves_the_running_policy_and_a_good_one_replaces_it(files):
    counts = []
    running = Policy.from_text(GOOD)
    sidecar = SimpleNamespace(
        settings=SimpleNamespace(policy=files[0], last_policy=files[1]),
        limiter=SimpleNamespace(policy=running),
        metrics=SimpleNamespace(count_reload=counts.append),
    )
    files[0].write_text(BAD)
    asyncio.run(_reload_policy(sidecar))
    assert sidecar.limiter.policy is running
    assert not files[1].exists()
    files[0].write_text(BETTER)
    asyncio.run(_reload_policy(sidecar))
    assert read_rate(sidecar.limiter.policy) == "6/minute"
    assert read_rate(Policy.from_file(files[1])) == "6/minute"
    assert counts == ["refused", "loaded"]


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("keys.vk_0123456789abcdef.plan", "keys.vk_012…def.plan"),
        ("keys.vk_0123456789abcdef", "keys.vk_012…def"),
        ("plans.free.limits.requests", "plans.free.limits.requests"),
        ("keys", "keys"),
    ],
)
def test_p10_the_path_of_a_fault_is_shown_without_the_key(path, shown):
    assert _mask_path(path) == shown
