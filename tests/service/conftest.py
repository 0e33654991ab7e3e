"""Sidecars in processes of their own, on a real server unless a test says otherwise."""

import contextlib
import os

import pytest

from ..sidecars import run_sidecar

POLICY = """
default_plan: free
models: {small: [qwen3-4b], large: [qwen3-235b]}
plans:
  anonymous: {limits: {requests: {rate: 2/hour}}}
  free:
    limits:
      requests: {rate: 20/hour, burst: 5}  # so slow that a busy machine gives no token back during a test
      tokens: {unit: tokens, rate: 1000/hour}
  pro:
    limits:
      requests: {rate: {small: 100/minute, large: 10/minute, other: 10/minute}, per: [key, model]}
      tokens: {unit: tokens, rate: 100000/minute, per: [tenant]}
  strict:
    limits:
      requests: {rate: 20/minute, on_outage: deny}
keys:
  vk_partner: {plan: pro, tenant: acme}
"""


@pytest.fixture(scope="session")
def sidecar():
    """A sidecar that all tests share, with only a policy and a pepper configured."""
    with run_sidecar("--key-pepper", "a-pepper-for-tests", policy=POLICY) as sidecar:
        yield sidecar


@pytest.fixture
def start_sidecar():
    """Start sidecars with flags of the test's own; they stop after the test."""
    with _sidecar_starter() as start:
        yield start


@pytest.fixture(scope="module")
def start_module_sidecar():
    """Start sidecars that the tests of a module share; they stop after the module."""
    with _sidecar_starter() as start:
        yield start


@contextlib.contextmanager
def _sidecar_starter():
    with contextlib.ExitStack() as stack:

        def start(*flags, policy=POLICY, **variables):
            return stack.enter_context(run_sidecar(*flags, policy=policy, **variables))

        yield start


@pytest.fixture
def key():
    """A key that no other test uses."""
    return f"vk_{os.urandom(12).hex()}"
