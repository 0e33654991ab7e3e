"""The OpenAPI document says what the sidecar does, and /docs needs no other host."""

import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

CONFIG = Path(__file__).with_name("schemathesis.toml")
METHODS = {"get", "head", "post", "put", "patch", "delete", "options", "trace"}


@pytest.fixture(scope="module")
def operated(start_module_sidecar):
    return start_module_sidecar("--admin-token", "admin", "--redis", "memory://")


@pytest.mark.parametrize("token", ["admin", "wrong"])
def test_schemathesis_finds_no_difference(operated, tmp_path, token):
    done = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG), "run"),
            f"{operated.address}/openapi.json",
            # DELETE of a key resets its limits. The key itself is the provider's, and is never gone.
            *("--checks", "all", "--exclude-checks", "use_after_free"),
            *("-n", "40", "--seed", "1", "--no-color"),
            *("-H", f"Authorization: Bearer {token}"),
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


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
def test_the_pages_of_the_document_need_no_other_host(operated, path):
    page = operated.client.get(path)
    assert page.status_code == 200
    assert "openapi.json" in page.text
    addresses = re.findall(r"""(?:src|href)=["']([^"']+)["']""", page.text)
    assert len(addresses) >= 1
    for address in addresses:
        assert not urlsplit(address).netloc, address
        assert operated.client.get(address).status_code == 200, address
    assert not re.search(r"https?://(?!www\.w3\.org)", page.text)
