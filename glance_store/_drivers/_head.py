# SPDX-License-Identifier: Apache-2.0
"""Reads the head of a response as far as it makes sense, past malformed lines."""

from __future__ import annotations

import http.client
import io
import re
from typing import BinaryIO, NamedTuple

LONGEST_LINE = 65536  # bytes
_MOST_LINES = 200
_MOST_INTERIM = 100
_INTERIM = re.compile(rb"HTTP/[0-9.]+ +1[0-9][0-9]\s")
# Inside a line these would begin another one or end the text.
_AS_SPACES = bytes.maketrans(b"\r\0", b"  ")
_NAME = re.compile(rb"[\x21-\x39\x3b-\x7e]+")


class Response(http.client.HTTPResponse):
    """A response that skips malformed header lines, and interim responses (1xx)."""

    damaged = False  # whether a header line was dropped

    def begin(self) -> None:
        """Read the head."""
        stream = self.fp
        head = read_head(stream)
        self.damaged = head.damaged
        self.fp = io.BufferedReader(io.BytesIO(head.text))
        try:
            super().begin()
        finally:
            self.fp = stream


class Head(NamedTuple):
    """The head of a response, rewritten so that `http.client` reads all of it."""

    text: bytes
    damaged: bool  # whether a line that is not a header was dropped


def read_head(stream: BinaryIO) -> Head:
    """Read up to the body of a response, skipping interim responses (1xx).

    `http.client` takes a malformed line, or the end of the connection, for the end of the headers:
    without the Content-Length after it, an image would look shorter.
    """
    for _answer in range(_MOST_INTERIM):
        status = _read_line(stream)
        if not status.startswith(b"HTTP/"):
            raise http.client.BadStatusLine("not HTTP")
        fields, damaged = _read_fields(stream)
        if not _INTERIM.match(status):
            return Head(b"".join((status, *fields, b"\r\n")), damaged)
    raise http.client.HTTPException("too many interim answers")


def _read_fields(stream: BinaryIO) -> tuple[list[bytes], bool]:
    """Return the header lines, unfolded, and whether one was dropped."""
    fields: list[bytes] = []
    damaged = taken = False
    for _number in range(_MOST_LINES):
        line = _read_line(stream)
        if line in (b"\r\n", b"\n"):
            return fields, damaged
        content = line.rstrip(b"\r\n").translate(_AS_SPACES)
        name, colon, value = content.partition(b":")
        # A space before the colon is an error; remove it, as a proxy must.
        name = name.rstrip(b" \t")
        if content.startswith((b" ", b"\t")) and taken:
            # Obsolete line folding: this line continues the previous one.
            fields[-1] = fields[-1].rstrip() + b" " + content.strip() + b"\r\n"
        elif colon and _NAME.fullmatch(name):
            fields.append(name + b": " + value.strip() + b"\r\n")
            taken = True
        else:
            damaged, taken = True, False
    raise http.client.HTTPException("too many header lines")


def _read_line(stream: BinaryIO) -> bytes:
    line = stream.readline(LONGEST_LINE + 1)
    if len(line) > LONGEST_LINE:
        raise http.client.LineTooLong("header line")
    if not line.endswith(b"\n"):
        raise http.client.RemoteDisconnected("the connection ended in the head of the response")
    return line
