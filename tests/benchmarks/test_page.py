"""The tables of docs/benchmarks.md and of the README are those of one run's figures."""

import json

import pytest

from benchmarks import page
from benchmarks.report import MARKED, fill_marked
from benchmarks.suite import app, library
from benchmarks.targets import TARGETS


@pytest.fixture(scope="module")
def document():
    return json.loads(page.FIGURES.read_text())


def test_the_page_has_the_tables_of_the_figures_beside_it(document):
    texts, blocks = [file.read_text() for file in page.PAGES], page.make_blocks(document)
    assert {found["name"] for text in texts for found in MARKED.finditer(text)} == {*blocks}
    assert [fill_marked(text, blocks) for text in texts] == texts


def test_the_page_shows_every_target(document):
    assert [verdict["what"] for verdict in document["targets"]] == [target.what for target in TARGETS]


def test_every_contestant_of_the_figures_is_shown(document):
    blocks = page.make_blocks(document)
    figures = page.Figures(document)
    for name in figures.names(app.CELL.label):
        assert f"| {name} " in blocks["application"]
    for name in figures.names(library.ONE_EACH.label):
        assert name in blocks["one-limit"]


def test_what_was_not_measured_is_left_empty(document):
    rows = [row for row in document["figures"] if row["figure"] != "p99_ms"]
    blocks = page.make_blocks({**document, "figures": rows})
    heading, _, *lines = [line.split("|") for line in blocks["one-task"].splitlines()]
    column = [title.strip() for title in heading].index("p99 ms")
    assert lines
    assert not any(line[column].strip() for line in lines)


def test_a_run_is_written_as_json_with_a_line_for_each_figure(monkeypatch, tmp_path, document):
    run = {name: document[name] for name in ("finished", "machine", "versions", "figures")}
    (tmp_path / "library.json").write_text(json.dumps(run))
    (tmp_path / "targets.json").write_text(json.dumps(document["targets"]))
    for name in page.PICTURES:
        (tmp_path / name).write_text("<svg/>")
    monkeypatch.setattr(page, "RESULTS", tmp_path)
    monkeypatch.setattr(page, "FIGURES", tmp_path / "figures" / "benchmarks.json")
    monkeypatch.setattr(page, "PAGES", [tmp_path / "page.md"])
    (tmp_path / "figures").mkdir()
    (tmp_path / "page.md").write_text("<!-- made: run -->\n<!-- end -->\n")
    page.main()
    written = (tmp_path / "figures" / "benchmarks.json").read_text()
    assert json.loads(written) == {**document, "started": document["finished"]}
    assert written.count("\n") > len(document["figures"])
    assert document["machine"]["processor"] in (tmp_path / "page.md").read_text()
