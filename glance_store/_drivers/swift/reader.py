# SPDX-License-Identifier: Apache-2.0
"""Reads a stored image in ranges, all of them from the same version of it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from glance_store._drivers.swift import errors, pieces
from glance_store._drivers.swift.client import Account, Client
from glance_store.i18n import _
from glance_store.transfer.interface import Extent

if TYPE_CHECKING:
    from urllib3.response import BaseHTTPResponse as Response

    from glance_store._drivers.swift.pieces import Part, Piece
    from glance_store.transfer.interface import Stream


_CONTENT_RANGE = re.compile(r"\s*bytes\s+(\d+)-(\d+)/(\d+|\*)\s*", re.IGNORECASE)


class SwiftReader:
    """A stored image.

    :param client: of the account; its account is closed with the reader
    :param container: where the image is
    :param obj: its name
    :param concurrency: ranges that may be requested at once
    :param range_size: bytes of such a range
    :raises NotFound: it is not there
    """

    def __init__(
        self, client: Client, container: str, obj: str, concurrency: int, range_size: int
    ) -> None:
        self._client = client
        self._image = obj
        self.concurrency = concurrency
        self.range_size = range_size
        self._pieces = pieces.find(client, container, obj, _("Looking for image %s") % obj)
        self.size = self._pieces.size

    def read_at(self, offset: int, length: int) -> bytes:
        """Read bytes at an offset.

        :param offset: first byte
        :param length: bytes at most
        :returns: the bytes, none behind the end
        :raises SwiftUnavailable: the answer broke off
        :raises SwiftError: the image is not the one that was opened
        """
        length = min(length, self.size - offset)
        if length <= 0:
            return b""
        with contextlib.closing(self.open_stream(offset, length)) as stream:
            data = [stream.read(length)]
            missing = length - len(data[0])
            while missing and data[-1]:
                data.append(stream.read(missing))
                missing -= len(data[-1])
            return b"".join(data) if len(data) > 1 else data[0]

    def open_stream(self, offset: int, length: int) -> Stream:
        """Ask for bytes at an offset.

        :param offset: first byte
        :param length: how many; the image has them
        :raises SwiftUnavailable: no answer, or not for that range
        :raises SwiftError: the image is not the one that was opened
        """
        parts = self._pieces.parts(offset, length)
        if len(self._pieces) == 1:
            return self._open(next(parts), offset)
        return _ChainedStream(self._open, parts, offset)

    def _open(self, part: Part, offset: int) -> SwiftStream:
        """Ask for bytes of one object, which stand at an offset of the image."""
        action = _action(self._image, offset)
        stop = part.offset + part.length
        response = self._client.request(
            "GET",
            part.piece.container,
            part.piece.name,
            action=action,
            headers={"Range": f"bytes={part.offset}-{stop - 1}", "Accept-Encoding": "identity"},
            stream=True,
            allow=(416,),
        )
        try:
            _check(response, part.piece, part.offset, stop, action)
        except BaseException:
            response.close()
            raise
        return SwiftStream(response, self._client.account, self._image, offset, part.length)

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """Say that there are no holes."""
        yield Extent(offset, length, True)

    def close(self) -> None:
        """Let go of the account."""
        self._client.account.close()


def _check(response: Response, piece: Piece, offset: int, stop: int, action: str) -> None:
    """Check that an answer has the range that was asked for, of the object that was meant."""
    etag = pieces.etag(response)
    changed = piece.etag is not None and etag is not None and etag != piece.etag
    if response.status == 206:
        found = _CONTENT_RANGE.fullmatch(response.headers.get("content-range", ""))
        if found is None or (int(found[1]), int(found[2])) != (offset, stop - 1):
            raise errors.SwiftUnavailable(
                _("%(action)s: Swift sends another range than was asked for"), action=action
            )
        changed = changed or found[3] not in ("*", str(piece.size))
    elif response.status != 200 or offset:
        # 200: all of it, which is right when all of it was asked for.
        changed = True
    if changed:
        raise errors.SwiftError(
            _("%(action)s: the image was replaced while it was read; read it again"),
            action=action,
        )


class SwiftStream:
    """The answer for a range of an image.

    :param response: its body is as it was stored
    :param account: told that the answer is still being read
    :param image: name of the image, for errors
    :param offset: first byte
    :param length: bytes of the range
    """

    def __init__(
        self, response: Response, account: Account, image: str, offset: int, length: int
    ) -> None:
        self._response = response
        self._account = account
        self._image = image
        self._offset = offset
        self._missing = length

    def read(self, length: int) -> bytes:
        """Return up to `length` of the next bytes, none at the end of the range.

        :param length: how many
        :raises SwiftUnavailable: the answer broke off, or goes on behind the range
        """
        wanted = min(length, self._missing)
        if not wanted:
            return b""
        self._account.tend()
        try:
            data: bytes = self._response.read(wanted, decode_content=False)
            self._missing -= len(data)
            # Also the end has been seen: only then is the connection used again.
            over = not self._missing and bool(self._response.read(1, decode_content=False))
        except errors.NETWORK as exc:
            error = errors.unreachable(exc, _action(self._image, self._offset))
        else:
            # Of a whole image there is no more than its size said.
            if data and (not over or self._response.status == 200):
                self._offset += len(data)
                return data
            error = errors.SwiftUnavailable(
                _("%(action)s: the answer has not as many bytes as were asked for"),
                action=_action(self._image, self._offset),
            )
        raise error

    def close(self) -> None:
        """Let go of what was not read."""
        self._response.close()


def _action(image: str, offset: int) -> str:
    return str(_("Reading image %(image)s at byte %(offset)d") % {"image": image, "offset": offset})


class _ChainedStream:
    """The bytes of a range, from one object after the other.

    :param open_part: asks for the bytes of one of them
    :param parts: what the range consists of
    :param offset: first byte in the image
    """

    def __init__(
        self, open_part: Callable[[Part, int], SwiftStream], parts: Iterator[Part], offset: int
    ) -> None:
        self._open = open_part
        self._parts = parts
        self._offset = offset
        self._stream: SwiftStream | None = None

    def read(self, length: int) -> bytes:
        """Return up to `length` of the next bytes, none at the end of the range.

        :param length: how many
        :raises SwiftUnavailable: an answer broke off
        :raises SwiftError: the image is not the one that was opened
        """
        while True:
            if self._stream is None:
                part = next(self._parts, None)
                if part is None:
                    return b""
                self._stream = self._open(part, self._offset)
            data = self._stream.read(length)
            if data:
                self._offset += len(data)
                return data
            self.close()

    def close(self) -> None:
        """Let go of what was not read."""
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()
