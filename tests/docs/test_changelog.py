"""CHANGELOG.md has the form of Keep a Changelog, and its newest release is the version of the program."""

import re
from pathlib import Path

import pytest

import ratelimit

ROOT = Path(__file__).parents[2]
KINDS = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"]
RELEASE = re.compile(r"\[?(?P<version>\d+\.\d+\.\d+)\]? - (?P<date>\d{4}-\d{2}-\d{2})")


def find_mistakes(text):
    """Return what is wrong with the headings of a changelog, and the version of its newest release."""
    mistakes, releases = [], []
    sections = re.split(r"^## (.+)\n", text, flags=re.MULTILINE)
    if not re.match(r"# Changelog\n", text):
        mistakes.append("the title is not Changelog")
    if sections[1] not in {"Unreleased", "[Unreleased]"}:
        mistakes.append(f"the first section is not Unreleased: {sections[1]}")
    for heading, body in zip(sections[1::2], sections[2::2], strict=True):
        kinds = re.findall(r"^### (.+)$", body, re.MULTILINE)
        if kinds != [kind for kind in KINDS if kind in kinds]:
            mistakes.append(f"{heading}: not in the order of {KINDS}: {kinds}")
        if [*filter(str.strip, re.split(r"^### .+\n", body, flags=re.MULTILINE)[:1])]:
            mistakes.append(f"{heading}: text before the first kind of change")
        if heading in {"Unreleased", "[Unreleased]"}:
            continue
        release = RELEASE.fullmatch(heading)
        if release is None:
            mistakes.append(f"neither Unreleased nor VERSION - DATE: {heading}")
        else:
            releases.append((release["date"], [int(number) for number in release["version"].split(".")]))
    if releases != sorted(releases, reverse=True):
        mistakes.append("the newest release is not the first")
    return mistakes, ".".join(map(str, releases[0][1])) if releases else None


def test_the_changelog_has_no_mistakes():
    assert find_mistakes((ROOT / "CHANGELOG.md").read_text())[0] == []


def test_the_newest_release_is_the_version_of_the_program():
    newest = find_mistakes((ROOT / "CHANGELOG.md").read_text())[1]
    # Before the first release there is none.
    assert newest in {None, ratelimit.__version__}


GOOD = """# Changelog

## Unreleased

### Added

- a

## 0.2.0 - 2026-02-20

### Fixed

- b

## 0.1.0 - 2026-01-01
"""


def test_a_good_changelog_is_accepted():
    assert find_mistakes(GOOD) == ([], "0.2.0")


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("# Changelog", "# Changes"),
        ("## Unreleased", "## Next"),
        ("### Added", "### New"),
        ("### Added", "### Fixed\n\n- z\n\n### Added"),
        ("### Added\n", "\n"),
        ("0.2.0 - 2026-02-20", "0.2.0"),
        ("0.2.0 - 2026-02-20", "0.2.0 - 20 February 2026"),
        ("0.2.0 - 2026-02-20", "0.0.9 - 2025-02-20"),
    ],
)
def test_a_mistake_is_found(right, wrong):
    assert find_mistakes(GOOD.replace(right, wrong, 1))[0]
