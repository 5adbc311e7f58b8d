# SPDX-License-Identifier: Apache-2.0
"""Parses the head of a response: the length and version of the file, and the part sent."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import BinaryIO, NamedTuple

from glance_store._drivers._head import LONGEST_LINE

Headers = Mapping[str, str]

# The most digits that a 64-bit number has.
_LENGTH = re.compile(r"[0-9]{1,19}")
_CONTENT_RANGE = re.compile(r"bytes +([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19}|\*)", re.IGNORECASE)
_UNSATISFIED = re.compile(r"bytes +\*/([0-9]{1,19})", re.IGNORECASE)
_ETAG = re.compile(r'(W/)?"[\x21\x23-\x7e\x80-\xff]*"')
_DATE = re.compile(r"[A-Za-z0-9,: +-]+")

_CHUNK = re.compile(rb"[ \t]*(0*[0-9A-Fa-f]{1,16})[ \t]*(;[^\n]*)?\r?\n")


class Part(NamedTuple):
    """A range of a file in bytes: first, one past the last, and the file's size if known."""

    start: int
    stop: int
    total: int | None


class Version(NamedTuple):
    """What tells two versions of a file apart; None where the server sends nothing."""

    etag: str | None
    modified: str | None

    @classmethod
    def of(cls, headers: Headers) -> Version:
        """Return the version in the headers; a value that cannot be sent back counts as absent."""
        etag, modified = headers.get("ETag", ""), headers.get("Last-Modified", "")
        return cls(
            etag if _ETAG.fullmatch(etag) else None,
            modified if _DATE.fullmatch(modified) else None,
        )

    @property
    def validator(self) -> str | None:
        """The value for ``If-Range``; None when there is no reliable one."""
        # A weak tag may survive a change of bytes. The date has a resolution of one second, so the
        # length of the file is compared as well.
        if self.etag is not None and not self.etag.startswith("W/"):
            return self.etag
        return self.modified

    def differs(self, other: Version, mirrored: bool = False) -> bool:
        """Tell whether a later response is known to be about another version.

        With `mirrored` it is from another server, which may have its own ETags for the same file:
        then the same date is enough.
        """
        different = [
            mine.removeprefix("W/") != its.removeprefix("W/")
            for mine, its in zip(self, other, strict=True)
            if mine is not None and its is not None
        ]
        return bool(different) and (all(different) if mirrored else different[0])


def chunk_size(stream: BinaryIO) -> int:
    """Read the size line of a chunk; ValueError if it is malformed or breaks off."""
    found = _CHUNK.fullmatch(stream.readline(LONGEST_LINE + 1))
    if found is None:
        raise ValueError("the size of a chunk")
    return int(found.group(1), 16)


def is_chunked(headers: Headers) -> bool:
    """Tell whether the body is chunked, which makes ``Content-Length`` void."""
    return "chunked" in headers.get("Transfer-Encoding", "").lower()


def content_length(headers: Headers) -> int | None:
    """Return the length of the body, None when unknown; ValueError if it is malformed."""
    text = headers.get("Content-Length")
    if text is None or is_chunked(headers):
        return None
    # A repeated header arrives as a list.
    values = {value.strip() for value in text.split(",")}
    value = values.pop()
    if values or not _LENGTH.fullmatch(value):
        raise ValueError("Content-Length")
    return int(value)


def content_range(headers: Headers) -> Part:
    """Return the range that a 206 response carries; ValueError if missing or inconsistent."""
    found = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", "").strip())
    if found is None:
        raise ValueError("Content-Range")
    start, last, total = found.groups()
    part = Part(int(start), int(last) + 1, None if total == "*" else int(total))
    length = content_length(headers)
    if (
        part.start >= part.stop
        or (part.total is not None and part.stop > part.total)
        or (length is not None and length != part.stop - part.start)
    ):
        raise ValueError("Content-Range")
    return part


def part_sent(headers: Headers) -> Part | None:
    """Return the range that a response carries, whatever its status; None if it names none."""
    try:
        return content_range(headers)
    except ValueError:
        return None


def is_whole(headers: Headers) -> bool:
    """Tell whether a 206 response carries the whole file."""
    part = part_sent(headers)
    return part is not None and part.start == 0 and part.stop == part.total


def unsatisfied_total(headers: Headers) -> int | None:
    """Return the file size that a 416 response names, None if it names none."""
    found = _UNSATISFIED.fullmatch(headers.get("Content-Range", "").strip())
    return int(found.group(1)) if found else None
