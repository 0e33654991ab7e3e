"""The OpenAPI document says what the sidecar does, and /docs needs no other host."""

import asyncio
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from service.app import create_app
from service.settings import Settings

CONFIG = Path(__file__).with_name("schemathesis.toml")
METHODS = {"get", "head", "post", "put", "patch", "delete", "options", "trace"}
POLICY = "default_plan: free\nplans: {free: {limits: {requests: {rate: 2/hour}}}}\n"


@pytest.fixture(scope="module")
def operated(start_module_sidecar):
    return start_module_sidecar("--admin-token", "admin", "--redis", "memory://")


ADMIN = ("--admin-token", "admin")
GATEWAY = ("--gateway-token", "gateway")
ADMIN_HEADER = "Authorization: Bearer admin"


@pytest.mark.parametrize(
    ("flags", "headers"),
    [
        pytest.param(ADMIN, [ADMIN_HEADER], id="admin token"),
        pytest.param(ADMIN, ["Authorization: Bearer wrong"], id="wrong admin token"),
        pytest.param((), [], id="no token configured"),
        pytest.param(
            (*ADMIN, *GATEWAY), [ADMIN_HEADER, "X-RateLimit-Gateway-Token: gateway"], id="gateway token"
        ),
        pytest.param((*ADMIN, *GATEWAY), [ADMIN_HEADER], id="no gateway token"),
    ],
)
def test_schemathesis_finds_no_difference(start_sidecar, tmp_path, flags, headers):
    sidecar = start_sidecar(*flags, "--redis", "memory://")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG), "run"),
            f"{sidecar.address}/openapi.json",
            # DELETE of a key resets its limits. The key itself is the provider's, and is never gone.
            *("--checks", "all", "--exclude-checks", "use_after_free"),
            *("-n", "40", "--seed", "1", "--no-color"),
            *(argument for header in headers for argument in ("-H", header)),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]


def find_references(value):
    """Return every `$ref` below a value."""
    if isinstance(value, dict):
        found = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return found + [ref for part in value.values() for ref in find_references(part)]
    return [ref for part in value for ref in find_references(part)] if isinstance(value, list) else []


def test_every_reference_of_the_document_can_be_resolved(operated):
    document = operated.client.get("/openapi.json").json()
    references = find_references(document)
    assert references
    for reference in references:
        place = document
        assert reference.startswith("#/")
        for step in reference.removeprefix("#/").split("/"):
            place = place[step]


def test_every_error_of_the_document_is_a_problem_with_a_schema(operated):
    for path, item in operated.client.get("/openapi.json").json()["paths"].items():
        for method, operation in item.items():
            for status, answer in operation["responses"].items():
                if status >= "400":
                    content = answer["content"]
                    assert [*content] == ["application/problem+json"], (path, method, status)
                    assert "detail" in content["application/problem+json"]["schema"]["properties"]


def test_authorize_is_documented_with_every_method_that_openapi_can_name_and_answers_any(operated):
    item = operated.client.get("/openapi.json").json()["paths"]["/v1/authorize"]
    assert item.keys() == METHODS
    for method in [*METHODS, "PROPFIND", "QUERY"]:
        answer = operated.client.request(
            method, "/v1/authorize/x", headers={"X-RateLimit-Key": f"vk_{method}"}
        )
        assert answer.status_code == 200


def test_a_method_that_a_path_does_not_have_is_told_which_it_has(operated):
    for path, item in operated.client.get("/openapi.json").json()["paths"].items():
        for method in METHODS - item.keys() - {"head"}:
            answer = operated.client.request(method, path.replace("{", "").replace("}", ""))
            assert answer.status_code == 405, (path, method)
            assert {*answer.headers["Allow"].lower().split(", ")} - {"head"} == {*item} - {"head"}
            assert answer.headers["Content-Type"] == "application/problem+json"


def find_addresses(page):
    """Return what a page loads: scripts, stylesheets, images and the document."""
    return re.findall(r"""(?:src|href|url|spec-url)\s*[=:]\s*["']([^"']+)["']""", page)


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
def test_the_pages_of_the_document_need_no_other_host(operated, path):
    page = operated.client.get(path)
    assert page.status_code == 200
    addresses = find_addresses(page.text)
    assert "/openapi.json" in addresses
    for address in addresses:
        assert not urlsplit(address).netloc, address
        assert operated.client.get(address).status_code == 200, address
    assert not re.search(r"https?://(?!www\.w3\.org)", page.text)


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
def test_the_pages_find_their_parts_where_another_application_mounts_the_sidecar(tmp_path, path):
    (tmp_path / "policy.yaml").write_text(POLICY)
    app = create_app(Settings(policy=tmp_path / "policy.yaml", redis="memory://"))
    site = Starlette(routes=[Mount("/limits", app)])

    async def read_statuses():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(site), base_url="http://site") as client:
            addresses = find_addresses((await client.get(f"/limits{path}")).text)
            return {address: (await client.get(address)).status_code for address in addresses}

    statuses = asyncio.run(read_statuses())
    assert "/limits/openapi.json" in statuses
    assert {*statuses.values()} == {200}
