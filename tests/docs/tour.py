# SPDX-License-Identifier: Apache-2.0
"""Runs the commands of the tour, and compares their output with the page.

``python -m tests.docs.tour`` writes the output into the page where it differs, with ``--all``
everywhere.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from .blocks import ROOT, SOURCE, Block, blocks_of

PAGE = SOURCE / "cli" / "tour.rst"
CONFIGURATION = "/etc/glance/glance-api.conf"

_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
# What no two runs have in common, wherever it stands.
_VARIES = (
    (_UUID, "ID"),
    (re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d"), "DATE"),
    (re.compile(r"[\d.]+ [KMGT]iB free"), "ROOM free"),
    # Widths of columns.
    (re.compile(r"-{3,}"), "---"),
    (re.compile(r" {2,}"), " "),
)
# And in the output of some commands.
_VARIES_IN = {
    "bench": (
        (re.compile(r"(?<=\| )[\d.]+(?= *\|)"), "N"),
        (re.compile(r"\d+(?:\.\d+)?(?= cores| at a time| MiB/s|;)"), "N"),
    ),
    "du": ((re.compile(r"[\d.]+ [KMGT]iB(?= *\|)"), "ROOM"),),
}


@dataclass
class Step:
    """A command of the page, and what the page says that it prints."""

    line: int  # of the page
    command: str
    shown: list[str] = field(default_factory=list)


def steps_of(block: Block) -> Iterator[Step]:
    """Yield the commands of a block."""
    step: Step | None = None
    for number, line in enumerate(block.text.splitlines(), block.line):
        if line.startswith("$ "):
            if step is not None:
                yield step
            step = Step(number, line[2:])
        elif step is None:
            raise ValueError(f"{block}: output without a command")
        elif line.startswith("> ") and not step.shown:
            step.command += "\n" + line[2:]
        else:
            step.shown.append(line)
    if step is not None:
        yield step


class Tour:
    """A folder in the place of the root directory, in which the commands run.

    :param folder: an empty one
    """

    def __init__(self, folder: Path) -> None:
        self._root = folder
        self._home = folder / "home" / "operator"
        self._ids: dict[str, str] = {}  # of the page: those of this run
        for name in ("home/operator", "bin", "srv/glance", "etc/glance"):
            (folder / name).mkdir(parents=True)
        command = [sys.executable, "-m", "glance_store.cli"]
        command.append(f"--config-file={folder}{CONFIGURATION}")
        script = folder / "bin" / "glance-store"
        script.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
        script.chmod(0o755)

    def _here(self, text: str) -> str:
        for shown, own in self._ids.items():
            text = text.replace(shown, own)
        return text.replace("/srv/glance", f"{self._root}/srv/glance")

    def configure(self, block: Block) -> None:
        """Write the configuration that the page shows."""
        (self._root / CONFIGURATION[1:]).write_text(self._here(block.text) + "\n")

    def run(self, step: Step) -> list[str]:
        """Return what a command prints, as the page would have it."""
        run = subprocess.run(
            ["bash", "-c", self._here(step.command)],
            check=False,
            cwd=self._home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=120,
            env={
                **os.environ,
                "PATH": f"{self._root}/bin:{os.environ['PATH']}",
                "PYTHONPATH": str(ROOT),
                "LC_ALL": "C",
                "COLUMNS": "100",
            },
        )
        text = run.stdout.decode().replace(str(self._root), "")
        new = [each for each in _UUID.findall(text) if each not in self._ids.values()]
        for shown in _UUID.findall("\n".join(step.shown)):
            if shown not in self._ids and new:
                self._ids[shown] = new.pop(0)
        for shown, own in self._ids.items():
            text = text.replace(own, shown)
        return _aligned(text.splitlines())


def _aligned(lines: list[str]) -> list[str]:
    """Return lines with the tables in them as wide as their cells, which have become shorter."""
    rows = [[cell.strip() for cell in line.split("|")] for line in lines if line.startswith("|")]
    if not rows:
        return lines
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)][1:-1]
    frame = "+" + "+".join("-" * (width + 2) for width in widths) + "+"

    def aligned(line: str) -> str:
        if line.startswith("|"):
            cells = [cell.strip() for cell in line.split("|")][1:-1]
            padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
            return "| " + " | ".join(padded) + " |"
        return frame if line.startswith("+-") else line

    return [aligned(line) for line in lines]


def is_same(step: Step, printed: list[str]) -> bool:
    """Tell whether a command prints what the page shows, but for what varies."""
    if len(step.shown) != len(printed):
        return False
    return all(_matches(step.command, *pair) for pair in zip(step.shown, printed, strict=True))


def _matches(command: str, shown: str, printed: str) -> bool:
    found = re.match(r"glance-store (\w+)", command)
    more = _VARIES_IN.get(found[1], ()) if found else ()
    for pattern, name in (*more, *_VARIES):
        shown, printed = pattern.sub(name, shown), pattern.sub(name, printed)
    # What the page leaves out of a long line.
    return re.fullmatch(".+".join(map(re.escape, shown.split("..."))), printed) is not None


def walk(folder: Path, path: Path = PAGE) -> Iterator[tuple[Step, list[str]]]:
    """Run all commands of a page; yield each with what it prints."""
    tour = Tour(folder)
    for block in blocks_of(path):
        if block.options.get("caption") == CONFIGURATION:
            tour.configure(block)
        elif block.language == "console":
            for step in steps_of(block):
                yield step, tour.run(step)


def write(everything: bool) -> None:
    """Put the output into the page: where it differs, or all of it."""
    lines = PAGE.read_text().splitlines()
    moved = 0
    with tempfile.TemporaryDirectory() as folder:
        for step, printed in walk(Path(folder)):
            if is_same(step, printed) and not everything:
                continue
            begin = step.line + moved + step.command.count("\n")
            lines[begin : begin + len(step.shown)] = [f"   {line}".rstrip() for line in printed]
            moved += len(printed) - len(step.shown)
            print(f"{step.line}: {step.command}")
    PAGE.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    write("--all" in sys.argv)
