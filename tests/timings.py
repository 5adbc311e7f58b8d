# SPDX-License-Identifier: Apache-2.0
"""Where the minutes go: ``pytest --timings FOLDER``, then ``python -m tests.timings FOLDER``.

Each process of the run notes what its tests and fixtures take. The table tells time on the clock,
time that the process itself was computing, that of processes which it has started and waited for
(programs, but no servers), and the rest: waiting, and what servers do meanwhile.
"""

from __future__ import annotations

import collections
import dataclasses
import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

# Rows of the table that take less are left out, seconds.
SHOWN = 5.0


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let a run say where its time goes."""
    parser.addoption("--timings", metavar="FOLDER", help="note there what tests and fixtures take")


def pytest_configure(config: pytest.Config) -> None:
    """Begin to note."""
    folder = config.getoption("timings")
    if folder is not None:
        config.pluginmanager.register(Notes(Path(folder)), "timings-notes")


def _computing() -> tuple[float, float]:
    own, others = (
        resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return own.ru_utime + own.ru_stime, others.ru_utime + others.ru_stime


class Notes:
    """Writes a line for each test's setup, call and teardown, and for each fixture."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file: TextIO = (folder / f"{os.getpid()}.jsonl").open("a", buffering=1)

    def pytest_unconfigure(self) -> None:
        """Take no more notes."""
        self._file.close()

    def _measured(self, kind: str, name: str) -> Generator[None, Any, Any]:
        process, began, before = os.getpid(), time.monotonic(), _computing()
        try:
            return (yield)
        finally:
            # Not in what a test has forked.
            if os.getpid() == process:
                own, others = (now - then for now, then in zip(_computing(), before, strict=True))
                seconds = time.monotonic() - began
                row = {"kind": kind, "name": name, "seconds": seconds, "own": own, "others": others}
                self._file.write(json.dumps(row) + "\n")

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """Measure what comes before a test."""
        return (yield from self._measured("setup", item.nodeid))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """Measure a test."""
        return (yield from self._measured("call", item.nodeid))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """Measure what comes after it."""
        return (yield from self._measured("teardown", item.nodeid))

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[Any]) -> Generator[None, Any, Any]:
        """Measure a fixture, and those that it asks for by name while it is made."""
        return (yield from self._measured("fixture", fixturedef.argname))


@dataclasses.dataclass
class Row:
    """What one line of the table adds up."""

    tests: int = 0
    seconds: float = 0.0
    own: float = 0.0
    others: float = 0.0
    around: float = 0.0

    def add(self, note: dict[str, Any]) -> None:
        """Add a note."""
        self.tests += note["kind"] in ("call", "fixture")
        self.seconds += note["seconds"]
        self.own += note["own"]
        self.others += note["others"]
        self.around += note["seconds"] if note["kind"] != "call" else 0.0

    def line(self, name: str) -> str:
        """Return the row as text."""
        waiting = self.seconds - self.own - self.others
        figures = (self.seconds, self.own, self.others, max(0.0, waiting), self.around)
        return f"{name:54}{self.tests:6}" + "".join(f"{figure:9.1f}" for figure in figures)


def _notes(folder: Path) -> Iterator[dict[str, Any]]:
    for file in sorted(folder.glob("*.jsonl")):
        with file.open() as lines:
            yield from map(json.loads, lines)


def table(folder: Path) -> str:
    """Return the table of a run."""
    places: collections.defaultdict[str, Row] = collections.defaultdict(Row)
    files: collections.defaultdict[str, Row] = collections.defaultdict(Row)
    fixtures: collections.defaultdict[str, Row] = collections.defaultdict(Row)
    everything = Row()
    for note in _notes(folder):
        if note["kind"] == "fixture":
            fixtures[note["name"]].add(note)
            continue
        file = note["name"].partition("::")[0]
        folder_name = "/".join(file.split("/")[: 3 if "/drivers/" in file else 2])
        for row in (everything, places[folder_name], files[file]):
            row.add(note)
    head = f"{'':54}{'tests':>6}" + "".join(
        f"{title:>9}" for title in ("seconds", "own", "others", "waiting", "around")
    )
    parts = [head]
    for rows in (places, files, fixtures):
        ordered = sorted(rows.items(), key=lambda item: -item[1].seconds)
        parts.append("\n".join(r.line(name) for name, r in ordered if r.seconds >= SHOWN))
    return "\n\n".join([*parts, everything.line("all tests")])


if __name__ == "__main__":
    print(table(Path(sys.argv[1])))
