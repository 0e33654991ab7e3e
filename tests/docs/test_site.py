"""The documentation site: `make docs` builds it without a warning, and it works from a folder."""

import json
import os
import posixpath
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import ratelimit

ROOT = Path(__file__).parents[2]
TOOLS = ROOT / "docs" / "_site"
LOADED = {  # what makes a browser load something, by the name of the element
    "audio": "src",
    "embed": "src",
    "iframe": "src",
    "img": "src",
    "link": "href",
    "object": "data",
    "script": "src",
    "source": "src",
    "video": "src",
}


class Page(HTMLParser):
    """What a page of the site has: anchors, links, and what a browser loads for it."""

    def __init__(self, text):
        super().__init__()
        self.anchors, self.links, self.loaded, self.styles = set(), [], [], []
        self._inside = None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self._inside = tag
        self.anchors |= {attributes[name] for name in ("id", "name") if attributes.get(name)}
        if tag == "a" and attributes.get("href"):
            self.links.append(attributes["href"])
        if (address := attributes.get(LOADED.get(tag))) and attributes.get("rel") != "canonical":
            self.loaded.append(address)
        self.styles.append(attributes.get("style") or "")

    def handle_data(self, data):
        if self._inside == "style":
            self.styles.append(data)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built once as `make docs` does it, into another folder."""
    [command] = re.findall(r"^\t@(.*mkdocs build.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert "--strict" in command
    assert "--quiet" not in command  # it hides warnings from --strict
    folder = tmp_path_factory.mktemp("site")
    command = f"{command.replace('$(BIN)', str(Path(sys.executable).parent))} --site-dir {folder}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["sh", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site):
    """Every page of the site, by its path."""
    return {str(file.relative_to(site)): Page(file.read_text()) for file in sorted(site.rglob("*.html"))}


def resolve(page, address):
    """Return the path and the anchor to which a link of a page leads."""
    parts = urlsplit(address)
    path = posixpath.normpath(posixpath.join(posixpath.dirname(page), unquote(parts.path)))
    return (path if parts.path else page), unquote(parts.fragment)


def is_inside(address):
    return not urlsplit(address).scheme and not address.startswith("//")


def test_every_link_leads_to_a_file_of_the_site_and_an_anchor_in_it(site, pages):
    assert len(pages) > 50
    broken = []
    for name, page in pages.items():
        if name == "404.html":  # a server shows it at any address
            continue
        for address in filter(is_inside, [*page.links, *page.loaded]):
            path, anchor = resolve(name, address)
            if not (site / path).is_file():
                broken.append(f"{name}: {address}: there is no {path}")
            elif anchor and path in pages and anchor not in pages[path].anchors:
                broken.append(f"{name}: {address}: {path} has no such anchor")
    assert broken == []


def test_no_page_and_no_style_loads_anything_from_another_host(site, pages):
    foreign = [(name, address) for name, page in pages.items() for address in page.loaded]
    assert [found for found in foreign if not is_inside(found[1]) and not found[1].startswith("data:")] == []
    styles = {name: "".join(page.styles) for name, page in pages.items()}
    styles |= {file.name: file.read_text() for file in site.rglob("*.css")}
    load = re.compile(r"""(?:url\(|@import)\s*["']?(?:https?:)?//""")
    assert [name for name, style in styles.items() if load.search(style)] == []


def test_what_would_load_something_from_another_host_is_found():
    page = Page('<img src="https://example.com/x.png"><a href="https://example.com">x</a>')
    assert page.loaded == ["https://example.com/x.png"]
    assert not is_inside(page.loaded[0])
    assert not is_inside("//example.com/x.js")


def test_the_search_has_every_page_and_works_from_a_folder(site, pages):
    index = json.loads((site / "search" / "search_index.json").read_text())
    found = {entry["location"].partition("#")[0] for entry in index["docs"]}
    assert {*pages} - found == {"404.html"}
    assert (site / "search" / "search_index.js").exists()
    assert "../assets/iframe-worker.js" in pages["operations/stores.html"].loaded


def test_every_page_is_in_the_navigation(site, pages):
    linked = {resolve("index.html", address)[0] for address in pages["index.html"].links}
    assert {*pages} - linked == {"404.html"}
    documents = {path.relative_to(ROOT / "docs") for path in (ROOT / "docs").rglob("*.md")}
    assert {str(path.with_suffix(".html")) for path in documents} <= {*pages}


def test_every_public_name_is_in_the_python_reference(pages):
    names = {f"ratelimit.{name}" for name in ratelimit.__all__ if not name.startswith("__")}
    assert names - pages["reference/python.html"].anchors == set()
    assert "ratelimit.Limiter.check" in pages["reference/python.html"].anchors


def test_every_field_of_the_policy_is_in_its_reference(site):
    text = (site / "reference" / "policy.html").read_text()
    for field in ("default_plan", "unknown_keys", "on_outage", "local_share", "capacity", "tenant"):
        assert f"<td><code>{field}</code></td>" in text


def test_every_endpoint_is_in_the_http_reference(pages):
    anchors = pages["reference/http.html"].anchors
    assert {"post-v1check", "post-v1settle", "v1authorize-any-method", "get-v1policy"} <= anchors


def test_every_command_is_in_its_reference(pages):
    anchors = pages["reference/commands.html"].anchors
    assert {
        "ratelimit-serve",
        "ratelimit-check-key",
        "ratelimit-policy-check-file",
        "ratelimit-top",
    } <= anchors


def test_every_example_has_a_page_that_shows_its_files(site):
    for folder in filter(Path.is_dir, (ROOT / "examples").iterdir()):
        if [file for file in folder.iterdir() if file.suffix != ".pyc" and file.name != "__pycache__"]:
            assert (site / "examples" / f"{folder.name}.html").exists(), folder.name
    assert "auth_request" in (site / "examples" / "nginx.html").read_text()
    assert "envoy.filters.http.ratelimit" in (site / "examples" / "envoy-grpc.html").read_text()


def test_llms_txt_lists_every_page_with_an_address_that_exists(site, pages):
    text = (site / "llms.txt").read_text()
    assert re.match(r"# ratelimit\n\n> .+\n\n## ", text)
    listed = re.findall(r"^- \[[^\]]+\]\(([^)]+)\): .+\.$", text, re.MULTILINE)
    assert len(listed) == len(re.findall("^- ", text, re.MULTILINE)) == len(pages) - 1
    assert [address for address in listed if not (site / address).is_file()] == []
    full = (site / "llms-full.txt").read_text()
    assert all(f"<!-- {address} -->" in full for address in listed if address.endswith(".md"))


def test_the_pictures_are_those_that_their_script_draws(tmp_path):
    (tmp_path / "figures").mkdir()
    (tmp_path / "_site").mkdir()
    script = tmp_path / "_site" / "pictures.py"
    script.write_text((TOOLS / "pictures.py").read_text())
    subprocess.run([sys.executable, script], check=True, capture_output=True)
    drawn = sorted((tmp_path / "figures").iterdir())
    assert len(drawn) == 4
    for picture in drawn:
        assert picture.read_text() == (ROOT / "docs" / "figures" / picture.name).read_text(), picture.name
