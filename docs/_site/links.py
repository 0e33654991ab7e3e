"""Links in Markdown: the sources link to files of the project, as GitHub shows them, the site to pages."""

from __future__ import annotations

import posixpath
import re
from functools import cache
from typing import Final

import project_pages
from project_pages import ROOT

_CODE: Final = re.compile(r"^( *)(```+|~~~+).*?^\1\2`*[ ]*$|`[^`\n]+`(?!\])", re.MULTILINE | re.DOTALL)
_LINK: Final = re.compile(
    r"\[(?P<text>(?:[^\[\]]|\[[^\]]*\])*)\]\((?P<target>[^)\s#]*)(?P<anchor>#[^)\s]*)?\)"
)


def rewrite_links(markdown: str, uri: str) -> str:
    """Turn links to files into links to pages, everywhere but in code.

    Args:
        markdown: the page's text.
        uri: the page, as MkDocs names it.
    """
    parts, end = [], 0
    for code in _CODE.finditer(markdown):
        parts += [_rewrite(markdown[end : code.start()], uri), code[0]]
        end = code.end()
    return "".join([*parts, _rewrite(markdown[end:], uri)])


def _rewrite(text: str, uri: str) -> str:
    return _LINK.sub(lambda match: _rewrite_link(match, uri), text)


def _rewrite_link(match: re.Match[str], uri: str) -> str:
    text, target, anchor = match["text"], match["target"], match["anchor"] or ""
    if ":" in target:
        return match[0]
    path = posixpath.normpath(posixpath.join(_find_folder(uri), target)) if target else _find_file(uri)
    if not target and (path + anchor) not in _find_pages():
        return match[0]
    page, anchor = _find_page(path, anchor)
    if page is None:
        return match[0] if path.startswith("docs/") else text
    if re.fullmatch(r"`?[\w./-]+\.md`?", text) and page.endswith(".md"):
        text = _read_title(page) or text
    return f"[{text}]({posixpath.relpath(page, posixpath.dirname(uri) or '.')}{anchor})"


def _find_page(path: str, anchor: str) -> tuple[str | None, str]:
    """Return the page, or the file of the site, that shows a file of the project, and the anchor there."""
    pages = _find_pages()
    if found := pages.get(path + anchor):
        return found.partition("#")[0], found.partition("#")[1] + found.partition("#")[2]
    if found := pages.get(path):
        page, sign, inside = found.partition("#")
        return page, anchor or sign + inside
    if path.startswith("docs/") and (ROOT / path).is_file():
        return path.removeprefix("docs/"), anchor
    return None, anchor


@cache
def _find_pages() -> dict[str, str]:
    """Return where the site shows each file and folder outside docs/."""
    pages = {"README.md": "index.md", "LICENSE": "LICENSE.txt", "docs": "index.md"}
    pages |= {"examples": "gateways.md"}
    for uri, path in project_pages.find_sources().items():
        if uri in project_pages.SPLIT:
            continue
        pages[str(path.relative_to(ROOT))] = uri
        if path.is_dir():
            pages[f"{path.relative_to(ROOT)}/README.md"] = uri
    split = project_pages.make_pages()
    for uri, file in project_pages.find_downloads().items():
        for page, folder in project_pages.find_sources().items():
            if folder in file.parents and f"#{project_pages.find_anchor(file, folder)} }}" in split[page]:
                pages[uri] = f"{page}#{project_pages.find_anchor(file, folder)}"
    for uri, (whole, section, _) in project_pages.SPLIT.items():
        folder = project_pages.find_sources()[whole].relative_to(ROOT)
        anchor = re.sub(r"[^\w\- ]", "", section.lower()).replace(" ", "-")
        pages[f"{folder}/README.md#{anchor}"] = uri
    return pages


def _find_file(uri: str) -> str:
    """Return the file of the project that a page is made of."""
    path = project_pages.find_sources().get(uri)
    if path is None:
        return f"docs/{uri}"
    return str((path / "README.md" if path.is_dir() else path).relative_to(ROOT))


def _find_folder(uri: str) -> str:
    return posixpath.dirname(_find_file(uri))


@cache
def _read_title(uri: str) -> str | None:
    path = ROOT / _find_file(uri)
    text = path.read_text() if path.is_file() else project_pages.make_pages().get(uri, "")
    match = re.search(r"^# (.+)$", text, re.MULTILINE)
    return match[1] if match else None
