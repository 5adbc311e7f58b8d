# SPDX-License-Identifier: Apache-2.0
"""Finds the blocks of code in the documentation, and the literals in its text.

A block that cannot be checked says why in a comment of reStructuredText before it, which readers do
not see::

    .. not checked: needs a Ceph cluster

A block with a ``:caption:``, or a comment ``# /path/of/a/file`` as its first line, is that file;
`is_configuration` tells which are the image service's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "doc" / "source"
PAGES = [*sorted(SOURCE.rglob("*.rst")), ROOT / "README.rst"]

_DIRECTIVE = re.compile(r"^( *)\.\. (?:code-block|code|sourcecode):: *(\S*) *$")
_OPTION = re.compile(r"^ +:([\w-]+): *(.*)$")
_PARAGRAPH = re.compile(r"^( *)(?!\.\. )(?:.*\S)?::$")
_NOT_CHECKED = re.compile(r"^ *\.\. not checked: *(.+)$")
_SECTION = re.compile(r"^\[[\w.-]+\]$")
_FILE = re.compile(r"# (/\S+)\n")
_LITERAL = re.compile(r"``(.+?)``", re.DOTALL)


@dataclass
class Block:
    """A block of code."""

    path: Path
    line: int  # of its first line, from 1
    language: str  # empty: none is named
    text: str
    options: dict[str, str] = field(default_factory=dict)
    not_checked: str = ""  # why

    def __str__(self) -> str:
        return f"{self.path.relative_to(ROOT)}:{self.line}"

    @property
    def name(self) -> str:
        """Of the file that it shows, if it says so."""
        commented = _FILE.match(self.text)
        return Path(self.options.get("caption") or (commented[1] if commented else "")).name

    def is_configuration(self) -> bool:
        """Tell whether it belongs to the configuration of the image service."""
        if self.language not in ("ini", "") or self.name not in ("", "glance-api.conf"):
            return False
        # A block of no language may be anything.
        return bool(self.language or _SECTION.match(self.text.split("\n", 1)[0]))


def blocks_of(path: Path) -> Iterator[Block]:
    """Yield the blocks of a page, in order."""
    lines = path.read_text(encoding="utf-8").splitlines()
    number, reason = 0, ""
    while number < len(lines):
        line = lines[number]
        number += 1
        if found := _NOT_CHECKED.match(line):
            reason = found[1]
            continue
        if not (found := _DIRECTIVE.match(line) or _PARAGRAPH.match(line)):
            reason = reason if not line.strip() else ""
            continue
        language = found[2] if found.re is _DIRECTIVE else ""
        options: dict[str, str] = {}
        while (
            found.re is _DIRECTIVE
            and number < len(lines)
            and (option := _OPTION.match(lines[number]))
        ):
            options[option[1]] = option[2]
            number += 1
        end = _end(lines, number, len(found[1]))
        while number < end and not lines[number].strip():
            number += 1
        text = _dedented(lines[number:end])
        if text:
            yield Block(path, number + 1, language, text, options, reason)
        number, reason = end, ""


def _end(lines: list[str], number: int, indent: int) -> int:
    """Return where the block ends that follows a line of that indent."""
    while number < len(lines):
        line = lines[number]
        if line.strip() and len(line) - len(line.lstrip()) <= indent:
            break
        number += 1
    return number


def _dedented(lines: list[str]) -> str:
    indent = min((len(line) - len(line.lstrip()) for line in lines if line.strip()), default=0)
    return "\n".join(line[indent:] for line in lines).strip("\n")


def all_blocks() -> list[Block]:
    """Return the blocks of all pages."""
    return [block for path in PAGES for block in blocks_of(path)]


def prose_of(path: Path) -> str:
    """Return a page without its blocks."""
    lines = path.read_text(encoding="utf-8").splitlines()
    for block in blocks_of(path):
        end = block.line - 1 + block.text.count("\n") + 1
        lines[block.line - 1 : end] = [""] * (end - block.line + 1)
    return "\n".join(lines)


def literals_of(path: Path) -> Iterator[str]:
    """Yield what stands between double backquotes in a page, on one line each."""
    for found in _LITERAL.finditer(prose_of(path)):
        yield " ".join(found[1].split())
