# SPDX-License-Identifier: Apache-2.0
"""Images that are one object in Swift, sent in one request."""

from __future__ import annotations

import contextlib
from typing import Any

from glance_store._drivers.swift import errors
from glance_store._drivers.swift.body import HashedBody
from glance_store._drivers.swift.publish import TAKEN, Expected
from glance_store._drivers.swift.stream import StreamedPut, check_etag
from glance_store._drivers.swift.upload import Upload
from glance_store.i18n import _

# The data is not what its ETag says.
_DAMAGED = 422


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
        headers = {
            **self.name.headers(),
            "Content-Length": str(len(body)),
            # Swift itself refuses what has changed on its way.
            "ETag": body.etag(),
        }

        def put() -> int:
            response = self._client.request(
                "PUT",
                self.name.container,
                self.name.obj,
                action=action,
                headers=headers,
                body=body,
                allow=(*TAKEN, _DAMAGED),
                retries=0,
            )
            if response.status == _DAMAGED:
                raise errors.DamagedError(
                    _("%(action)s: Swift says that the data was damaged on its way"), action=action
                )
            if response.status not in TAKEN:
                check_etag(response, body.etag(), action)
            return response.status

        expected = Expected(len(body), body.etag())
        with self.name.alone():
            self.name.publish(lambda: self.into_container(put), lambda: expected)


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
        self._last: bytes | None = None

    def write(self, offset: int, block: memoryview) -> None:
        """Send a block, unless it is the last one."""
        if self._stream is None:
            if not self._keep:
                # There is one try, and waiting for the first block may have taken long.
                self.ensure_container()
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

        def put() -> int:
            try:
                self._send_last(stream)
                return self.into_container(stream.send).status
            except errors.NameTakenError:
                # Whose object that is will be seen.
                return TAKEN[0]

        with self.name.alone():
            self.name.publish(put, lambda: Expected(size, stream.etag), stream.repeatable)
        self.close()

    def _send_last(self, stream: StreamedPut) -> None:
        block, self._last = self._last, None
        if block is not None:
            with memoryview(block) as last:
                stream.feed(last)

    def cancel(self) -> None:
        """Break the request off."""
        if self._stream is not None:
            self._stream.cancel()
