# SPDX-License-Identifier: Apache-2.0
"""Reads the image on an attached volume."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from glance_store._drivers.cinder import errors
from glance_store._drivers.cinder.attachment import Attachment
from glance_store.transfer.interface import Extent

LOG = logging.getLogger(__name__)


class CinderReader:
    """An `ImageReader` of an attached volume; closing it detaches the volume.

    Without an attachment, it is for a range without a byte.
    """

    def __init__(self, volume_id: str, size: int, attachment: Attachment | None) -> None:
        self._attachment = attachment
        self.size = size
        # A volume is written once, and its id is never reused.
        self.version = volume_id
        self.concurrency = attachment.device.read_concurrency if attachment else 1

    def read_at(self, offset: int, length: int) -> bytes:
        """Read up to `length` bytes at an offset."""
        if self._attachment is None:
            return b""
        with errors.device_errors(self.version, writing=False):
            # Never read past the image: the rest of the volume is not part of it.
            return self._attachment.device.read_at(offset, min(length, self.size - offset))

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """Report everything as data: only the storage knows what was never written."""
        yield Extent(offset, length, True)

    def close(self) -> None:
        """Detach the volume. The data is delivered, so errors are logged for the operator."""
        try:
            if self._attachment is not None:
                self._attachment.detach()
        except errors.CinderError as exc:
            LOG.error("After a download: %s", exc.msg)
