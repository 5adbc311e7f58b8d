# SPDX-License-Identifier: Apache-2.0
"""Reads a stored image in ranges, all of them from the same version of it.

Usually an image is one object to its reader, however many segments it has. Of a dynamic large
object, however, Swift looks at one page of segments only, usually 10,000. An image with more looks
empty, and Swift ignores ranges beyond that page: such an image is read segment by segment.

Swift's proxy computes the MD5 of segments that it sends whole, and the server behind it the MD5 of
objects that it sends from the first byte on. That takes longer than sending them. So a large object
is not requested all at once, but in ranges that end a little after the start of a segment.
"""

from __future__ import annotations

import bisect
import hashlib
import itertools
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from glance_store import exceptions
from glance_store._drivers._network import break_off
from glance_store._drivers._objects.errors import ERRORS, NoResult
from glance_store._drivers._objects.ranges import (
    FIRST_BYTE,
    Part,
    RangeReader,
    content_coding,
    part_of,
    size_of,
)
from glance_store._drivers.swift import containers, errors, large
from glance_store.i18n import _

if TYPE_CHECKING:
    import requests

    from glance_store._drivers.swift.client import Client
    from glance_store.transfer.memory import Memory
    from glance_store.transfer.retry import Patience

LOG = logging.getLogger(__name__)

# Bytes between the start of a segment and the end of a range, if ranges are as long as segments.
_BEHIND = 1024 * 1024
_SUCCESS = 200
# The ETag of an object without bytes.
_EMPTY = hashlib.md5(usedforsecurity=False).hexdigest()


class Piece(NamedTuple):
    """An object that holds bytes of an image."""

    container: str
    name: str
    size: int  # bytes
    etag: str  # empty if Swift does not say
    coding: str = ""  # the content coding it was stored with


class Pieces:
    """All bytes of an image, in one piece or more.

    `in_segments` says whether the image has segments, no matter who joins them.
    """

    def __init__(self, pieces: Sequence[Piece], in_segments: bool = False) -> None:
        self.in_segments = in_segments
        # An empty piece needs no request.
        self._pieces = [piece for piece in pieces if piece.size] or list(pieces[:1])
        self._ends = list(itertools.accumulate(piece.size for piece in self._pieces))
        self.size = self._ends[-1]

    def __len__(self) -> int:
        return len(self._pieces)

    def version(self) -> str | None:
        """Return what tells these bytes from others; None if an ETag is missing."""
        if not all(piece.etag for piece in self._pieces):
            return None
        return hashlib.sha256(repr(self._pieces).encode()).hexdigest()

    def part(self, offset: int, length: int, most: int) -> tuple[Piece, int, int]:
        """Return the beginning of a range: an object, an offset in it, a number of bytes.

        If the image is in segments, a range longer than `most` bytes is cut.
        """
        number = bisect.bisect_right(self._ends, offset)
        piece = self._pieces[number]
        begin = offset - (self._ends[number] - piece.size)
        if self.in_segments and length > most:
            length = min(length, most - (offset - _BEHIND) % most)
        return piece, begin, min(length, piece.size - begin)


def find(client: Client, container: str, obj: str, action: str, patience: Patience) -> Pieces:
    """Look up what an image consists of."""
    head = _head(client, container, obj, action, patience)
    headers, about = head.headers, large.About(head.headers)
    size = size_of(head.status_code, headers)
    # An empty object has an ETag, as every object; a response 416 need not.
    known = size or about.prefix or "etag" in headers or head.status_code != _SUCCESS
    if size is None or not known:
        raise NoResult(_("%s: Swift does not say how large it is") % action)
    if about.prefix and not size:
        where, _slash, prefix = about.prefix.partition("/")
        segments = [
            Piece(where, entry.name, entry.size, entry.etag)
            for entry in containers.entries(client, where, prefix, patience)
        ]
        found = Pieces(segments or [Piece(container, obj, 0, "")], in_segments=True)
        _check_all_listed(headers, found.size, action)
        return found
    # The ETag of a large object stands for all segments together.
    whole = Piece(container, obj, size, about.etag, content_coding(headers))
    return Pieces([whole], in_segments=about.static or bool(about.prefix))


def _check_all_listed(headers: Mapping[str, str], size: int | None, action: str) -> None:
    """Raise SwiftUnavailable if Swift does not count all bytes of a dynamic large object."""
    stored = large.About(headers).stored_size
    if None not in (size, stored) and size != stored:
        raise errors.SwiftUnavailable(
            _("%(action)s: Swift finds %(found)d of its %(size)d bytes: its listing lags behind"),
            action=action,
            found=size,
            size=stored,
        )


def _has_size(head: requests.Response) -> bool:
    """Tell whether a response to HEAD has the size; some proxies say 0, as it has no body."""
    size = size_of(head.status_code, head.headers)
    empty = large.etag_in(head.headers) == _EMPTY or "x-object-manifest" in head.headers
    return bool(size) or (size == 0 and empty)


def _head(
    client: Client, container: str, obj: str, action: str, patience: Patience
) -> requests.Response:
    """Return a response about an object, with its size if Swift reports one."""
    refused: exceptions.GlanceStoreException | None = None
    try:
        head = client.request(
            "HEAD",
            container,
            obj,
            action=action,
            patience=patience,
            check=lambda found: _check_all_listed(
                found.headers, size_of(found.status_code, found.headers) or None, action
            ),
        )
        if _has_size(head):
            return head
    except errors.SwiftError as exc:
        if not errors.is_unknown_feature(exc):
            raise
        refused = exc
    LOG.debug("%s: requesting its first byte (%s)", action, refused or "HEAD reports no size")
    first = client.request(
        "GET",
        container,
        obj,
        action=action,
        patience=patience,
        headers=FIRST_BYTE,
        # 416: the object is empty. An old server sends all of it, so do not read the body.
        allow=(416,),
        stream=True,
    )
    first.close()
    return first


class SwiftReader(RangeReader):
    """A stored image.

    If the token cannot be renewed, one request reads everything: the token must then be valid only
    at its start.
    """

    def __init__(
        self,
        client: Client,
        container: str,
        obj: str,
        *,
        concurrency: int,
        range_size: int,
        memory: Memory,
        patience: Patience,
    ) -> None:
        super().__init__(concurrency, range_size, memory)
        self._client = client
        self._image = obj
        self._ranges = True  # whether the server supports them
        self._patience = patience
        action = _("Looking for image %s") % obj
        self._pieces = find(client, container, obj, action, patience)
        self.size = self._pieces.size
        self.version = self._pieces.version()
        if not client.account.renewable:
            self.concurrency, self.range_size = 1, max(range_size, self.size)

    def _ask(self, offset: int, length: int) -> tuple[_ResponseBody, Part]:
        # The caller asks again for what a response does not reach.
        piece, begin, length = self._pieces.part(offset, length, self.range_size)
        action = self._action(offset)
        response = self._get(piece, f"bytes={begin}-{begin + length - 1}", action)
        status, headers = response.status_code, response.headers
        try:
            etag = large.etag_in(headers)
            changed = bool(piece.etag and etag and etag != piece.etag)
            if changed or status == 416:
                raise errors.SwiftError(
                    _("%(action)s: the image was replaced while it was being read; read it again"),
                    action=action,
                )
            if status == 200 and piece.etag and not etag and "content-length" not in headers:
                raise errors.foreign(response, action)
            part = part_of(status, headers, begin, length, piece.size, action, piece.coding)
        except ERRORS:
            response.close()
            raise
        before = offset - begin  # bytes of the image before this object
        part = Part(before + part.start, before + part.stop)
        return _ResponseBody(response, self._action, part.start), part

    def _get(self, piece: Piece, wanted: str, action: str) -> requests.Response:
        """Request bytes of one object, or all of it if the server refuses ranges."""

        def get(headers: dict[str, str]) -> requests.Response:
            return self._client.request(
                "GET",
                piece.container,
                piece.name,
                action=action,
                patience=self._patience,
                # The caller knows what has arrived, and asks again.
                retry=False,
                headers=headers,
                stream=True,
                allow=(416,),
            )

        if self._ranges:
            try:
                return get({"Range": wanted})
            except errors.SwiftError as exc:
                if not errors.is_unknown_feature(exc):
                    raise
        answer = get({})
        self._ranges = False
        return answer

    def _action(self, offset: int) -> str:
        return str(
            _("Reading image %(image)s at byte %(offset)d")
            % {"image": self._image, "offset": offset}
        )

    def close(self) -> None:
        """Close a response kept for reuse, and the account."""
        super().close()
        self._client.account.close()


class _ResponseBody:
    """The body of a response, as it was stored; `position` is the offset of its first byte."""

    def __init__(
        self, response: requests.Response, action: Callable[[int], str], position: int
    ) -> None:
        self._response = response
        self._action = action
        self._position = position

    def read(self, length: int) -> bytes:
        """Return up to `length` of the next bytes; raise errors of this library."""
        try:
            data: bytes = self._response.raw.read(length, decode_content=False)
        except errors.NETWORK as exc:
            error = errors.unreachable(exc, self._action(self._position))
        else:
            self._position += len(data)
            return data
        raise error

    def interrupt(self) -> None:
        break_off(self._response.raw)

    def close(self) -> None:
        self._response.close()
