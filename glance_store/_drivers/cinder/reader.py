# SPDX-License-Identifier: Apache-2.0
"""Reads the image on an attached volume."""

from __future__ import annotations

import atexit
import logging
import os
import time
from collections.abc import Iterator

from glance_store._drivers.cinder import errors
from glance_store._drivers.cinder.attachment import Attachment
from glance_store._drivers.cinder.locks import holds_a_lock
from glance_store.i18n import _
from glance_store.transfer.interface import Extent
from glance_store.transfer.threads import Calls

LOG = logging.getLogger(__name__)

# Seconds that the end of a download waits until its volume is detached, and the end of a process.
_PATIENCE = 10.0
_EXIT_PATIENCE = 60.0
_POLL = 0.05
_DETACHING = Calls(_PATIENCE, 32, "glance_store-cinder-release")
# The attachments that are being released.
_PENDING: set[Attachment] = set()

os.register_at_fork(after_in_child=_PENDING.clear)


@atexit.register
def _at_exit() -> None:
    deadline = time.monotonic() + _EXIT_PATIENCE
    while _PENDING and time.monotonic() < deadline:
        time.sleep(_POLL)


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
        what = str(_("volume %s") % self._attachment.volume.id)
        with errors.device_errors(what, writing=False):
            # Never read past the image: the rest of the volume is not part of it.
            return self._attachment.device.read_at(offset, min(length, self.size - offset))

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """Report everything as data: only the storage knows what was never written."""
        yield Extent(offset, length, True)

    def close(self) -> None:
        """Detach the volume, in the background if that takes long: the last bytes wait for this."""
        _PENDING.add(self._attachment)
        # This thread may hold the lock that detaching needs.
        wait = 0.0 if holds_a_lock() else _PATIENCE
        _DETACHING.cleanup(self._detach, wait=wait)

    def _detach(self) -> None:
        try:
            self._attachment.detach()
        except errors.CinderError as exc:
            # The data is delivered, so this is for the operator.
            LOG.error("After a download: %s", exc.msg)
        finally:
            _PENDING.discard(self._attachment)


class EmptyReader:
    """An `ImageReader` for an empty range, for which no volume is attached."""

    concurrency = 1

    def __init__(self, size: int) -> None:
        self.size = size

    def read_at(self, offset: int, length: int) -> bytes:
        """Return no bytes."""
        return b""

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """Report no extents."""
        yield from ()

    def close(self) -> None:
        """Do nothing."""
