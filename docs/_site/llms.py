"""llms.txt (https://llmstxt.org): what the site has, for readers who ask a model; llms-full.txt: its text."""

from __future__ import annotations

import posixpath
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from mkdocs.structure.nav import Navigation
    from mkdocs.structure.pages import Page


def find_sections(nav: Navigation) -> list[tuple[str, list[Page]]]:
    """Return the sections of the navigation with their pages, in order."""
    return [
        (item.title or "", item.children if item.is_section else [item])  # type: ignore[attr-defined] # by item.is_section
        for item in nav.items
    ]


def write_files(
    site: Path, name: str, summary: str, sections: list[tuple[str, list[Page]]], markdown: dict[str, str]
) -> None:
    """Write llms.txt, llms-full.txt, and beside each page its Markdown.

    Args:
        site: the folder of the built site.
        name: the name of the project.
        summary: what it is, in a sentence or two.
        sections: the pages, by section of the navigation.
        markdown: the text of each page, by its source's address.
    """
    lines, texts = [f"# {name}", "", f"> {summary}", ""], []
    for title, pages in sections:
        lines += [f"## {'Optional' if title == 'Project' else title}", ""]
        for page in pages:
            uri = page.file.src_uri
            text = markdown[uri]
            address = page.file.dest_uri
            if not re.search(r"^::: ", text, re.MULTILINE):  # a page that only its HTML has in full
                address = uri
                (site / uri).parent.mkdir(parents=True, exist_ok=True)
                (site / uri).write_text(text)
                texts.append(f"<!-- {uri} -->\n\n{_resolve_links(text, uri).strip()}\n")
            lines.append(f"- [{page.title}]({address}): {find_summary(text)}")
        lines.append("")
    (site / "llms.txt").write_text("\n".join(lines))
    (site / "llms-full.txt").write_text("\n".join(texts))


def find_summary(text: str) -> str:
    """Return the first sentence of a page, without links and other marks."""
    body = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    for paragraph in re.split(r"\n\s*\n", body):
        line = " ".join(paragraph.split())
        if line and not re.match(r"[#|<!>:-]|\d\.", line):
            line = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", line)
            return re.split(r"(?<=[.?])\s", line)[0].rstrip(":").rstrip(".") + "."
    return re.sub(r"^#+ ", "", body.strip().split("\n", 1)[0]) + "."


def _resolve_links(text: str, uri: str) -> str:
    """Make relative links relative to the site's root."""
    folder = posixpath.dirname(uri)

    def resolve(match: re.Match[str]) -> str:
        return f"]({posixpath.normpath(posixpath.join(folder, match[1]))}{match[2]}"

    return re.sub(r"\]\((?![a-z]+:|#)([^)#\s]+)([)#])", resolve, text)
