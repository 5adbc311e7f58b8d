# SPDX-License-Identifier: Apache-2.0
"""An open RBD image and its state."""

from __future__ import annotations

import calendar
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

# An image with a snapshot of this name is complete.
SNAPSHOT = "snap"
# Prefix of an unfinished upload's image. The name continues with the image's name and a unique
# suffix. Nothing else is ever replaced.
UPLOAD_PREFIX = "glance_store.upload."
# Tag of the locks that RBD clients take while they write, and break when the owner is dead.
_LOCK_OF_RBD = "internal"
# RADOS allows 2048 bytes for an object name; RBD and uploads add prefixes.
_LONGEST_NAME = 1900


def is_possible_name(name: str) -> bool:
    """Tell whether an image, a pool or a snapshot can have this name."""
    # The bindings cut a name at a null byte, and crash on what cannot be encoded.
    return bool(name) and is_clean(name) and len(name.encode()) <= _LONGEST_NAME


class OpenImage:
    """An open image. It stays open, and so does its connection, while a call uses it.

    The lease stays the caller's. An image in the trash has no name: open it by `image_id`. Opening
    it read-only needs only the right to read and leaves no trace; otherwise the image gets a
    watcher, which disappears with this process. Raises NotFound if there is no such image.
    """

    def __init__(
        self,
        lease: Lease,
        name: str | None,
        read_only: bool = True,
        image_id: str | None = None,
    ) -> None:
        self._lease = lease
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._closed = False
        self._users = 1  # the opener, plus the calls in `in_use`
        self.name = str(name or image_id)
        self.read_only = read_only
        action = _("Opening image %s") % self.name
        with errors.translated(action, lease.connection, self.name):
            self.native = bindings.OBJECTS.opened(
                bindings.rbd().Image(
                    lease.access,
                    name,
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

    def select(self, snapshot: str) -> None:
        """Read the image as it was at a snapshot. Raises NotFound if it has none of this name.

        Naming the snapshot while opening is no alternative: librbd then still works on the image
        when it says that it is open, and closing it soon crashes the process (seen with 16.2.15).
        """
        action = _("Opening image %s") % self.name
        with errors.translated(action, self._lease.connection, self.name):
            self.native.set_snap(snapshot)

    def snapshots(self) -> set[str]:
        """Return the names of the snapshots, except those that mirroring makes."""
        return {
            snapshot["name"]
            for snapshot in self.native.list_snaps()
            if snapshot.get("namespace") != bindings.MIRROR_SNAPSHOT
        }

    def group(self) -> str:
        """Return the RBD group the image belongs to, or an empty string."""
        if self.is_old or not hasattr(self.native, "group"):
            return ""
        return str(self.native.group()["name"])

    def is_locked(self) -> bool:
        """Tell whether somebody other than RBD itself has locked the image."""
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
        """Return client id and cookie of every client that has the image open for writing.

        This client counts too. Some may be dead: see `watchers.living`.
        """
        return {(entry["id"], entry["cookie"]) for entry in self.native.watchers_list()}

    @contextlib.contextmanager
    def in_use(self) -> Iterator[Any]:
        """Yield the bindings' object, which stays open during the block even if somebody closes it.

        Closing an image while a call uses it, in another thread or in a late call, crashes the
        process. Raises BackendException if the image is already closed.
        """
        with self._lock:
            closed = self._closed
            if not closed:
                self._users += 1
        if closed:
            raise exceptions.BackendException(_("RBD image %s is already closed") % self.name)
        try:
            yield self.native
        finally:
            self._quietly(self._let_go)

    def close(self) -> None:
        """Close the image once no call uses it; further calls do nothing.

        May raise an error of the bindings; the image is closed all the same.
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
        """Close the image and log errors; further calls do nothing."""
        self._quietly(self.close)

    def _quietly(self, step: Callable[[], object]) -> None:
        try:
            step()
        except Exception as exc:
            if not errors.is_native(exc):
                raise
            if errors.is_lost(exc):
                self._lease.connection.lose()
            LOG.warning("Could not close RBD image %s cleanly: %s", self.name, exc)


def seconds_of(stamp: Any) -> float | None:
    """Return a time of the bindings, which is in UTC, in seconds since 1970."""
    return None if stamp is None else float(calendar.timegm(stamp.timetuple()))


def id_of(lease: Lease, name: str) -> str | None:
    """Return the id of the image with this name, or None."""
    try:
        with OpenImage(lease, name) as image:
            return image.id
    except exceptions.NotFound:
        return None


def incomplete(name: str, snapshot: str) -> exceptions.NotFound:
    """Return the error for an image that lacks its snapshot."""
    return exceptions.NotFound(
        _(
            "Image %(image)s not found: the RBD image of this name is incomplete, it has no "
            "snapshot '%(snapshot)s'. Either another release of the image service is uploading "
            "it or left it behind, or somebody else created it"
        ),
        image=name,
        snapshot=snapshot,
    )
