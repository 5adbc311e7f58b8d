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
    """An `ImageReader` of an attached volume; closing it detaches the volume."""

    def __init__(self, attachment: Attachment, size: int) -> None:
        self._attachment = attachment
        self.size = size
        # A volume is written once, and its id is never reused.
        self.version = str(attachment.volume.id)
        self.concurrency = attachment.device.read_concurrency

    def read_at(self, offset: int, length: int) -> bytes:
        """Read up to `length` bytes at an offset."""
        with errors.device_errors(self._attachment.volume.id, writing=False):
            # Never read past the image: the rest of the volume is not part of it.
            return self._attachment.device.read_at(offset, min(length, self.size - offset))

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """Report everything as data: only the storage knows what was never written."""
        yield Extent(offset, length, True)

    def close(self) -> None:
        """Detach the volume. The data is delivered, so errors are logged for the operator."""
        try:
            self._attachment.detach()
        except errors.CinderError as exc:
            LOG.error("After a download: %s", exc.msg)
