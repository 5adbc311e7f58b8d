# SPDX-License-Identifier: Apache-2.0
"""Segments on their way into Swift: from memory, from a local file, or while they come in."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import tempfile
import threading
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from glance_store import exceptions
from glance_store._drivers.swift import errors
from glance_store._drivers.swift.manifest import Manifest
from glance_store._drivers.swift.publish import TAKEN
from glance_store._drivers.swift.sizes import Plan
from glance_store._drivers.swift.stream import StreamedPut, check_etag
from glance_store._drivers.swift.upload import Upload
from glance_store.i18n import _
from glance_store.transfer.retry import Patience

_FILE_PIECE = 1024 * 1024
# Seconds: the operator has counted the tries.
_LONGEST = 600.0
_FULL = (errno.ENOSPC, errno.EDQUOT)


def send_segment(
    upload: Upload,
    manifest: Manifest,
    number: int,
    etag: Callable[[], str],
    body: Callable[[], Iterator[Any]],
    size: int,
) -> None:
    """Send a segment whose bytes are at hand, as often as it takes.

    :param upload: what it belongs to
    :param manifest: that will name it
    :param number: from 1
    :param etag: returns the MD5 of the bytes, in hexadecimal; called when there is an answer
    :param body: begins anew with the bytes, each time that it is called
    :param size: bytes
    :raises SwiftUnavailable: it does not arrive undamaged
    """
    name = manifest.attempt(number)
    client = upload.name.client
    action = _("Storing the segment %s") % name
    # The length is not known otherwise, and Swift would get chunks.
    headers = {"Content-Length": str(size)}

    def send() -> None:
        response = client.request(
            "PUT", upload.name.container, name, action=action, headers=headers, body=body
        )
        check_etag(response, etag(), action)

    Patience(_LONGEST, most=client.settings.retries).call(
        lambda: upload.into_container(send), lambda exc: isinstance(exc, errors.DamagedError)
    )
    manifest.stored(number, etag(), size)


class InOrder:
    """Segments of which one is on its way at a time, in blocks.

    :param upload: what they belong to
    :param manifest: that will name them
    :param plan: their sizes
    """

    def __init__(self, upload: Upload, manifest: Manifest, plan: Plan) -> None:
        self._upload = upload
        self._manifest = manifest
        self._plan = plan
        self._number = 0
        self._missing = 0  # bytes of the segment that is on its way

    def write(self, offset: int, block: memoryview) -> None:
        """Add a block to the segment or the segments that it belongs to.

        :param offset: where the block before has ended; of the first one, where a segment begins
        :param block: its bytes
        """
        while block:
            if not self._missing:
                self._missing = self._plan.size_at(offset)
                self._number = self._plan.number_at(offset)
                self._begin(offset, self._missing)
            with block[: self._missing] as part:
                self._add(part)
                length = len(part)
            offset += length
            self._missing -= length
            if not self._missing:
                self._end()
            block = block[length:]

    def end(self) -> None:
        """End the last segment, which may be shorter than planned."""
        if self._missing:
            self._missing = 0
            self._end()

    def cancel(self) -> None:
        """Break off what is under way."""
        raise NotImplementedError

    def _begin(self, offset: int, length: int) -> None:
        raise NotImplementedError

    def _add(self, part: memoryview) -> None:
        raise NotImplementedError

    def _end(self) -> None:
        raise NotImplementedError


class Streamed(InOrder):
    """Segments that are sent while their data comes in.

    :param upload: what they belong to
    :param manifest: that will name them
    :param plan: their sizes
    :param size: bytes of the image, 0 when unknown
    :param largest_kept: bytes up to which a segment is held, so that it can be sent again
    """

    def __init__(
        self, upload: Upload, manifest: Manifest, plan: Plan, size: int, largest_kept: int
    ) -> None:
        super().__init__(upload, manifest, plan)
        self._size = size
        self._largest_kept = largest_kept
        self._stream: StreamedPut | None = None

    def keeps(self, length: int) -> bool:
        """Say whether a segment can be sent again.

        :param length: its bytes
        """
        return length <= self._largest_kept

    def _begin(self, offset: int, length: int) -> None:
        name = self._manifest.attempt(self._number)
        keep = self.keeps(length)
        if not keep:
            # There is one try: it needs a container, and a token that is not refused.
            self._upload.ensure_container()
        self._stream = StreamedPut(
            self._upload.name.client,
            self._upload.name.container,
            name,
            _("Storing the segment %s") % name,
            min(length, self._size - offset) if self._size else None,
            keep,
        )

    def _add(self, part: memoryview) -> None:
        assert self._stream is not None
        self._stream.feed(part)

    def _end(self) -> None:
        stream, self._stream = self._stream, None
        assert stream is not None
        retries = self._upload.name.client.settings.retries if stream.repeatable else 0
        try:
            Patience(_LONGEST, most=retries).call(lambda: self._send(stream))
        except BaseException:
            stream.cancel()
            raise
        self._manifest.stored(self._number, stream.etag, stream.size)

    def _send(self, stream: StreamedPut) -> None:
        response = self._upload.into_container(stream.send)
        if response.status in TAKEN:
            image = self._upload.name.obj
            raise errors.refusal(
                response.status,
                response.reason,
                _("Storing a segment of image %s") % image,
                image,
            )

    def cancel(self) -> None:
        """Break the request off."""
        if self._stream is not None:
            self._stream.cancel()


class InTurn:
    """Takes blocks from several threads, and hands them on in order.

    :param segments: what they are handed to
    :param first: returns where the first of these blocks begins
    """

    def __init__(self, segments: InOrder, first: Callable[[], int]) -> None:
        self._segments = segments
        self._first = first
        self._next: int | None = None
        self._error: BaseException | None = None
        self._turn = threading.Condition()

    def write(self, offset: int, block: memoryview) -> None:
        """Hand a block on when all that precede it were; they are all in threads of their own.

        :param offset: where it begins
        :param block: its bytes
        :raises Exception: what a block before it has raised
        """
        with self._turn:
            if self._next is None:
                self._next = self._first()
            self._turn.wait_for(lambda: self._error is not None or self._next == offset)
            if self._error is not None:
                raise self._error
            try:
                self._segments.write(offset, block)
            except BaseException as exc:
                # Whoever waits would wait for ever.
                self._error = exc
                raise
            finally:
                self._next += len(block)
                self._turn.notify_all()


class Buffered(InOrder):
    """Segments that go to a local file first, so that they can be sent again.

    :param upload: what they belong to
    :param manifest: that will name them
    :param plan: their sizes
    :param folder: where the file is made; it has no name there
    """

    def __init__(self, upload: Upload, manifest: Manifest, plan: Plan, folder: str) -> None:
        super().__init__(upload, manifest, plan)
        self._folder = folder
        self._file: BinaryIO | None = None
        self._digest = hashlib.md5(usedforsecurity=False)

    def _begin(self, offset: int, length: int) -> None:
        self._digest = hashlib.md5(usedforsecurity=False)
        with _local():
            if self._file is None:
                self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 - kept open
            self._file.seek(0)
            self._file.truncate()

    def _add(self, part: memoryview) -> None:
        assert self._file is not None
        self._digest.update(part)
        with _local():
            self._file.write(part)

    def _end(self) -> None:
        file = self._file
        assert file is not None
        with _local():
            file.flush()
            size = file.tell()

        def body() -> Iterator[bytes]:
            # An error of the file is none of the connection: it may not look like one.
            with _local():
                file.seek(0)
            while True:
                with _local():
                    piece = file.read(_FILE_PIECE)
                if not piece:
                    return
                yield piece

        digest = self._digest
        send_segment(self._upload, self._manifest, self._number, digest.hexdigest, body, size)

    def cancel(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            # What it still has to write is not wanted any more.
            with contextlib.suppress(OSError):
                self._file.close()


@contextlib.contextmanager
def _local() -> Iterator[None]:
    """Say of errors of the local file that they are none of Swift's."""
    try:
        yield
    except OSError as exc:
        reason = exc.strerror or type(exc).__name__
        if exc.errno in _FULL:
            raise exceptions.StorageFull(
                _("The directory of swift_upload_buffer_dir is full: %(reason)s"), reason=reason
            ) from exc
        raise errors.SwiftError(
            _("The directory of swift_upload_buffer_dir cannot be used: %(reason)s"), reason=reason
        ) from exc
