# SPDX-License-Identifier: Apache-2.0
"""Writes one image: an object in one request, or in parts that are sent side by side."""

from __future__ import annotations

from typing import Any

from glance_store._drivers.s3.parts import MAX_PART, EqualParts, GrowingParts, Plan
from glance_store._drivers.s3.upload import Upload


class S3Writer:
    """One image on its way into a bucket.

    An image of known size below `large` is one block and one request. Of unknown size it is one
    request if it ends within the first part. That request is sent by `write`, when all bytes have
    been read and checked: nothing but `commit` follows. All others are sent in parts, and `commit`
    makes them an object.

    :param upload: sends the requests
    :param uri: location of the image
    :param size: bytes, 0 when unknown
    :param large: bytes from which on an image is sent in parts; 0: always
    :param chunk: bytes of a part, unless there have to be larger ones
    :param concurrency: parts in flight
    """

    holes = False

    def __init__(
        self, upload: Upload, uri: str, size: int, large: int, chunk: int, concurrency: int
    ) -> None:
        self.uri = uri
        self.metadata: dict[str, Any] = {}
        self._upload = upload
        self._whole = 0 < size < min(large, MAX_PART)
        self._may_be_small = self._whole or (large > 0 and size == 0)
        self._stored = False
        self._plan: Plan
        if self._whole:
            self._plan = EqualParts(size, size)
        elif size:
            self._plan = EqualParts(size, chunk)
        else:
            self._plan = GrowingParts(chunk)
        self.block_size = self._plan.size_at(0)
        # Parts that have to be larger than configured are fewer in the same memory.
        configured = (concurrency + 2) * (size if self._whole else chunk)
        self.blocks_held = max(2, configured // self.block_size)
        self.concurrency = 1 if self._whole else min(concurrency, self.blocks_held)

    def block_size_at(self, offset: int) -> int:
        """Return the bytes of the block that begins at an offset: blocks are parts."""
        return self._plan.size_at(offset)

    def write(self, offset: int, block: memoryview) -> None:
        """Send a part, or the whole image.

        :param offset: where it begins
        :param block: its bytes
        :raises Duplicate: it is the whole image, and there is one of this name
        """
        is_all = self._whole or (self._may_be_small and len(block) < self.block_size)
        if is_all and offset == 0:
            self._upload.put(block)
            self._stored = True
        else:
            self._upload.part(self._plan.number_at(offset), block)

    def commit(self, size: int) -> None:
        """Make the object from its parts.

        :param size: bytes of the image
        :raises Duplicate: there is an object of this name
        """
        if self._upload.in_parts:
            self._upload.complete()
        elif not self._stored:
            # An image without a byte; S3 has no multipart upload without a part.
            self._upload.put(b"")

    def abort(self) -> None:
        """Remove what was sent."""
        self._upload.discard()
