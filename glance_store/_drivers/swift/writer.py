# SPDX-License-Identifier: Apache-2.0
"""Images on their way into Swift: as one object, or as segments that a manifest makes one."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import tempfile
import threading
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, TypeVar

from glance_store import exceptions
from glance_store._drivers.swift import containers, deletion, errors
from glance_store._drivers.swift.body import HashedBody
from glance_store._drivers.swift.client import Client
from glance_store._drivers.swift.manifest import Manifest
from glance_store._drivers.swift.publish import TAKEN, Name
from glance_store._drivers.swift.stream import StreamedPut, check_etag
from glance_store.i18n import _
from glance_store.transfer.retry import retrying

_T = TypeVar("_T")

LOG = logging.getLogger(__name__)

_FILE_PIECE = 1024 * 1024


class Upload:
    """What all writers of an image share.

    :param name: that the image will have
    :param uri: the location that it will have
    :param container_made: whether the container was made for this image, and goes with it
    :param ensure_container: makes the container again if it has gone
    """

    holes = False

    def __init__(
        self, name: Name, uri: str, container_made: bool, ensure_container: Callable[[], object]
    ) -> None:
        self.name = name
        self.uri = uri
        self.metadata: dict[str, Any] = {}
        self._container_made = container_made
        self._ensure_container = ensure_container

    @property
    def _client(self) -> Client:
        return self.name.client

    def into_container(self, send: Callable[[], _T]) -> _T:
        """Have something sent, once more with its container if that has gone.

        An upload of the same id that failed may have removed the container, when it was empty.

        :param send: sends it
        :returns: what `send` returns
        """
        try:
            return send()
        except exceptions.NotFound:
            self._ensure_container()
            return send()

    def cancel(self) -> None:
        """Break off what is under way."""

    def segments(self) -> list[str]:
        """Return the names of all segments that may be there."""
        return []

    def close(self) -> None:
        """Let go of what a finished upload does not need."""
        try:
            self._client.account.close()
        except exceptions.GlanceStoreException as exc:
            LOG.warning("After the upload of image %s: %s", self.name.obj, exc)

    def abort(self) -> None:
        """Remove everything that this upload has stored; what cannot be removed is logged."""
        self.cancel()
        try:
            self.name.withdraw()
        except exceptions.GlanceStoreException as exc:
            LOG.error(
                "An upload has failed and may have left the object %s in the container %s: %s",
                self.name.obj,
                self.name.container,
                exc,
            )
        deletion.remove_objects(self._client, self.name.container, self.segments())
        if self._container_made:
            containers.remove_if_empty(self._client, self.name.container)
        self.close()


class ObjectWriter(Upload):
    """An image as one object, sent when it is complete; it is held in memory until then.

    :param size: bytes of the image
    """

    concurrency = 1

    def __init__(self, *shared: Any, size: int) -> None:
        super().__init__(*shared)
        self.block_size = max(1, size)
        self._data = b""

    def write(self, offset: int, block: memoryview) -> None:
        """Hold the image; there is one block of it."""
        self._data = bytes(block)

    def commit(self, size: int) -> None:
        """Send the image."""
        with contextlib.closing(HashedBody(self._data)) as body:
            self._publish(body)
        self.close()

    def _publish(self, body: HashedBody) -> None:
        action = _("Storing image %s") % self.name.obj

        def put() -> int:
            response = self._client.request(
                "PUT",
                self.name.container,
                self.name.obj,
                action=action,
                headers={**self.name.headers(), "Content-Length": str(len(body))},
                body=body,
                allow=TAKEN,
                retries=0,
            )
            if response.status not in TAKEN:
                check_etag(response, body.etag(), action)
            return response.status

        with self.name.alone():
            self.name.publish(lambda: self.into_container(put))


class StreamWriter(Upload):
    """An image as one object that is too large to be held.

    The last block is held back until the image is known to be complete: without it Swift drops the
    others.

    :param size: bytes of the image
    :param block_size: bytes
    :param keep: hold all bytes for further tries
    """

    concurrency = 1

    def __init__(self, *shared: Any, size: int, block_size: int, keep: bool) -> None:
        super().__init__(*shared)
        self.block_size = block_size
        self._size = size
        self._keep = keep
        self._stream: StreamedPut | None = None
        self._last = b""

    def write(self, offset: int, block: memoryview) -> None:
        """Send a block, unless it is the last one."""
        if self._stream is None:
            self._stream = StreamedPut(
                self._client,
                self.name.container,
                self.name.obj,
                _("Storing image %s") % self.name.obj,
                self._size,
                self._keep,
                self.name.headers(),
            )
        if offset + len(block) < self._size:
            try:
                self._stream.feed(block)
            except errors.NameTakenError as exc:
                raise self.name.duplicate() from exc
        else:
            self._last = bytes(block)

    def commit(self, size: int) -> None:
        """Send the last block."""
        stream = self._stream
        assert stream is not None
        first = True

        def put() -> int:
            nonlocal first
            if not first:
                return stream.again().status
            first = False
            with memoryview(self._last) as last:
                stream.feed(last)
            return stream.finish().status

        with self.name.alone():
            self.name.publish(put, stream.repeatable)
        self.close()

    def cancel(self) -> None:
        """Break the request off."""
        if self._stream is not None:
            self._stream.cancel()


class SegmentedWriter(Upload):
    """An image in segments, each held in memory, several of them on their way at once.

    Swift answers when a segment is on its disks. Meanwhile the next one is on its way.

    :param segment_size: bytes of all segments but the last
    :param threads: segments on their way at once; 1: each is waited for before the next one
    """

    def __init__(self, *shared: Any, segment_size: int, threads: int) -> None:
        super().__init__(*shared)
        self.block_size = segment_size
        self.blocks_held = threads + 2
        self.concurrency = self.blocks_held if threads > 1 else 1
        self._sending = threading.Semaphore(threads)
        self.manifest = Manifest(self.name)

    def segments(self) -> list[str]:
        """Return the names of all segments that may be there."""
        return self.manifest.attempted

    def write(self, offset: int, block: memoryview) -> None:
        """Store a segment."""
        number = offset // self.block_size + 1
        self._sending.acquire()
        with contextlib.closing(HashedBody(block, self._sending.release)) as body:
            send_segment(self, self.manifest, number, body.etag, body, len(body))

    def commit(self, size: int) -> None:
        """Write the manifest."""
        commit_segments(self, self.manifest, size)


def commit_segments(upload: Upload, manifest: Manifest, size: int) -> None:
    """Make stored segments an image.

    :param upload: what they belong to
    :param manifest: names them
    :param size: bytes of the image
    """
    if size:
        manifest.publish(size)
    else:
        # Without a segment: an object without a byte.
        ObjectWriter.commit(_empty(upload), 0)
        return
    upload.close()


def _empty(upload: Upload) -> ObjectWriter:
    return ObjectWriter(upload.name, upload.uri, False, lambda: None, size=0)


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

    retrying(
        lambda: upload.into_container(send),
        client.settings.retries,
        lambda exc: isinstance(exc, errors.DamagedError),
    )
    manifest.stored(number, etag(), size)


class _SegmentsInOrder(Upload):
    """An image in segments of which one is on its way at a time, in blocks.

    :param size: bytes of the image, 0 when unknown
    :param segment_size: bytes of all segments but the last
    :param block_size: bytes of a block
    """

    concurrency = 1

    def __init__(self, *shared: Any, size: int, segment_size: int, block_size: int) -> None:
        super().__init__(*shared)
        self.block_size = min(block_size, segment_size)
        self.manifest = Manifest(self.name)
        self._size = size
        self._segment_size = segment_size

    def segments(self) -> list[str]:
        """Return the names of all segments that may be there."""
        return self.manifest.attempted

    def write(self, offset: int, block: memoryview) -> None:
        """Add a block to the segment or the segments that it belongs to."""
        while block:
            number, begun = divmod(offset, self._segment_size)
            with block[: self._segment_size - begun] as part:
                if not begun:
                    self._begin(number + 1, offset)
                self._add(part)
                length = len(part)
            offset += length
            if not offset % self._segment_size:
                self._end()
            block = block[length:]

    def _begin(self, number: int, offset: int) -> None:
        raise NotImplementedError

    def _add(self, part: memoryview) -> None:
        raise NotImplementedError

    def _end(self) -> None:
        raise NotImplementedError

    def commit(self, size: int) -> None:
        """End the last segment, and write the manifest."""
        if size % self._segment_size:
            self._end()
        commit_segments(self, self.manifest, size)


class StreamedSegmentsWriter(_SegmentsInOrder):
    """Segments that are too large to be held, several of them.

    :param keep: hold the bytes of one segment, so that it can be sent again
    """

    def __init__(self, *shared: Any, keep: bool, **sizes: int) -> None:
        super().__init__(*shared, **sizes)
        self._keep = keep
        self._stream: StreamedPut | None = None
        self._number = 0

    def _begin(self, number: int, offset: int) -> None:
        name = self.manifest.attempt(number)
        length = min(self._segment_size, self._size - offset) if self._size else None
        self._number = number
        self._stream = StreamedPut(
            self._client,
            self.name.container,
            name,
            _("Storing the segment %s") % name,
            length,
            self._keep,
        )

    def _add(self, part: memoryview) -> None:
        assert self._stream is not None
        self._stream.feed(part)

    def _end(self) -> None:
        stream, self._stream = self._stream, None
        assert stream is not None
        try:
            response = stream.finish()
            if response.status in TAKEN:
                raise errors.refusal(
                    response.status,
                    response.reason,
                    _("Storing a segment of image %s") % self.name.obj,
                    self.name.obj,
                )
        except BaseException:
            stream.cancel()
            raise
        self.manifest.stored(self._number, stream.etag, stream.size)

    def cancel(self) -> None:
        """Break the request off."""
        if self._stream is not None:
            self._stream.cancel()


class BufferedSegmentsWriter(_SegmentsInOrder):
    """Segments that go to a local file first, so that they can be sent again.

    :param folder: where the file is made; it has no name there
    """

    def __init__(self, *shared: Any, folder: str, **sizes: int) -> None:
        super().__init__(*shared, **sizes)
        self._folder = folder
        self._file: BinaryIO | None = None
        self._digest = hashlib.md5(usedforsecurity=False)
        self._number = 0

    def _begin(self, number: int, offset: int) -> None:
        self._number = number
        self._digest = hashlib.md5(usedforsecurity=False)
        with self._local():
            if self._file is None:
                self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 - kept open
            self._file.seek(0)
            self._file.truncate()

    @contextlib.contextmanager
    def _local(self) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            # Here the disk of this host is meant, not that of the cluster.
            raise exceptions.StorageFull(
                _("The directory of swift_upload_buffer_dir cannot be written: %(reason)s"),
                reason=exc.strerror or type(exc).__name__,
            ) from exc

    def _add(self, part: memoryview) -> None:
        assert self._file is not None
        self._digest.update(part)
        with self._local():
            self._file.write(part)

    def _end(self) -> None:
        file = self._file
        assert file is not None
        with self._local():
            file.flush()
        size = file.tell()

        def body() -> Iterator[bytes]:
            file.seek(0)
            return iter(lambda: file.read(_FILE_PIECE), b"")

        send_segment(self, self.manifest, self._number, self._digest.hexdigest, body, size)

    def cancel(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()

    def close(self) -> None:
        """Let go of the file, too."""
        self.cancel()
        super().close()
