"""What MkDocs does beside building docs/*.md: pages made from code and examples, links, and llms.txt.

MkDocs calls the functions whose names begin with `on_`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import command_page
import http_page
import links
import llms
import policy_page
import project_pages
import python_page
from mkdocs.structure.files import File

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.nav import Navigation
    from mkdocs.structure.pages import Page

_markdown: dict[str, str] = {}
_sections: list[tuple[str, list[Page]]] = []


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Keep in the navigation what exists, and add the examples that it does not name."""
    known = project_pages.find_sources()
    generated = {policy_page.URI, http_page.URI, python_page.URI, command_page.URI, *known}
    named: set[str] = set()

    def keep(entries: list[Any]) -> list[Any]:
        kept = []
        for entry in entries:
            [(title, target)] = entry.items()
            if isinstance(target, list):
                kept.append({title: keep(target)})
            elif target in generated or (Path(config.docs_dir) / target).exists():
                named.add(target)
                kept.append(entry)
        return kept

    config.nav = keep(config.nav or [])
    if more := sorted(uri for uri in known if uri not in named):
        config.nav.append({"More examples": more})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made from something else than docs/*.md."""
    pages = {
        policy_page.URI: policy_page.make_page(),
        http_page.URI: http_page.make_page(),
        python_page.URI: python_page.make_page(),
        command_page.URI: command_page.make_page(),
        **project_pages.make_pages(),
    }
    for uri, text in pages.items():
        files.append(File.generated(config, uri, content=text))
    for uri, path in project_pages.find_downloads().items():
        files.append(File.generated(config, uri, abs_src_path=str(path)))
    return files


def on_nav(nav: Navigation, config: MkDocsConfig, files: Files) -> None:  # noqa: ARG001 - MkDocs calls it by name
    """Remember the order of the pages, for llms.txt."""
    _sections[:] = llms.find_sections(nav)


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001 - as above
    """Turn links to files of the project into links to pages."""
    if page.is_homepage:
        page.meta["hide"] = ["navigation"]  # it has no other page beside it
    _markdown[page.file.src_uri] = links.rewrite_links(markdown, page.file.src_uri)
    return _markdown[page.file.src_uri]


def on_post_build(config: MkDocsConfig) -> None:
    """Write llms.txt, llms-full.txt, and each page as Markdown."""
    llms.write_files(
        Path(config.site_dir), config.site_name, config.site_description or "", _sections, _markdown
    )
