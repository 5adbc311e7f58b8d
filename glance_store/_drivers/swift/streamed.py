# SPDX-License-Identifier: Apache-2.0
"""Stores images that do not fit into memory, by sending their data while it comes in.

Such an image is one object, or segments that are sent one at a time. As far as memory, or a local
directory, has room for the data, it can be sent again after a failure.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import tempfile
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, BinaryIO

from glance_store import exceptions
from glance_store._drivers._objects.claim import Expected
from glance_store._drivers._objects.errors import ERRORS, NameTaken
from glance_store._drivers.swift import errors, large
from glance_store._drivers.swift.upload import Upload, check_stored
from glance_store.i18n import _
from glance_store.transfer.digest import Digests
from glance_store.transfer.memory import Memory, Share
from glance_store.transfer.multipart import EqualParts, Plan
from glance_store.transfer.pipe import Feed, KnownFeed, Pipe

if TYPE_CHECKING:
    import requests

LOG = logging.getLogger(__name__)

_FILE_PIECE = 1024 * 1024
_FULL = (errno.ENOSPC, errno.EDQUOT)


def whole(size: int) -> Plan:
    """Return the plan of an image that is one object."""
    return EqualParts(size, large.Limits(1, size))


class StreamedWriter:
    """One image being stored block by block; without `plan`, it is one object.

    `memory` holds only what can be sent again. The few blocks in flight do not count against it.
    With `folder`, each segment is written to a local file there, and sent when it is complete.
    """

    concurrency = 1
    holes = False

    def __init__(
        self,
        upload: Upload,
        size: int,
        block_size: int,
        plan: Plan | None,
        memory: Memory,
        folder: str | None = None,
    ) -> None:
        self.uri, self.metadata = upload.uri, upload.metadata
        self.digests: Digests | None = None
        self._memory = memory
        self._folder = folder
        self._segmented = plan is not None
        self._plan = plan or whole(size)
        self.block_size = min(block_size, self._plan.size_at(0))
        self._upload = upload
        self._size = size
        self._part: _Part | None = None
        self._missing = 0  # bytes that the current part still needs

    def write(self, offset: int, block: memoryview) -> None:
        """Send a block, as part of the segments that it belongs to."""
        while block:
            if self._part is None:
                self._missing = self._plan.size_at(offset)
                if self._size:
                    self._missing = min(self._missing, self._size - offset)
                self._part = self._begin(self._plan.number_at(offset), self._missing)
            with block[: self._missing] as part:
                self._part.feed(part)
                length = len(part)
            offset += length
            self._missing -= length
            if not self._missing and self._segmented:
                self._end()
            block = block[length:]

    def _begin(self, number: int, length: int) -> _Part:
        kept: _InMemory | _InFile | None = None
        if self._folder is not None:
            kept = _InFile(self._folder)
        elif (share := Share(self._memory)).try_take(length):
            kept = _InMemory(share)
        digests = None if self._segmented else self.digests
        return _Part(
            self._upload,
            number if self._segmented else 0,
            length if self._size else None,
            kept,
            None if digests is None else lambda: digests.checksum,
            at_once=self._folder is None,
        )

    def _end(self) -> None:
        part = self._part
        if part is not None:
            # After a failure here, `abort` cleans up.
            part.finish()
            self._part = None

    def commit(self, size: int) -> None:
        """Finish the last request, and write the manifest."""
        self._end()
        if self._segmented:
            if size:
                self._upload.complete(size)
            else:
                self._upload.put_whole(b"", None)
        self._upload.close()

    def interrupt(self) -> None:
        """End the pauses of other threads."""
        self._upload.interrupt()

    def abort(self) -> None:
        """Break off the request in flight, and remove what was stored."""
        part, self._part = self._part, None
        if part is not None:
            part.close()
        self._upload.abort()


class _Part:
    """One object that is sent while its data comes in, or, without `at_once`, when it is complete.

    `number` is that of the segment, or 0 for a whole image; `kept` takes the data for sending it
    again. `finish` sends the last block of a whole image: without it, Swift drops the others. `md5`
    returns the MD5 of all the bytes once they are known; None: compute it here.
    """

    def __init__(
        self,
        upload: Upload,
        number: int,
        length: int | None,
        kept: _InMemory | _InFile | None,
        md5: Callable[[], str | None] | None,
        at_once: bool,
    ) -> None:
        self._upload = upload
        self._number = number
        self._name = upload.attempt(number) if number else upload.obj
        self._action = (
            _("Storing the segment %s") % self._name
            if number
            else _("Storing image %s") % self._name
        )
        self._kept = kept
        digest = hashlib.md5(usedforsecurity=False)
        hashing = md5 is None and (upload.verify or not at_once)
        self._hash = digest.update if hashing else None
        self._md5 = md5 or (digest.hexdigest if hashing else lambda: None)
        self._size = 0
        self._length = length
        self._last: bytes | None = None
        self._pipe: Pipe[requests.Response] | None = None
        if kept is None:
            # There is only one try, so the container must exist; the wait for the first block may
            # have been long.
            upload.ensure_container()
        if at_once:
            self._pipe = Pipe(self._send, length, "glance_store-swift")

    def _send(self, feed: Feed) -> requests.Response:
        known = self._upload.condition.known
        return self._put(lambda: feed, known, lambda: None, single_try=True)

    def _put(
        self, body: Callable[[], Any], where_none: bool, md5: Callable[[], str | None], **more: Any
    ) -> requests.Response:
        headers = {} if self._number else self._upload.headers(where_none)
        return self._upload.put(
            self._name, self._action, body, md5, headers=headers, retry=False, **more
        )

    def feed(self, block: memoryview) -> None:
        """Send a block, unless it is the last one of an image."""
        if self._hash is not None:
            self._hash(block)
        self._size += len(block)
        if self._kept is not None:
            self._kept.add(block)
        if not self._number and self._size == self._length:
            self._last = bytes(block)
        else:
            self._feed(block)

    def _feed(self, block: memoryview) -> None:
        if self._pipe is not None and not self._pipe.feed(block):
            self._result(early=True)

    def _result(self, early: bool = False) -> requests.Response | None:
        """Return the answer to the request in flight; None if all must be sent again.

        `early` means that it ended before it had all of the data, and so cannot be a success.
        """
        pipe, self._pipe = self._pipe, None
        if pipe is None:
            return None
        try:
            answer = pipe.finish()
            if not early:
                check_stored(answer, self._md5(), self._action)
                return answer
            error: Exception = errors.SwiftUnavailable(
                _("Swift answered before it had all of the data")
            )
        except ERRORS as exc:
            error = exc
        if self._kept is None and isinstance(error, exceptions.NotFound):
            # Do not report this as a missing image: the caller is storing it.
            error = self._upload.container_removed()
        if early and isinstance(error, NameTaken) and not self._number:
            error = self._upload.duplicate()
        mended = early or isinstance(error, (exceptions.NotFound, errors.SwiftError))
        if not mended or not self._is_curable(error):
            raise error
        LOG.warning("%s; sending it again once all of it has arrived", error)
        return None

    def _is_curable(self, error: Exception) -> bool:
        """Tell whether sending everything again may help."""
        curable = (exceptions.BackendUnavailable, errors.TokenRefusedError, exceptions.NotFound)
        barred = not self._number and errors.is_unknown_feature(error)
        return self._kept is not None and (barred or isinstance(error, curable))

    def finish(self) -> None:
        """Send the rest, and everything again as often as needed."""
        upload = self._upload
        if self._number:
            repeatable, passing = self._kept is not None, exceptions.BackendUnavailable
            answer = upload.patience.call(
                self._publish, lambda exc: repeatable and isinstance(exc, passing)
            )
            etag = self._md5() or large.etag_in(answer.headers)
            upload.stored(self._number, etag, self._size)
        else:
            expected = Expected(self._size, self._md5())
            with upload.alone(in_flight=self._pipe is not None):
                upload.publish(self._publish, expected, repeatable=self._kept is not None)
        self.close()

    def _publish(self) -> requests.Response:
        """Have the object stored, by the request in flight or by another one."""
        last, self._last = self._last, None
        if last is not None:
            with memoryview(last) as block:
                self._feed(block)
        answer = self._result()
        return self._again() if answer is None else answer

    def _again(self) -> requests.Response:
        kept = self._kept
        if kept is None:
            raise errors.SwiftUnavailable(
                _(
                    "%(action)s: it broke off and cannot be sent again, because its data did not "
                    "fit into swift_store_memory"
                ),
                action=self._action,
            )

        def put(where_none: bool = False) -> requests.Response:
            def body() -> Feed:
                blocks = kept.blocks()
                return KnownFeed(lambda: next(blocks, None), self._size)

            return self._put(body, where_none, self._md5)

        return self._upload.into_container(
            put if self._number else lambda: self._upload.create(put, self._action)
        )

    def close(self) -> None:
        """Break off the request in flight, if any; Swift drops what has arrived."""
        pipe, self._pipe = self._pipe, None
        if pipe is not None:
            pipe.cancel()
        kept, self._kept = self._kept, None
        if kept is not None:
            kept.close()


class _InMemory:
    """Keeps the blocks of an object in memory."""

    def __init__(self, share: Share) -> None:
        self._share = share
        self._blocks: list[bytes] = []

    def add(self, block: memoryview) -> None:
        self._blocks.append(bytes(block))

    def blocks(self) -> Iterator[memoryview]:
        return (memoryview(block) for block in self._blocks)

    def close(self) -> None:
        self._blocks = []
        self._share.close()


class _InFile:
    """Keeps the blocks of an object in a local file."""

    def __init__(self, folder: str) -> None:
        with _local():
            self._file: BinaryIO = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - kept open

    def add(self, block: memoryview) -> None:
        with _local():
            self._file.write(block)

    def blocks(self) -> Iterator[memoryview]:
        """Yield the blocks; errors of the file must not look like errors of the connection."""
        with _local():
            # This also writes what is still in Python's buffer.
            self._file.seek(0)
            while block := self._file.read(_FILE_PIECE):
                yield memoryview(block)

    def close(self) -> None:
        # Nobody needs what it still has to write.
        with contextlib.suppress(OSError):
            self._file.close()


@contextlib.contextmanager
def _local() -> Iterator[None]:
    """Report errors of the local file as such, not as errors of Swift."""
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
