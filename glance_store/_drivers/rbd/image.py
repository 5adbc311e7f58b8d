# SPDX-License-Identifier: Apache-2.0
"""An RBD image that is open, and what its state tells."""

from __future__ import annotations

import errno
import logging
import os
import threading
from types import TracebackType

from glance_store import exceptions
from glance_store._drivers._uri import is_clean
from glance_store._drivers.rbd import bindings, errors
from glance_store._drivers.rbd.connection import Lease
from glance_store.i18n import _

LOG = logging.getLogger(__name__)

# An image is complete when it has a protected snapshot of this name.
SNAPSHOT = "snap"
# RADOS takes names of objects up to 2048 bytes, and RBD puts something in front.
_LONGEST_NAME = 2000


def is_possible_name(name: str) -> bool:
    """Tell whether there can be an image, a pool or a snapshot of a name."""
    # The bindings cut a name at a zero byte, and crash on what cannot be encoded.
    return bool(name) and is_clean(name) and len(name.encode()) <= _LONGEST_NAME


class OpenImage:
    """An image that is open.

    :param lease: the pool it is in; stays the caller's
    :param name: of the image; None for one that is in the trash
    :param snapshot: the one to read from; None for the image itself
    :param read_only: True needs no more than the right to read, and leaves no trace; False puts a
        watcher on the image, which ends with this process
    :param image_id: id of the image, in place of its name
    :raises NotFound: there is no such image or snapshot
    """

    def __init__(
        self,
        lease: Lease,
        name: str | None,
        snapshot: str | None = None,
        read_only: bool = True,
        image_id: str | None = None,
    ) -> None:
        self._lease = lease
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._closed = False
        self.name = str(name or image_id)
        self.read_only = read_only
        action = _("Opening image %s") % self.name
        with errors.translated(action, lease.connection, self.name):
            self.native = bindings.OBJECTS.opened(
                bindings.rbd().Image(
                    lease.access,
                    name,
                    snapshot=snapshot,
                    read_only=read_only,
                    image_id=image_id,
                )
            )
        try:
            with errors.translated(action, lease.connection, self.name):
                self.is_old = bool(self.native.old_format())
                self.id = None if self.is_old else str(self.native.id())
        except BaseException:
            self.close()
            raise

    def snapshots(self) -> set[str]:
        """Return the names of the snapshots."""
        return {snapshot["name"] for snapshot in self.native.list_snaps()}

    def has_parent(self) -> bool:
        """Tell whether the image is a clone."""
        try:
            self.native.parent_info()
        except Exception as exc:
            if errors.number_of(exc) == errno.ENOENT:
                return False
            raise
        return True

    def watchers(self) -> set[tuple[int, int]]:
        """Return the clients that have opened the image for writing, this one included.

        :returns: numbers of client and cookie; some may be dead, which `watchers.living` tells
        """
        return {(entry["id"], entry["cookie"]) for entry in self.native.watchers_list()}

    def is_locked(self) -> bool:
        """Tell whether somebody has locked the image by hand."""
        lockers = self.native.list_lockers()
        # The lock that RBD takes for itself counts as long as its owner watches the image.
        return bool(lockers) and lockers["tag"] != "internal"

    def is_complete(self, snapshot: str = SNAPSHOT) -> bool:
        """Tell whether all bytes are there.

        :param snapshot: the one that keeps them
        """
        if snapshot not in self.snapshots():
            return False
        # Snapshots of other names were made by others, who need not have protected them.
        # Those of format 1 cannot be protected.
        return snapshot != SNAPSHOT or self.is_old or bool(self.native.is_protected_snap(snapshot))

    def close(self) -> None:
        """Close the image; further calls do nothing.

        :raises Exception: of the bindings; the image is closed all the same
        """
        if self._process != os.getpid():
            return
        with self._lock:
            if self._closed:
                return
            self._closed = True
        try:
            self.native.close()
        finally:
            bindings.OBJECTS.closed(self.native)

    def __enter__(self) -> OpenImage:  # noqa: PYI034 - typing.Self came with Python 3.11
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close_quietly()

    def close_quietly(self) -> None:
        """Close the image; an error is logged. Further calls do nothing."""
        try:
            self.close()
        except Exception as exc:
            if not errors.is_native(exc):
                raise
            if errors.is_lost(exc):
                self._lease.connection.retire()
            LOG.warning("RBD image %s was not closed cleanly: %s", self.name, exc)


def incomplete(name: str, snapshot: str) -> exceptions.NotFound:
    """Return the error for an image that cannot be read.

    :param name: of the image
    :param snapshot: the one that is missing or not protected
    """
    return exceptions.NotFound(
        _(
            "Image %(image)s not found: there is an RBD image of this name, but it is incomplete: "
            "it has no protected snapshot '%(snapshot)s'. It is being uploaded, or what an upload "
            "or a deletion left that was broken off"
        ),
        image=name,
        snapshot=snapshot,
    )
