"""A policy with a fault is refused as a whole. The error lists file, line and path of each fault."""

import re

import pytest

from ratelimit import Limit, Policy, PolicyError

GOOD = """default_plan: free
models:
  small: [m1, m2]
plans:
  free:
    limits:
      requests: {rate: 20/minute, burst: 5}
      tokens: {unit: tokens, rate: 30000/minute}
  pro:
    limits:
      requests: {per: [key, model], rate: {small: 5/minute, other: 1/minute}}
keys:
  vk_1: {plan: pro, tenant: acme}
"""
PRO = "plans.pro.limits.requests"
REQUESTS = "plans.free.limits.requests"


def read_faults(text):
    with pytest.raises(PolicyError) as raised:
        Policy.from_text(text, source="policy.yaml")
    return raised.value


@pytest.mark.parametrize(
    ("old", "new", "line", "path", "expected"),
    [
        ("default_plan: free", "default_plan: gold", 1, "default_plan", "free, pro"),
        ("default_plan: free", "defualt_plan: free", 1, "defualt_plan", "default_plan"),
        ("default_plan: free", "default_plan: 5", 1, "default_plan", "string"),
        ("default_plan: free\n", "", 1, "default_plan", "required"),
        ("small: [m1, m2]", "other: [m1]", 3, "models.other", "every model not listed"),
        ("small: [m1, m2]", "small: [m1, m1]", 3, "models.small.1", "already"),
        ("small: [m1, m2]", "small: m1", 3, "models.small", "list"),
        ("small: [m1, m2]", "small: [1.5]", 3, "models.small.0", "string"),
        ("small: [m1, m2]", "small: ['m 1']", 3, "models.small.0", "visible"),
        ("small: [m1, m2]", "small: [m1]\n  large: [m1]", 4, "models.large.0", "small"),
        ("rate: 20/minute", "rat: 20/minute", 7, f"{REQUESTS}.rat", "rate"),
        ("rate: 20/minute", "rate: 20 a minute", 7, f"{REQUESTS}.rate", "N/minute"),
        ("rate: 20/minute", "rate: 0/minute", 7, f"{REQUESTS}.rate", "from 1"),
        ("rate: 20/minute", "rate: 20", 7, f"{REQUESTS}.rate", "N/minute"),
        ("rate: 20/minute", "rate:", 7, f"{REQUESTS}.rate", "N/minute"),
        ("rate: 20/minute, burst", "burst", 7, f"{REQUESTS}.rate", "required"),
        ("burst: 5", "burst: 0", 7, f"{REQUESTS}.burst", "greater"),
        ("burst: 5", "burst: -5", 7, f"{REQUESTS}.burst", "greater"),
        ("burst: 5", "burst: 2.5", 7, f"{REQUESTS}.burst", "integer"),
        ("burst: 5", "burst: '5'", 7, f"{REQUESTS}.burst", "integer"),
        ("burst: 5", "burst: yes", 7, f"{REQUESTS}.burst", "integer"),
        ("burst: 5", "burst: 1000000000001", 7, f"{REQUESTS}.burst", "less"),
        ("burst: 5", "brust: 5", 7, f"{REQUESTS}.brust", "burst"),
        ("burst: 5", "per: [team]", 7, f"{REQUESTS}.per.0", "'key', 'tenant' or 'model'"),
        ("burst: 5", "per: key", 7, f"{REQUESTS}.per", "list"),
        ("burst: 5", "per: [key, key]", 7, f"{REQUESTS}.per", "twice"),
        ("burst: 5", "mode: off", 7, f"{REQUESTS}.mode", "shadow"),
        ("burst: 5", "mode: Shadow", 7, f"{REQUESTS}.mode", "shadow"),
        ("burst: 5", "on_outage: panic", 7, f"{REQUESTS}.on_outage", "'allow', 'deny' or 'local'"),
        ("burst: 5", "local_share: 0.5", 7, f"{REQUESTS}.local_share", "only with `on_outage: local`"),
        ("burst: 5", "local_share: 0", 7, f"{REQUESTS}.local_share", "greater than 0"),
        ("burst: 5", "on_outage: local, local_share: 2", 7, f"{REQUESTS}.local_share", "equal to 1"),
        ("burst: 5", "on_outage: local, local_share: '1'", 7, f"{REQUESTS}.local_share", "number"),
        (
            "burst: 5",
            "burst: 5, on_outage: local, local_share: 0.19",
            7,
            f"{REQUESTS}.local_share",
            "0.19 of a burst of 5 is less than 1 token",
        ),
        ("burst: 5", "charge: later", 7, f"{REQUESTS}.charge", "check"),
        ("burst: 5", "charge: settle, on_outage: local", 7, f"{REQUESTS}.on_outage", "'allow' or 'deny'"),
        ("burst: 5", "unit: concurrent", 7, f"{REQUESTS}.rate", "allowed: unit, capacity"),
        ("rate: 20/minute, burst: 5", "unit: failures, rate: 1001/day", 7, f"{REQUESTS}.rate", "at most"),
        ("burst: 5", "unit: 'a b'", 7, f"{REQUESTS}.unit", "letters"),
        ("burst: 5", "ttl: 10m", 7, f"{REQUESTS}.ttl", "only with unit 'concurrent'"),
        ("burst: 5", "block: 30s", 7, f"{REQUESTS}.block", "only with unit 'failures'"),
        ("burst: 5", "capacity: 10", 7, f"{REQUESTS}.capacity", "only with unit 'concurrent'"),
        ("rate: 20/minute, burst: 5", "rate: 1/366d, burst: 11", 7, f"{REQUESTS}.burst", "ten years"),
        ("unit: tokens, rate: 30000/minute", "unit: tokens", 8, "plans.free.limits.tokens.rate", "required"),
        ("tokens: {unit: tokens", "to:kens: {unit: tokens", 8, "plans.free.limits.to:kens", "letters"),
        ("      tokens:", "      requests:", 8, REQUESTS, "already defined on line 7"),
        ("burst: 5", "rate: 9/day", 7, f"{REQUESTS}.rate", "already defined on line 7"),
        ("  pro:", "  free:", 9, "plans.free", "already defined on line 5"),
        ("small: 5/minute, other: 1/minute", "small: 5/minute", 11, f"{PRO}.rate", "other"),
        ("small: 5/minute, other", "smal: 5/minute, other", 11, f"{PRO}.rate.smal", "small"),
        ("small: 5/minute", "small: 5/fortnight", 11, f"{PRO}.rate.small", "fortnight"),
        ("per: [key, model], rate: {small", "rate: {small", 11, f"{PRO}.rate", "`model` in `per`"),
        ("requests: {per", "tokens: {per", 11, "plans.pro.limits.tokens.unit", "another name"),
        ("{plan: pro,", "{plan: gold,", 13, "keys.vk_1.plan", "free, pro"),
        ("{plan: pro,", "{plam: pro,", 13, "keys.vk_1.plam", "plan"),
        ("tenant: acme", "tenant: 'a b'", 13, "keys.vk_1.tenant", "visible"),
        ("tenant: acme", "tenant: 5", 13, "keys.vk_1.tenant", "string"),
        ("  vk_1: {", "  ~vk: {x: 1, ", 13, "keys.~vk.x", "plan, tenant"),
        ("  vk_1: {", "  'v 1': {", 13, "keys.v 1", "visible"),
        ("keys:", "key:", 12, "key", "keys"),
        ("keys:", "unknown_keys: anonymous\nkeys:", 12, "unknown_keys", "needs a plan of that name"),
        ("      tokens:", "      blocked:", 8, "plans.free.limits.blocked", "choose another name"),
    ],
)  # fmt: skip
def test_p11_a_fault_is_found_on_its_line_and_path(old, new, line, path, expected):
    assert old in GOOD
    error = read_faults(GOOD.replace(old, new, 1))
    found = [fault for fault in error.faults if fault.path == path]
    assert found, str(error)
    assert found[0].line == line
    assert expected in found[0].message
    assert f"policy.yaml:{line}: {path}: " in str(error)


GOOD_LEASES = """plans:
  p:
    limits:
      requests: {rate: 100/minute, lease: {share: 0.05, ttl: 1s}}
      tokens:
        unit: tokens
        rate: 1000/minute
        lease: {share: 0.05}
"""
IN_REQUESTS, IN_TOKENS = "plans.p.limits.requests", "plans.p.limits.tokens"


@pytest.mark.parametrize(
    ("old", "new", "line", "path", "expected"),
    [
        ("share: 0.05, ttl: 1s", "share: 0.51", 4, f"{IN_REQUESTS}.lease.share", "equal to 0.5"),
        ("share: 0.05, ttl: 1s", "share: 0", 4, f"{IN_REQUESTS}.lease.share", "greater than 0"),
        ("share: 0.05, ttl: 1s", "share: -0.1", 4, f"{IN_REQUESTS}.lease.share", "greater than 0"),
        ("share: 0.05, ttl: 1s", "share: .nan", 4, f"{IN_REQUESTS}.lease.share", "not nan"),
        ("share: 0.05, ttl: 1s", "share: 5%", 4, f"{IN_REQUESTS}.lease.share", "number"),
        ("share: 0.05, ttl: 1s", "share: '0.05'", 4, f"{IN_REQUESTS}.lease.share", "number"),
        ("share: 0.05, ttl: 1s", "ttl: 1s", 4, f"{IN_REQUESTS}.lease.share", "required"),
        ("ttl: 1s", "ttl: 61s", 4, f"{IN_REQUESTS}.lease.ttl", "at most 60s"),
        ("ttl: 1s", "ttl: 2m", 4, f"{IN_REQUESTS}.lease.ttl", "at most 60s"),
        ("ttl: 1s", "ttl: 0s", 4, f"{IN_REQUESTS}.lease.ttl", "0s"),
        ("ttl: 1s", "ttl: 1", 4, f"{IN_REQUESTS}.lease.ttl", "30s"),
        ("ttl: 1s", "tll: 1s", 4, f"{IN_REQUESTS}.lease.tll", "share, ttl"),
        ("{share: 0.05, ttl: 1s}", "0.05", 4, f"{IN_REQUESTS}.lease", "mapping"),
        ("{share: 0.05}", "true", 8, f"{IN_TOKENS}.lease", "mapping"),
        ("rate: 100/minute", "rate: 39/minute", 4, f"{IN_REQUESTS}.lease", "0.05 of a burst of 39 is less"),
        ("rate: 100/minute", "rate: 100/minute, burst: 39", 4, f"{IN_REQUESTS}.lease", "burst of 39"),
        ("rate: 100/minute", "rate: 100/minute, charge: settle", 4, f"{IN_REQUESTS}.lease", "charge: settle"),
        ("unit: tokens\n        rate: 1000/minute", "unit: failures\n        rate: 100/minute", 8,
         f"{IN_TOKENS}.lease", "not allowed with unit 'failures'"),
        ("unit: tokens\n        rate: 1000/minute", "unit: concurrent\n        capacity: 100", 8,
         f"{IN_TOKENS}.lease", "not allowed with unit 'concurrent'"),
        ("        lease: {share: 0.05}\n", "", 5, f"{IN_TOKENS}.lease", "have a lease (requests)"),
        (", lease: {share: 0.05, ttl: 1s}", "", 4, f"{IN_REQUESTS}.lease", "have a lease (tokens)"),
    ],
)  # fmt: skip
def test_p9_a_lease_that_makes_no_sense_is_found_on_its_line_and_path(old, new, line, path, expected):
    assert Policy.from_text(GOOD_LEASES)
    assert old in GOOD_LEASES
    error = read_faults(GOOD_LEASES.replace(old, new, 1))
    found = [fault for fault in error.faults if fault.path == path]
    assert found, str(error)
    assert found[0].line == line
    assert expected in found[0].message
    assert f"policy.yaml:{line}: {path}: " in str(error)


def test_p9_a_lease_for_each_class_must_be_worth_it_in_each():
    text = GOOD_LEASES.replace(
        "rate: 100/minute", "per: [key, model], rate: {a: 100/minute, other: 39/minute}"
    )
    [fault] = read_faults("models: {a: [a]}\n" + text).faults
    assert (fault.line, fault.path) == (5, f"{IN_REQUESTS}.lease")
    assert "burst of 39" in fault.message


@pytest.mark.parametrize(
    ("lease", "expected"),
    [
        ({"shar": 0.1}, "share, ttl"),
        ({"share": 0.6}, "0.5"),
        ({"share": 0.1, "ttl": "2m"}, "60s"),
        (5, "lease"),
    ],
)
def test_p9_a_lease_in_python_is_held_to_the_same(lease, expected):
    with pytest.raises(PolicyError, match=expected):
        Limit("requests", "100/minute", lease=lease)


def test_p9_some_limits_with_a_lease_and_some_without_are_refused_in_python_too():
    lease = {"share": 0.1}
    with pytest.raises(PolicyError, match=r"have a lease \(requests\)"):
        Policy.of(Limit("requests", "100/minute", lease=lease), Limit("tokens", "100/minute", unit="tokens"))


def test_all_faults_are_listed_in_the_order_of_the_file():
    error = read_faults(
        GOOD.replace("burst: 5", "brust: 5").replace("30000/minute", "x").replace("[m1, m2]", "[5]")
    )
    assert [fault.line for fault in error.faults] == [3, 7, 8]
    assert len(str(error).splitlines()) == 3


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("plans:\n  p: {limits: [}\n", 2),
        ("plans:\n\tp: 1\n", 2),
        ("plans: 'never closed\n", 2),
        ("plans:\n  p: *nowhere\n", 2),
        ("plans:\n  p: !!python/name:os.system x\n", 2),
        ("plans: {}\n---\nplans: {}\n", 2),
        ("plans:\n  p:\n    limits:\n      a: {rate: 2024-99-99}\n", 4),
        ("plans:\n  p: \x00\n", 2),
        ("plans:\n  p: \x07\n", 2),
    ],
)
def test_text_that_is_not_yaml_is_refused_with_the_line(text, line):
    error = read_faults(text)
    assert str(error).startswith(f"policy.yaml:{line}: ")
    assert "not YAML" in str(error)


@pytest.mark.parametrize("text", ["", "# nothing\n", "5", "- plans\n", "plans", "null"])
def test_a_file_that_is_not_a_mapping_is_refused_with_what_is_required(text):
    assert "must be a mapping that contains `plans`" in str(read_faults(text))


@pytest.mark.parametrize(
    "text", ["{}", "plans:\n", "plans: {}\n", "plans: []\n", "plans: {p: }\n", "plans: {p: {}}\n"]
)
def test_a_policy_without_a_plan_is_refused(text):
    assert all(fault.path.startswith("plans") for fault in read_faults(text).faults)


def test_a_shared_bucket_must_have_one_shape_in_all_plans():
    text = "default_plan: a\nplans:\n" + "".join(
        f"  {plan}: {{limits: {{all: {{per: [], rate: {rate}}}}}}}\n"
        for plan, rate in (("a", "5/minute"), ("b", "6/minute"))
    )
    [fault] = read_faults(text).faults
    assert (fault.line, fault.path) == (4, "plans.b.limits.all")
    assert Policy.from_text(text.replace("6/minute", "5/minute"))


@pytest.mark.parametrize(
    "text",
    [
        "plans: &a\n  p: *a\n",
        "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
        + "".join(
            f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]\n" for a, b in zip("abcdefg", "bcdefgh", strict=True)
        ),
        "plans: " + "[" * 5_000 + "]" * 5_000,
        "plans: " + "{p: " * 5_000 + "}" * 5_000,
    ],
    ids=["itself", "billion laughs", "deep list", "deep mapping"],
)
def test_a_file_that_would_take_too_long_is_refused(text):
    assert "not YAML" in str(read_faults(text))


def test_a_message_is_short_even_for_long_values():
    error = read_faults(GOOD.replace("20/minute", "x" * 10_000))
    assert len(str(error)) < 500


def test_an_error_names_a_file_that_does_not_exist_or_is_not_text(tmp_path):
    missing, binary = tmp_path / "missing.yaml", tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    for path in (missing, binary, tmp_path):
        with pytest.raises(PolicyError, match=re.escape(str(path))):
            Policy.from_file(path)


def test_a_byte_order_mark_and_windows_line_ends_are_allowed(tmp_path):
    path = tmp_path / "policy.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode())
    assert Policy.from_file(path).default_plan == "free"
