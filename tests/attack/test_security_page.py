"""docs/security.md names every interface, and only tests that exist."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text()
TESTS = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))


def test_each_test_that_the_page_names_exists():
    names = set(re.findall(r"`(test_\w+)`", PAGE))
    assert len(names) > 30
    assert [name for name in names if not re.search(rf"^(async )?def {name}\(", TESTS, re.MULTILINE)] == []


def test_each_endpoint_is_in_the_table_of_interfaces(sidecar):
    [table] = re.findall(r"^## Who may call what\n(.*?)^## ", PAGE, re.MULTILINE | re.DOTALL)
    for path in sidecar.client.get("/openapi.json").json()["paths"]:
        assert f"{path}`" in table, path
    for command in ("check", "keys", "usage", "top", "serve"):
        assert re.search(rf"`(ratelimit )?{command}`", table), command
