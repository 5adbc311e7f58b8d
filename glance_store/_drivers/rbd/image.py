# SPDX-License-Identifier: Apache-2.0
"""An RBD image that is open, and what its state tells."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any

from glance_store import exceptions
from glance_store._drivers._uri import is_clean
from glance_store._drivers.rbd import bindings, errors
from glance_store._drivers.rbd.connection import Lease
from glance_store.i18n import _

LOG = logging.getLogger(__name__)

# An image is complete when it has a snapshot of this name.
SNAPSHOT = "snap"
# Tag of the locks that clients of RBD take while they write, and break when their owner is dead.
_LOCK_OF_RBD = "internal"
# RADOS takes names of objects up to 2048 bytes, and RBD and uploads put something in front.
_LONGEST_NAME = 1900


def is_possible_name(name: str) -> bool:
    """Tell whether there can be an image, a pool or a snapshot of a name."""
    # The bindings cut a name at a zero byte, and crash on what cannot be encoded.
    return bool(name) and is_clean(name) and len(name.encode()) <= _LONGEST_NAME


class OpenImage:
    """An image that is open. It stays open, and so does its connection, while a call uses it.

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
        self._users = 1  # who has opened it, and those of `in_use`
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
        lease.connection.hold(self)
        try:
            with errors.translated(action, lease.connection, self.name):
                self.is_old = bool(self.native.old_format())
                self.id = None if self.is_old else str(self.native.id())
        except BaseException:
            self.close()
            raise

    def snapshots(self) -> set[str]:
        """Return the names of the snapshots, without those that mirroring makes and removes."""
        return {
            snapshot["name"]
            for snapshot in self.native.list_snaps()
            if snapshot.get("namespace") != bindings.MIRROR_SNAPSHOT
        }

    def group(self) -> str:
        """Return the RBD group that the image belongs to, empty when there is none."""
        if self.is_old or not hasattr(self.native, "group"):
            return ""
        return str(self.native.group()["name"])

    def is_locked(self) -> bool:
        """Tell whether somebody has locked the image, other than RBD itself."""
        lockers = self.native.list_lockers()
        return bool(lockers) and lockers["tag"] != _LOCK_OF_RBD

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

    @contextlib.contextmanager
    def in_use(self) -> Iterator[Any]:
        """Yield the object of the bindings, which stays open in the block, whoever closes it.

        To close an image while a call uses it, in another thread or one that is late, is the end of
        the process.

        :raises BackendException: it is closed
        """
        with self._lock:
            closed = self._closed
            if not closed:
                self._users += 1
        if closed:
            raise exceptions.BackendException(_("RBD image %s is closed already") % self.name)
        try:
            yield self.native
        finally:
            self._quietly(self._let_go)

    def close(self) -> None:
        """Close the image, as soon as no call uses it; further calls do nothing.

        :raises Exception: of the bindings; the image is closed all the same
        """
        if self._process != os.getpid():
            return
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._let_go()

    def _let_go(self) -> None:
        with self._lock:
            self._users -= 1
            if self._users:
                return
        try:
            self.native.close()
        finally:
            bindings.OBJECTS.closed(self.native)
            self._lease.connection.release(self)

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
        self._quietly(self.close)

    def _quietly(self, step: Callable[[], object]) -> None:
        try:
            step()
        except Exception as exc:
            if not errors.is_native(exc):
                raise
            if errors.is_lost(exc):
                self._lease.connection.lose()
            LOG.warning("RBD image %s was not closed cleanly: %s", self.name, exc)


def id_of(lease: Lease, name: str) -> str | None:
    """Return the id of the image that has a name, None when there is none.

    :param lease: the pool
    :param name: of the image
    """
    try:
        with OpenImage(lease, name) as image:
            return image.id
    except exceptions.NotFound:
        return None


def incomplete(name: str, snapshot: str) -> exceptions.NotFound:
    """Return the error for an image that cannot be read.

    :param name: of the image
    :param snapshot: the one that is missing
    """
    return exceptions.NotFound(
        _(
            "Image %(image)s not found: there is an RBD image of this name, but it is incomplete: "
            "it has no snapshot '%(snapshot)s'. Another release of the image service is uploading "
            "it, has left it behind, or somebody else has made it"
        ),
        image=name,
        snapshot=snapshot,
    )
