# SPDX-License-Identifier: Apache-2.0
"""What the headers of an answer say about the file: its length, the part sent, its version."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

Headers = Mapping[str, str]

# As many digits as 64 bits can have.
_LENGTH = re.compile(r"[0-9]{1,19}")
_CONTENT_RANGE = re.compile(r"bytes +([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19}|\*)", re.IGNORECASE)
_UNSATISFIED = re.compile(r"bytes +\*/([0-9]{1,19})", re.IGNORECASE)
_ETAG = re.compile(r'(W/)?"[\x21\x23-\x7e\x80-\xff]*"')
_DATE = re.compile(r"[A-Za-z0-9,: +-]+")


class Part(NamedTuple):
    """A part of a file in bytes: first, one after the last, and the whole file if known."""

    start: int
    stop: int
    total: int | None


class Version(NamedTuple):
    """What tells two states of a file apart; None where the server does not say."""

    etag: str | None
    modified: str | None

    @classmethod
    def of(cls, headers: Headers) -> Version:
        """Return the version that an answer is about.

        :param headers: its headers; a value that could not be sent back counts as absent
        """
        etag, modified = headers.get("ETag", ""), headers.get("Last-Modified", "")
        return cls(
            etag if _ETAG.fullmatch(etag) else None,
            modified if _DATE.fullmatch(modified) else None,
        )

    @property
    def validator(self) -> str | None:
        """The value for ``If-Range``; None when there is no reliable one."""
        # A weak tag stays the same while bytes change. The date knows seconds only, which is why
        # the length of the file is compared as well.
        if self.etag is not None and not self.etag.startswith("W/"):
            return self.etag
        return self.modified

    def differs(self, other: Version) -> bool:
        """Tell whether another version is known to be a different one.

        :param other: from a later answer
        """
        if self.etag is not None and other.etag is not None:
            return self.etag.removeprefix("W/") != other.etag.removeprefix("W/")
        if self.modified is not None and other.modified is not None:
            return self.modified != other.modified
        return False


def is_chunked(headers: Headers) -> bool:
    """Tell whether the body has a framing of its own, so that ``Content-Length`` is void."""
    return "chunked" in headers.get("Transfer-Encoding", "").lower()


def content_length(headers: Headers) -> int | None:
    """Return the bytes of the body.

    :param headers: of the answer
    :returns: bytes, None when the server does not say
    :raises ValueError: what it says is no length
    """
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
    """Return which part of the file an answer with status 206 has.

    :param headers: of the answer
    :raises ValueError: they do not say, or contradict themselves
    """
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


def unsatisfied_total(headers: Headers) -> int | None:
    """Return the bytes of the file that an answer with status 416 names, None if it names none."""
    found = _UNSATISFIED.fullmatch(headers.get("Content-Range", "").strip())
    return int(found.group(1)) if found else None
