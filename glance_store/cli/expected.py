# SPDX-License-Identifier: Apache-2.0
"""The records of an image service: JSON lines or a table."""

from __future__ import annotations

import contextlib
import csv
import itertools
import json
import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, TextIO

from glance_store.cli.errors import UsageError

FIELDS = ("id", "location", "size", "checksum", "hash_algo", "hash_value")
_REQUIRED = ("id", "location")
# What psql writes at the end of a table, in the language of its user.
_FOOTER = re.compile(r"\([0-9]+ \w+\)")


class Expected(NamedTuple):
    """A record of one location of an image; empty where the image service does not say."""

    id: str
    location: str
    size: int | None
    checksum: str
    hash_algo: str
    hash_value: str


def read(name: str) -> list[Expected]:
    """Return the records of a file, or of standard input (``-``)."""
    with _opened(name) as file:
        # Spreadsheets write a byte order mark before the text.
        first = file.readline().removeprefix("\ufeff")
        if not first.strip():
            return []
        rows = _objects(first, file) if first.lstrip().startswith("{") else _table(first, file)
        return [_record(row, f"{name}, line {number}") for number, row in rows]


@contextlib.contextmanager
def _opened(name: str) -> Iterator[TextIO]:
    if name == "-" and sys.stdin is None:
        raise UsageError("standard input is closed")
    # Not by the locale: records in a file and those from a pipe mean the same.
    source = sys.stdin.fileno() if name == "-" else name
    try:
        with open(source, encoding="utf-8", newline="", closefd=name != "-") as file:
            yield file
    except (OSError, UnicodeDecodeError) as exc:
        raise UsageError(f"{name} cannot be read: {getattr(exc, 'strerror', None) or exc}") from exc


def _objects(first: str, file: TextIO) -> Iterator[tuple[int, Mapping[str, Any]]]:
    line, number = first, 1
    while line:
        if line.strip():
            try:
                found = json.loads(line)
            except ValueError:
                found = None
            if not isinstance(found, dict):
                raise UsageError(f"line {number} is not a JSON object: {line[:80]!r}")
            yield number, found
        line, number = file.readline(), number + 1


def _table(first: str, file: TextIO) -> Iterator[tuple[int, Mapping[str, Any]]]:
    # mysql --batch separates by tabs, psql --no-align by bars.
    separator = next((char for char in "\t|;," if char in first), ",")
    options: dict[str, Any] = {"delimiter": separator, "strict": True}
    if separator in "\t|":
        # They put nothing in quotes: a quote in a name would swallow the lines that follow.
        options["quoting"] = csv.QUOTE_NONE
    rows = csv.reader(itertools.chain([first], file), **options)
    try:
        names = [column.strip().lower() for column in next(rows)]
        missing = [name for name in _REQUIRED if name not in names]
        if missing:
            raise UsageError(
                f"the first line must name the columns, including {' and '.join(missing)}; the "
                f"others may be {', '.join(FIELDS[2:])}"
            )
        for values in rows:
            if values and not _FOOTER.fullmatch(separator.join(values)):
                yield rows.line_num, dict(zip(names, values, strict=False))
    except csv.Error as exc:
        raise UsageError(f"the table cannot be read up to line {rows.line_num}: {exc}") from exc


def _record(row: Mapping[str, Any], where: str) -> Expected:
    texts = {name: _text(row.get(name)) for name in FIELDS}
    for name in _REQUIRED:
        if not texts[name]:
            raise UsageError(f"{where}: {name} is missing")
    size = texts["size"]
    if size and not size.isdecimal():
        raise UsageError(f"{where}: the size {size[:40]!r} is not a number of bytes")
    return Expected(
        texts["id"],
        texts["location"],
        int(size) if size else None,
        texts["checksum"].lower(),
        texts["hash_algo"].lower(),
        texts["hash_value"].lower(),
    )


def _text(value: Any) -> str:
    text = "" if value is None else str(value).strip()
    # How databases print a missing value.
    return "" if text.upper() == "NULL" or text == "\\N" else text
