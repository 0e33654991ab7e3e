"""The mutants: for each guard of a promise, the change that breaks it. A file in `table/` for each."""

import tomllib
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
TABLE = Path(__file__).parent / "table"
PROMISES = [f"P{number}" for number in range(1, 12)]


@dataclass(frozen=True)
class Mutant:
    """One guard of a promise, and the change that breaks it.

    Attributes:
        promise: the promise, such as `P3`.
        number: its place in the promise's file, counted from 1.
        guard: one sentence that says what no longer holds.
        file: the file to change, from the project's root.
        text: what to replace: it occurs exactly once in the file.
        replacement: what to put in its place.
        tests: the files, or tests (`FILE::NAME`), that are run first.
    """

    promise: str
    number: int
    guard: str
    file: str
    text: str
    replacement: str
    tests: list[str] = field(default_factory=list)

    @property
    def name(self):
        """What `--only` calls it, such as `P3.2`."""
        return f"{self.promise}.{self.number}"

    def apply(self, text):
        """Return the text of the file with the change.

        Raises:
            ValueError: the text to replace does not occur exactly once.
        """
        count = text.count(self.text)
        if count != 1:
            raise ValueError(f"{self.name}: its text must occur once in {self.file}, not {count} times")
        return text.replace(self.text, self.replacement)


def read_mutants():
    """Return all mutants, in the order of the promises."""
    return [
        Mutant(promise, number, **fields)
        for promise in PROMISES
        for number, fields in enumerate(_read_table(promise), 1)
    ]


def _read_table(promise):
    text = (TABLE / f"{promise.lower()}.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)["mutant"]
