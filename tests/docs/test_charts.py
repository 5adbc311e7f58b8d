# SPDX-License-Identifier: Apache-2.0
"""The charts of the documentation are those of the measured figures."""

from __future__ import annotations

import json
import re
from xml.etree import ElementTree

import pytest

from bench import charts
from tests.docs.blocks import ROOT

RESULTS = json.loads(charts.RESULTS.read_text())
TEXT = (ROOT / "bench" / "RESULTS.rst").read_text()
SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize("path", charts.files(RESULTS), ids=lambda path: path.name)
def test_the_files_are_those_of_the_figures(path):
    assert path.read_text() == charts.files(RESULTS)[path], "run python -m bench.charts"


def test_the_readme_has_its_chart():
    other = json.loads(charts.RESULTS.read_text())
    other["drivers"]["rbd"]["add"]["ratio"] = [3.0, 2.5, 3.5]
    text = charts.readme(charts.README.read_text(), other)
    assert "    rbd     add 1 GiB               3.00x  |===============\n" in text
    assert text.count("add 1 GiB") == charts.README.read_text().count("add 1 GiB")


def test_the_figures_are_recorded():
    """Each ratio, and each table of a chart, is in the record of the measured runs."""
    missing = []
    for driver, scenarios in RESULTS["drivers"].items():
        for name, found in scenarios.items():
            ratio, least, most = found["ratio"]
            said = f"{ratio:.2f}x ({least:.2f}-{most:.2f})"
            if found["turns"] == 1 and said not in TEXT:
                said = f"{ratio:.2f}x"
            if said not in TEXT or not _row_is_there(found):
                missing.append((driver, name))
    assert missing == []


def _row_is_there(found) -> bool:
    if charts.CURRENT not in found:
        return True
    own = found[charts.CURRENT]
    row = rf"current +{own['seconds']:.3f} +{own['rate'] or '-'} +[\d.]+ +{own['peak'] or '-'} "
    return re.search(row, TEXT) is not None


@pytest.mark.parametrize("chart", charts.ALL, ids=lambda chart: chart.name)
def test_a_picture_can_be_read_and_heard(chart):
    root = ElementTree.fromstring(charts.picture(chart, RESULTS))
    assert root.get("role") == "img"
    assert root.find(f"{SVG}desc").text == charts.in_words(chart, RESULTS)
    shown = {each.text for each in root.iter(f"{SVG}text")}
    assert {chart.title, *(row.label for row in chart.rows)} <= shown
    width, height = (float(root.get(name)) for name in ("width", "height"))
    for bar in root.iter(f"{SVG}rect"):
        assert float(bar.get("x")) + float(bar.get("width")) <= width
        assert float(bar.get("y")) + float(bar.get("height")) <= height
    for text in root.iter(f"{SVG}text"):
        letter = 6.5 if text.get("class") == "note" else 8
        assert float(text.get("x")) + letter * len(text.text) <= width, text.text


def test_a_run_is_taken_over():
    """What the benchmark writes as JSON takes the place of older figures."""
    turn = {"bytes": 512 * charts.MIB, "peak_rss": 40 * charts.MIB}
    record = {
        "command": ["/somewhere/bench/__main__.py", "file", "--json", "run.json"],
        "machine": {},
        "scenarios": {
            "add": {
                "title": "add 512 MiB",
                "measurements": {
                    "reference": [{**turn, "seconds": seconds} for seconds in (4.0, 2.0, 3.0)],
                    "current": [{**turn, "seconds": seconds} for seconds in (1.0, 2.0, 2.0)],
                },
            }
        },
    }
    results = json.loads(charts.RESULTS.read_text())
    charts.take(results, record, "2027-01-02")
    assert results["drivers"]["file"]["add"] == {
        "title": "add 512 MiB",
        "date": "2027-01-02",
        "turns": 3,
        "reference": {"seconds": 3.0, "rate": 171, "peak": 40},
        "current": {"seconds": 2.0, "rate": 256, "peak": 40},
        "ratio": [1.5, 1.0, 4.0],
    }
    assert "1.50x" in charts.picture(charts.ALL[0], results)
    record["machine"]["scale, so no record"] = 0.1
    with pytest.raises(ValueError, match="no record"):
        charts.take(results, record, "2027-01-02")
