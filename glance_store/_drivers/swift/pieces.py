# SPDX-License-Identifier: Apache-2.0
"""What an image is read from: one object, or, of some large ones, each segment by itself.

Swift looks at one page of the segments of a dynamic large object, usually 10,000. Of an image with
so many of them it says that it is empty, and it ignores ranges behind that page.
"""

from __future__ import annotations

import bisect
import itertools
import urllib.parse
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from glance_store._drivers.swift import errors, listing
from glance_store._drivers.swift.client import Client
from glance_store.i18n import _

if TYPE_CHECKING:
    from urllib3.response import BaseHTTPResponse as Response


class Piece(NamedTuple):
    """An object in which bytes of an image stand."""

    container: str
    name: str
    size: int  # bytes
    etag: str | None  # None: Swift does not say


class Part(NamedTuple):
    """Bytes of an object that are next to each other in the image."""

    piece: Piece
    offset: int  # in the object
    length: int  # bytes


class Pieces:
    """All bytes of an image.

    :param pieces: in the order of the image; there is at least one
    """

    def __init__(self, pieces: Sequence[Piece]) -> None:
        # Without a byte it would be requested for nothing.
        self._pieces = [piece for piece in pieces if piece.size] or list(pieces[:1])
        self._ends = list(itertools.accumulate(piece.size for piece in self._pieces))
        self.size = self._ends[-1]

    def __len__(self) -> int:
        return len(self._pieces)

    def parts(self, offset: int, length: int) -> Iterator[Part]:
        """Yield what a range consists of.

        :param offset: first byte in the image
        :param length: bytes; the image has them
        """
        for number in range(bisect.bisect_right(self._ends, offset), len(self._pieces)):
            if length <= 0:
                return
            piece = self._pieces[number]
            begin = offset - (self._ends[number] - piece.size)
            part = Part(piece, begin, min(length, piece.size - begin))
            yield part
            offset += part.length
            length -= part.length


def find(client: Client, container: str, obj: str, action: str) -> Pieces:
    """Look what an image consists of.

    :param client: of the account
    :param container: where the image is
    :param obj: its name
    :param action: what is tried, for errors
    :raises NotFound: it is not there
    :raises SwiftUnavailable: Swift does not say how large it is
    """
    head = client.request("HEAD", container, obj, action=action)
    place = urllib.parse.unquote(head.headers.get("x-object-manifest", ""))
    # Without a length it answers, on its way through the server, with one of 0.
    if place and head.headers.get("content-length", "0") == "0":
        segments = _segments(client, place)
        return Pieces(segments or [Piece(container, obj, 0, None)])
    # Of large objects the ETag stands for all segments together.
    return Pieces([Piece(container, obj, content_length(head, obj), etag(head))])


def _segments(client: Client, place: str) -> list[Piece]:
    container, _slash, prefix = place.partition("/")
    return [
        Piece(container, entry.name, entry.size, entry.etag)
        for page in listing.pages(client, container, prefix)
        for entry in page
    ]


def content_length(response: Response, obj: str) -> int:
    """Return the bytes of an object.

    :param response: to a HEAD request
    :param obj: name of the object, for errors
    :raises SwiftUnavailable: the answer does not say it
    """
    text = response.headers.get("content-length", "")
    if not text.isdecimal():
        raise errors.SwiftUnavailable(
            _("Looking for image %(image)s: Swift does not say how large it is"), image=obj
        )
    return int(text)


def etag(response: Response) -> str | None:
    """Return what tells this version of an object from others; None if there is nothing.

    :param response: to a request for the object
    """
    return response.headers.get("etag", "").strip('"').lower() or None
