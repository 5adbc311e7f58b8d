# SPDX-License-Identifier: Apache-2.0
"""Draws the charts of the documentation from measured runs.

``python -m bench.charts`` draws them from ``bench/results.json``. With names of files that
``python -m bench DRIVER --json FILE`` has written, it first takes their figures over.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import html
import json
import re
import statistics
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

MIB = 1024 * 1024
RESULTS = Path(__file__).with_name("results.json")
CHARTS = Path(__file__).parents[1] / "doc" / "source" / "admin" / "charts"
README = Path(__file__).parents[1] / "README.rst"
REFERENCE, CURRENT = "reference", "current"

_SVG = "http://www.w3.org/2000/svg"
# A narrow picture: on a telephone the letters stay large enough.
_WIDTH = 480
_LEFT, _RIGHT = 12, 96
_ROW, _BAR, _TOP = 42, 14, 54
_GAP = 3

_STYLE = """\
text { font: 14px system-ui, sans-serif; fill: #1f2328; }
.title { font-size: 16px; font-weight: 600; }
.note { font-size: 12px; fill: #59636e; }
.paper { fill: #ffffff; stroke: #d1d9e0; }
.current { fill: #1a6fc4; }
.reference { fill: #9aa4ae; }
.range { stroke: #1f2328; stroke-width: 1.5; }
.one { stroke: #d4a72c; stroke-width: 3; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; }
  .note { fill: #9198a1; }
  .paper { fill: #151b23; stroke: #3d444d; }
  .current { fill: #4da3f5; }
  .reference { fill: #656c76; }
  .range { stroke: #e6edf3; }
  .one { stroke: #e3b341; }
}"""


@dataclasses.dataclass(frozen=True)
class Row:
    """A line of a chart: its label, and where its figures are."""

    label: str
    driver: str
    scenario: str


@dataclasses.dataclass(frozen=True)
class Chart:
    """A chart; `kind` is "ratio" or "memory"."""

    name: str
    kind: str
    title: str
    note: str
    rows: tuple[Row, ...]


ALL = (
    Chart(
        "uploads",
        "ratio",
        "Uploads: times as fast as 5.7.0",
        "Bar: median. Thin line: least to most of the turns. Yellow: 5.7.0",
        (
            Row("File, 512 MiB", "file", "add"),
            Row("File, 94 % zeros, thin", "file", "add-thin"),
            Row("File, 2000 images of 64 KiB", "file", "add-small"),
            Row("Ceph, 1 GiB", "rbd", "add"),
            Row("Ceph, 94 % zeros, thin", "rbd", "add-thin"),
            Row("S3, 1 GiB", "s3", "add"),
            Row("S3, 1 GiB read in pieces of 64 KiB", "s3", "add-network"),
            Row("S3, 20 ms away", "s3", "add-far"),
            Row("Swift, 1000 MiB", "swift", "add-default"),
            Row("Swift, 20 ms away", "swift", "add-far"),
            Row("Cinder, 1 GiB", "cinder", "add"),
            Row("VMware, 1 GiB", "vmware", "add"),
        ),
    ),
    Chart(
        "downloads",
        "ratio",
        "Downloads: times as fast as 5.7.0",
        "Bar: median. Thin line: least to most of the turns. Yellow: 5.7.0",
        (
            Row("File, 512 MiB", "file", "get"),
            Row("File, 2000 images of 64 KiB", "file", "get-small"),
            Row("Ceph, 1 GiB", "rbd", "get"),
            Row("Ceph, 94 % holes", "rbd", "get-thin"),
            Row("S3, 1 GiB", "s3", "get"),
            Row("S3, 20 ms away", "s3", "get-far"),
            Row("Swift, 1000 MiB in segments", "swift", "get"),
            Row("Swift, 1000 MiB, 5.7.0 in one object", "swift", "get-default"),
            Row("Swift, 20 ms away", "swift", "get-far"),
            Row("Cinder, 1 GiB", "cinder", "get"),
            Row("VMware, 1 GiB", "vmware", "get"),
        ),
    ),
    Chart(
        "memory",
        "memory",
        "Memory of the process in an upload, MiB",
        "Blue: this release; grey: 5.7.0",
        (
            Row("File, 4 GiB", "file", "memory-known"),
            Row("Ceph, 1 GiB", "rbd", "add"),
            Row("S3, 4 GiB", "s3", "memory-known"),
            Row("S3, 1 GiB, slow service", "s3", "memory-slow"),
            Row("Swift, 2000 MiB, segments of 32 MB", "swift", "memory-32"),
            Row("Swift, 1953 MiB, segments of 200 MB", "swift", "memory-200"),
            Row("Cinder, 3.2 GiB", "cinder", "unknown"),
            Row("VMware, 1 GiB", "vmware", "add"),
        ),
    ),
)

# The chart of the README, which is text.
_IN_TEXT = (
    Row("file    add 512 MiB", "file", "add"),
    Row("        add, 94 % zeros, thin", "file", "add-thin"),
    Row("        get 512 MiB", "file", "get"),
    Row("        add 64 KiB images", "file", "add-small"),
    Row("rbd     add 1 GiB", "rbd", "add"),
    Row("        get 1 GiB", "rbd", "get"),
    Row("        add, 94 % zeros, thin", "rbd", "add-thin"),
    Row("        get, 94 % holes", "rbd", "get-thin"),
    Row("s3      add 1 GiB", "s3", "add"),
    Row("        get 1 GiB", "s3", "get"),
    Row("        get, 20 ms away", "s3", "get-far"),
    Row("swift   add 1000 MiB", "swift", "add-default"),
    Row("        get, equal segments", "swift", "get"),
    Row("        get, 20 ms away", "swift", "get-far"),
    Row("cinder  add 1 GiB", "cinder", "add"),
    Row("        get 1 GiB", "cinder", "get"),
    Row("vmware  add 1 GiB", "vmware", "add"),
    Row("        get 1 GiB", "vmware", "get"),
)
_A_LINE = re.compile(r"(?:^    .*\|=+\n)+", re.MULTILINE)


def take(results: dict[str, Any], record: dict[str, Any], date: str) -> None:
    """Take the figures of a run over, in the place of older ones."""
    driver = next(word for word in record["command"] if word in results["drivers"])
    if "scale, so no record" in record["machine"]:
        raise ValueError("a run with smaller images is no record")
    for name, scenario in record["scenarios"].items():
        measured = scenario["measurements"]
        if not {REFERENCE, CURRENT} <= set(measured):
            continue
        results["drivers"][driver][name] = {
            "title": scenario["title"],
            "date": date,
            "turns": len(measured[CURRENT]),
            **{side: _figures(measured[side]) for side in (REFERENCE, CURRENT)},
            "ratio": _ratio(measured),
        }


def _figures(series: Sequence[dict[str, Any]]) -> dict[str, Any]:
    seconds, moved = (
        statistics.median(each[name] for each in series) for name in ("seconds", "bytes")
    )
    peak = max(each["peak_rss"] for each in series)
    return {
        "seconds": round(seconds, 3),
        "rate": round(moved / MIB / seconds) or None,
        "peak": round(peak / MIB) or None,
    }


def _ratio(measured: dict[str, Any]) -> list[float]:
    pairs = zip(measured[REFERENCE], measured[CURRENT], strict=True)
    turns = [other["seconds"] / own["seconds"] for other, own in pairs]
    return [round(each, 2) for each in (statistics.median(turns), min(turns), max(turns))]


def figures_of(results: dict[str, Any], row: Row) -> dict[str, Any]:
    """Return what was measured for a line of a chart."""
    found: dict[str, Any] = results["drivers"][row.driver][row.scenario]
    return found


def picture(chart: Chart, results: dict[str, Any]) -> str:
    """Return a chart as SVG."""
    height = _TOP + _ROW * len(chart.rows) + 8
    size = f'viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}"'
    lines = [
        f'<svg xmlns="{_SVG}" {size} role="img" aria-labelledby="title desc">',
        f'<title id="title">{html.escape(chart.title)}</title>',
        f'<desc id="desc">{html.escape(in_words(chart, results))}</desc>',
        f"<style>\n{_STYLE}\n</style>",
        f'<rect class="paper" x="0.5" y="0.5" width="{_WIDTH - 1}" height="{height - 1}" rx="6"/>',
        f'<text class="title" x="{_LEFT}" y="24">{html.escape(chart.title)}</text>',
        f'<text class="note" x="{_LEFT}" y="42">{html.escape(chart.note)}</text>',
        *(_bars if chart.kind == "memory" else _ratios)(chart, results),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _ratios(chart: Chart, results: dict[str, Any]) -> Iterator[str]:
    found = [figures_of(results, row)["ratio"] for row in chart.rows]
    scale = (_WIDTH - _LEFT - _RIGHT) / max(most for _ratio, _least, most in found)
    one = _LEFT + scale
    for row, (ratio, least, most), top in _placed(chart, found):
        yield from _bar(top, ratio * scale, CURRENT)
        ends = f'y1="{top - 2:.1f}" y2="{top + _BAR + 2:.1f}"'
        yield f'<line class="one" x1="{one:.1f}" x2="{one:.1f}" {ends}/>'
        middle = top + _BAR / 2
        yield (
            f'<line class="range" x1="{_LEFT + least * scale:.1f}" y1="{middle:.1f}" '
            f'x2="{_LEFT + most * scale:.1f}" y2="{middle:.1f}"/>'
        )
        yield _text(_LEFT + max(most, 1.03) * scale + 6, top + 12, f"{ratio:.2f}x")
        yield _text(_LEFT, top - 5, row.label)


def _bars(chart: Chart, results: dict[str, Any]) -> Iterator[str]:
    found = [figures_of(results, row) for row in chart.rows]
    peaks = [(each[CURRENT]["peak"], each[REFERENCE]["peak"]) for each in found]
    scale = (_WIDTH - _LEFT - _RIGHT) / max(max(pair) for pair in peaks)
    for row, (own, other), top in _placed(chart, peaks):
        half = _BAR / 2 - 0.5
        yield from _bar(top, own * scale, CURRENT, half)
        yield from _bar(top + half + 1, other * scale, REFERENCE, half)
        yield _text(_LEFT + max(own, other) * scale + 6, top + 12, f"{own} / {other}")
        yield _text(_LEFT, top - 5, row.label)


def _placed(chart: Chart, figures: Sequence[Any]) -> Iterator[tuple[Row, Any, float]]:
    for number, (row, each) in enumerate(zip(chart.rows, figures, strict=True)):
        yield row, each, _TOP + _ROW * number + _ROW - _BAR - _GAP - 2


def _bar(top: float, width: float, kind: str, height: float = _BAR) -> Iterator[str]:
    yield (
        f'<rect class="{kind}" x="{_LEFT}" y="{top:.1f}" width="{width:.1f}" height="{height}"/>'
    )


def _text(x: float, y: float, text: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}">{html.escape(text)}</text>'


def in_words(chart: Chart, results: dict[str, Any]) -> str:
    """Return what a chart says, for those who do not see it."""
    said = []
    for row in chart.rows:
        found = figures_of(results, row)
        if chart.kind == "memory":
            own, other = found[CURRENT]["peak"], found[REFERENCE]["peak"]
            said.append(f"{row.label}: {own} MiB, 5.7.0 {other} MiB")
        else:
            said.append(f"{row.label}: {found['ratio'][0]:.2f} times")
    return f"{chart.title}. {'; '.join(said)}."


def page(chart: Chart, results: dict[str, Any]) -> str:
    """Return what a page includes: the picture, and its figures as a table."""
    lines = [
        ".. Made by python -m bench.charts; do not edit.",
        "",
        f".. image:: charts/{chart.name}.svg",
        "   :width: 560px",
        f"   :alt: {in_words(chart, results)}",
        "",
        f".. list-table:: {chart.title}",
        "   :header-rows: 1",
        "",
        *_table(_head(chart), *(_cells(chart, row, results) for row in chart.rows)),
    ]
    return "\n".join(lines) + "\n"


def _head(chart: Chart) -> tuple[str, ...]:
    if chart.kind == "memory":
        return "", "5.7.0", "This release", "Measured"
    return "", "Ratio (least to most)", "MiB/s, 5.7.0 and this", "Measured"


def _cells(chart: Chart, row: Row, results: dict[str, Any]) -> tuple[str, ...]:
    found = figures_of(results, row)
    own, other = found.get(CURRENT, {}), found.get(REFERENCE, {})
    if chart.kind == "memory":
        return row.label, f"{other['peak']} MiB", f"{own['peak']} MiB", found["date"]
    ratio, least, most = found["ratio"]
    one = found["turns"] == 1
    return (
        row.label,
        f"{ratio:.2f}" if one else f"{ratio:.2f} ({least:.2f} to {most:.2f})",
        f"{other['rate']}, {own['rate']}" if own else "-",
        f"{found['date']}, {found['turns']} turn{'' if one else 's'}",
    )


def _table(*rows: tuple[str, ...]) -> Iterator[str]:
    for cells in rows:
        for number, cell in enumerate(cells):
            yield f"   {'*' if number == 0 else ' '} - {cell}".rstrip()


def readme(text: str, results: dict[str, Any]) -> str:
    """Return the README with the chart of the figures in the place of the one it has."""
    lines = []
    for row in _IN_TEXT:
        ratio = figures_of(results, row)["ratio"][0]
        lines.append(f"    {row.label:<31} {ratio:.2f}x  |{'=' * round(5 * ratio)}\n")
    return _A_LINE.sub("".join(lines), text, count=1)


def files(results: dict[str, Any]) -> dict[Path, str]:
    """Return the content of all files that are made."""
    made = {README: readme(README.read_text(), results)}
    for chart in ALL:
        made[CHARTS / f"{chart.name}.svg"] = picture(chart, results)
        made[CHARTS / f"{chart.name}.inc"] = page(chart, results)
    return made


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.charts", description=__doc__)
    parser.add_argument("runs", nargs="*", metavar="FILE", help="JSON of a measured run")
    runs = parser.parse_args().runs
    results = json.loads(RESULTS.read_text())
    for run in runs:
        path = Path(run)
        measured = datetime.datetime.fromtimestamp(path.stat().st_mtime, datetime.timezone.utc)
        take(results, json.loads(path.read_text()), measured.date().isoformat())
    if runs:
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    CHARTS.mkdir(exist_ok=True)
    for path, content in files(results).items():
        path.write_text(content)
    return 0


if __name__ == "__main__":
    sys.exit(main())
