"""The dashboard of examples/grafana has the form that Grafana documents."""

from itertools import combinations

import pytest

from .conftest import DASHBOARD, read_dashboard

PANELS = read_dashboard()["panels"]
SHOWN = [panel for panel in PANELS if panel["type"] != "row"]
SOURCE = {"type": "prometheus", "uid": "${datasource}"}


def test_the_file_can_be_imported_and_read():
    dashboard = read_dashboard()
    assert dashboard["schemaVersion"] >= 36  # Grafana 9.0 and newer; later ones migrate it
    assert dashboard["id"] is None  # else Grafana would look for a dashboard with this number
    assert dashboard["title"]
    assert dashboard["uid"]
    lines = DASHBOARD.read_text().splitlines()
    assert lines[1].startswith('  "')


def test_the_variables_are_the_source_the_sidecar_and_the_plan():
    source, *others = read_dashboard()["templating"]["list"]
    assert (source["name"], source["type"], source["query"]) == ("datasource", "datasource", "prometheus")
    assert [variable["name"] for variable in others] == ["instance", "plan"]
    assert all(variable["datasource"] == SOURCE for variable in others)


def test_panels_have_ids_of_their_own_and_do_not_overlap():
    ids = [panel["id"] for panel in PANELS]
    assert len(set(ids)) == len(ids)
    for panel in PANELS:
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
    for one, other in combinations(PANELS, 2):
        assert not overlap(one["gridPos"], other["gridPos"]), (one["title"], other["title"])


def overlap(one, other):
    return (
        one["x"] < other["x"] + other["w"]
        and other["x"] < one["x"] + one["w"]
        and one["y"] < other["y"] + other["h"]
        and other["y"] < one["y"] + one["h"]
    )


@pytest.mark.parametrize("panel", SHOWN, ids=lambda panel: panel["title"])
def test_every_panel_says_what_it_shows_and_in_which_unit(panel):
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["datasource"] == SOURCE
    ids = [target["refId"] for target in panel["targets"]]
    assert ids
    assert len(set(ids)) == len(ids)
    assert all(target["datasource"] == SOURCE and target["legendFormat"] for target in panel["targets"])


def test_titles_are_unique_and_annotations_have_a_source():
    titles = [panel["title"] for panel in PANELS]
    assert len(set(titles)) == len(titles)
    assert all(note["datasource"] == SOURCE for note in read_dashboard()["annotations"]["list"])
