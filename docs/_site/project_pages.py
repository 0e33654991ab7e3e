"""Pages from files outside docs/: the examples, the changelog, and what contributors read."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]

PROJECT: Final = {
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
    "reporting.md": "SECURITY.md",
}
"""Pages, and the file of the project that each of them shows."""

SPLIT: Final = {
    "examples/envoy-grpc.md": ("examples/envoy.md", "Rate-limit service over gRPC", "Envoy over gRPC")
}
"""Pages that a section of another page makes: the page, the section, and the title."""

_LANGUAGES: Final = {
    ".conf": "nginx",
    ".js": "javascript",
    ".json": "json",
    ".lua": "lua",
    ".py": "python",
    ".service": "ini",
    ".toml": "toml",
    ".yaml": "yaml",
    ".yml": "yaml",
    "Dockerfile": "docker",
}
_MOST_LINES: Final = 400  # a longer file is for machines; the page only leads to it


@cache
def find_sources() -> dict[str, Path]:
    """Return the pages made of files outside docs/, and the file or folder of each."""
    pages = {uri: ROOT / name for uri, name in PROJECT.items()}
    for path in sorted((ROOT / "examples").iterdir()):
        if path.is_dir() and _find_files(path):
            pages[f"examples/{path.name}.md"] = path
        elif path.suffix == ".py":
            pages[f"examples/{path.stem}.md"] = path
    for uri, (whole, _, _) in SPLIT.items():
        pages[uri] = pages[whole]
    return pages


@cache
def find_downloads() -> dict[str, Path]:
    """Return the files that the site has as they are, by their address in the site."""
    downloads = {"LICENSE.txt": ROOT / "LICENSE"}
    for path in {*find_sources().values()}:
        if path.is_dir():
            downloads |= {str(file.relative_to(ROOT)): file for file in _find_files(path)}
    return downloads


def make_pages() -> dict[str, str]:
    """Return the Markdown of each page."""
    pages = {}
    for uri, path in find_sources().items():
        if path.is_dir():
            pages[uri] = _make_folder_page(path)
        elif path.suffix == ".py":
            pages[uri] = _make_script_page(path)
        else:
            pages[uri] = path.read_text()
    for uri, (whole, section, title) in SPLIT.items():
        pages[whole], pages[uri] = _split_page(pages[whole], section, title)
    return pages


def find_anchor(path: Path, folder: Path) -> str:
    """Return the anchor of a file on the page of its folder."""
    return "file-" + re.sub(r"\W+", "-", str(path.relative_to(folder)).lower())


def _find_files(folder: Path) -> list[Path]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and "__pycache__" not in path.parts]
    return [path for path in files if path.name != "README.md" and not path.name.startswith(".")]


def _make_folder_page(folder: Path) -> str:
    readme = folder / "README.md"
    told = f"The files of `examples/{folder.name}`, to read and to copy. Tests use each of them."
    head = readme.read_text() if readme.exists() else f"# {_make_title(folder.name)}\n\n{told}\n"
    shown = "\n".join(_show_file(path, folder, level=3) for path in _find_files(folder))
    return f"{head}\n## Files\n\n{shown}"


def _make_script_page(script: Path) -> str:
    told = ast.get_docstring(ast.parse(script.read_text())) or ""
    name = script.relative_to(ROOT)
    first = f"# {_make_title(script.stem)}\n\n`{name}`: {told}\n\n"
    return first + _show_file(script, script.parent, level=0)


def _show_file(path: Path, folder: Path, level: int) -> str:
    name = str(path.relative_to(folder))
    heading = f"{'#' * level} `{name}` {{ #{find_anchor(path, folder)} }}\n\n" if level else ""
    text = path.read_text()
    lines = text.count("\n")
    if lines > _MOST_LINES:
        return f'{heading}<a href="{folder.name}/{name}">{name}</a> has {lines:,} lines.\n'
    language = _LANGUAGES.get(path.suffix) or _LANGUAGES.get(path.name, "text")
    return f"{heading}```{language}\n{text.rstrip()}\n```\n"


def _split_page(text: str, section: str, title: str) -> tuple[str, str]:
    """Take a section, and the files that only it names, out of a page."""
    before, start, rest = text.partition(f"## {section}\n")
    if not start:
        raise ValueError(f"there is no section {section!r} to make the page {title!r} of")
    body, files = rest.split("\n## Files\n", 1)
    body, end, after = body.partition("\n## ")
    moved, kept = [], []
    for block in re.split(r"^(?=### `)", files.lstrip("\n"), flags=re.MULTILINE):
        name = re.match(r"### `([^`]+)`", block)
        (moved if name and name[1] in body and name[1] not in before.split("\n## ", 1)[1] else kept).append(
            block
        )
    first = f"{before}{end.lstrip()}{after}\n## Files\n\n{''.join(kept)}"
    body = body.replace("\n### ", "\n## ")
    return first, f"# {title}\n{body}\n## Files\n\n{''.join(moved)}"


def _make_title(name: str) -> str:
    words = re.sub(r"[_-]", " ", name)
    return f"{words[0].upper()}{words[1:]}".replace("Llm", "LLM")
