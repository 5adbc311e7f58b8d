# SPDX-License-Identifier: Apache-2.0
"""Reads a stored image in ranges, all of them from the same version of it.

Mostly an image is one object to its reader, however many segments it has. Swift looks at one page
of the segments of a dynamic large object, usually 10,000. Of an image with so many of them it says
that it is empty, and it ignores ranges behind that page: such an image is read segment by segment.

The proxy of Swift computes MD5 of segments that it sends whole, and the server behind it of objects
that it sends from the first byte on, which takes longer than sending them. So a large object is not
asked for in one go, but in ranges that end a little behind the beginning of a segment.
"""

from __future__ import annotations

import bisect
import hashlib
import itertools
import logging
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from glance_store import exceptions
from glance_store._drivers._network import break_off
from glance_store._drivers._objects.errors import NoResult
from glance_store._drivers._objects.ranges import (
    FIRST_BYTE,
    ObjectReader,
    RangeStream,
    bare_etag,
    packing,
    part_of,
    size_of,
)
from glance_store._drivers.swift import containers, errors
from glance_store.i18n import _

if TYPE_CHECKING:
    import requests

    from glance_store._drivers.swift.client import Client
    from glance_store.transfer.memory import Memory
    from glance_store.transfer.retry import Patience

LOG = logging.getLogger(__name__)

# Bytes between the beginning of a segment and the end of a range, where ranges have the bytes of a
# segment.
_BEHIND = 1024 * 1024


class Piece(NamedTuple):
    """An object in which bytes of an image stand."""

    container: str
    name: str
    size: int  # bytes
    etag: str  # empty: Swift does not say
    packed: str = ""  # how, where somebody has stored it so


class Pieces:
    """All bytes of an image.

    :param pieces: in the order of the image; there is at least one
    :param in_segments: whether Swift puts the image together, or whoever reads it
    """

    def __init__(self, pieces: Sequence[Piece], in_segments: bool = False) -> None:
        self.in_segments = in_segments
        # Without a byte it would be requested for nothing.
        self._pieces = [piece for piece in pieces if piece.size] or list(pieces[:1])
        self._ends = list(itertools.accumulate(piece.size for piece in self._pieces))
        self.size = self._ends[-1]

    def __len__(self) -> int:
        return len(self._pieces)

    def version(self) -> str | None:
        """Return what tells these bytes from others; None where an ETag is missing."""
        if not all(piece.etag for piece in self._pieces):
            return None
        return hashlib.sha256(repr(self._pieces).encode()).hexdigest()

    def parts(self, offset: int, length: int, most: int) -> Iterator[tuple[Piece, int, int]]:
        """Yield what a range consists of: an object, an offset in it, bytes.

        :param offset: first byte in the image
        :param length: bytes; the image has them
        :param most: bytes that are asked for in one go where the image is in segments
        """
        cut = self.in_segments and length > most
        while length > 0:
            number = bisect.bisect_right(self._ends, offset)
            piece = self._pieces[number]
            begin = offset - (self._ends[number] - piece.size)
            taken = min(length, piece.size - begin)
            if cut:
                taken = min(taken, most - (offset - _BEHIND) % most)
            yield piece, begin, taken
            offset += taken
            length -= taken


def find(client: Client, container: str, obj: str, action: str, patience: Patience) -> Pieces:
    """Look what an image consists of.

    :param client: of the account
    :param container: where the image is
    :param obj: its name
    :param action: what is tried, for errors
    :param patience: for passing failures
    :raises NotFound: it is not there
    :raises NoResult: Swift does not say how large it is
    """
    head = _head(client, container, obj, action, patience)
    headers = head.headers
    size = size_of(head.status_code, headers)
    if size is None:
        raise NoResult(_("%s: Swift does not say how large it is") % action)
    place = urllib.parse.unquote(headers.get("x-object-manifest", ""))
    if place and not size:
        where, _slash, prefix = place.partition("/")
        segments = [
            Piece(where, entry.name, entry.size, entry.etag)
            for page in containers.pages(client, where, prefix, patience)
            for entry in page
        ]
        return Pieces(segments or [Piece(container, obj, 0, "")], in_segments=True)
    static = headers.get("x-static-large-object", "").lower() == "true"
    # Of large objects the ETag stands for all segments together.
    whole = Piece(container, obj, size, bare_etag(headers.get("etag")).lower(), packing(headers))
    return Pieces([whole], in_segments=static or bool(place))


def _head(
    client: Client, container: str, obj: str, action: str, patience: Patience
) -> requests.Response:
    """Return an answer that tells of an object, and how large it is if Swift says so."""
    refused: exceptions.GlanceStoreException | None = None
    try:
        head = client.request("HEAD", container, obj, action=action, patience=patience)
        if size_of(head.status_code, head.headers) is not None:
            return head
    except errors.SwiftError as exc:
        if not errors.is_unknown_feature(exc):
            raise
        refused = exc
    LOG.debug("%s: its first byte is asked for (%s)", action, refused or "HEAD tells no size")
    first = client.request(
        "GET",
        container,
        obj,
        action=action,
        patience=patience,
        headers=FIRST_BYTE,
        # The object may have no byte, and an old server sends all of it.
        allow=(416,),
        stream=True,
    )
    first.close()
    return first


class SwiftReader(ObjectReader):
    """A stored image.

    Where its token cannot be renewed, all that is asked for comes in one answer: then the token has
    to be good at the beginning only.

    :param client: of the account; its account is closed with the reader
    :param container: where the image is
    :param obj: its name
    :param concurrency: ranges that may be requested at once
    :param range_size: bytes of such a range
    :param memory: that the transfers of the store share
    :param patience: for passing failures
    :raises NotFound: it is not there
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
        self._ranges = True  # whether the server knows them
        self._patience = patience
        action = _("Looking for image %s") % obj
        self._pieces = find(client, container, obj, action, patience)
        self.size = self._pieces.size
        self.version = self._pieces.version()
        if not client.account.renewable:
            self.concurrency, self.range_size = 1, max(range_size, self.size)

    def open_stream(self, offset: int, length: int) -> _Chain:
        """Ask for bytes at an offset.

        :param offset: first byte
        :param length: how many; the image has them
        """
        parts = self._pieces.parts(offset, length, self.range_size)
        return _Chain(self._open, parts, offset)

    def _open(self, piece: Piece, begin: int, length: int, offset: int) -> RangeStream:
        """Ask for bytes of one object, which stand at an offset of the image.

        :raises BackendUnavailable: no answer, or not for that range
        :raises SwiftError: the image is not the one that was opened
        """
        kept = self._rest.take(offset, length)
        if kept is not None:
            return kept
        action = self._action(offset)
        response = self._get(piece, f"bytes={begin}-{begin + length - 1}", action)
        body = _Body(response, lambda at: self._action(offset - begin + at), begin)
        try:
            etag = bare_etag(response.headers.get("etag")).lower()
            changed = bool(piece.etag and etag and etag != piece.etag)
            if changed or response.status_code == 416:
                raise errors.SwiftError(
                    _("%(action)s: the image was replaced while it was read; read it again"),
                    action=action,
                )
            status, headers = response.status_code, response.headers
            part = part_of(status, headers, begin, length, piece.size, action, piece.packed)
        except exceptions.GlanceStoreException:
            body.close()
            raise
        if part.stop > begin + length:
            # More than one at a time would only be sent the same bytes.
            self.concurrency = 1
        keep = self._rest.keep if len(self._pieces) == 1 else None
        return RangeStream(
            body, part, begin, length, lambda at: self._action(offset - begin + at), keep
        )

    def _get(self, piece: Piece, wanted: str, action: str) -> requests.Response:
        """Ask for bytes of one object, or for all of it where a range is refused as such."""

        def get(headers: dict[str, str]) -> requests.Response:
            return self._client.request(
                "GET",
                piece.container,
                piece.name,
                action=action,
                patience=self._patience,
                # The caller, who knows what has arrived, asks again.
                again=False,
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
        """Let go of an answer that might have been of use, and of the account."""
        super().close()
        self._client.account.close()


class _Body:
    """The body of an answer, with errors of this library.

    :param response: its body is as it was stored
    :param action: says what is being read at an offset
    :param position: of its first byte
    """

    def __init__(
        self, response: requests.Response, action: Callable[[int], str], position: int
    ) -> None:
        self._response = response
        self._action = action
        self._position = position

    def read(self, length: int) -> bytes:
        """Return up to `length` of the next bytes.

        :raises SwiftUnavailable: the answer broke off
        """
        try:
            data: bytes = self._response.raw.read(length, decode_content=False)
        except errors.NETWORK as exc:
            error = errors.unreachable(exc, self._action(self._position))
        else:
            self._position += len(data)
            return data
        raise error

    def interrupt(self) -> None:
        """End a read in another thread."""
        break_off(self._response.raw)

    def close(self) -> None:
        """Let go of what was not read."""
        self._response.close()


class _Chain:
    """The bytes of a range, from one answer after the other.

    :param open_part: asks for one of them
    :param parts: what they have
    :param offset: first byte in the image
    """

    def __init__(
        self,
        open_part: Callable[[Piece, int, int, int], RangeStream],
        parts: Iterator[tuple[Piece, int, int]],
        offset: int,
    ) -> None:
        self._open = open_part
        self._parts = parts
        self._offset = offset
        self._stream: RangeStream | None = None
        self._interrupted = False

    def read(self, length: int) -> bytes:
        """Return up to `length` of the next bytes, none at the end of the range.

        :param length: how many
        :raises BackendUnavailable: no answer, or not for that range, or it broke off
        :raises SwiftError: the image is not the one that was opened
        """
        while True:
            if self._stream is None:
                part = next(self._parts, None)
                if part is None:
                    return b""
                self._stream = self._open(*part, self._offset)
                if self._interrupted:
                    # Perhaps it came before it could see this one.
                    self._stream.interrupt()
            data = self._stream.read(length)
            if data:
                self._offset += len(data)
                return data
            self.close()

    def interrupt(self) -> None:
        """End a read in another thread."""
        self._interrupted = True
        stream = self._stream
        if stream is not None:
            stream.interrupt()

    def close(self) -> None:
        """Let go of what was not read."""
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()
