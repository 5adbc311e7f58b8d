# SPDX-License-Identifier: Apache-2.0
"""Volumes stored as files on a share, which stays mounted while any attachment uses it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re

from glance_store._drivers.cinder import errors
from glance_store._drivers.cinder.connector import Connector
from glance_store._drivers.cinder.device import Device, FileDevice
from glance_store._drivers.cinder.locks import Users, locked
from glance_store.i18n import _

_RAW = (None, "", "raw")
# The kernel's escape for spaces and the like in the mount table.
_ESCAPE = re.compile(r"\\([0-7]{3})")


class NFSConnector(Connector):
    """Mounts the share of a volume below ``cinder_mount_point_base``.

    Processes of this host share a mount. The attachments that use it are the files in
    ``_state/mount_users_<hash>`` below the same directory.
    """

    # Cinder cannot extend an attached NFS volume.
    grows = False

    @property
    def _export(self) -> str:
        return str(self._info["export"])

    @property
    def _hash(self) -> str:
        return hashlib.sha256(self._export.encode()).hexdigest()

    @property
    def mount_point(self) -> str:
        """Where the share is mounted."""
        return os.path.join(self._host.mount_base, self._hash)

    def _lock(self) -> contextlib.AbstractContextManager[None]:
        folder = os.path.join(self._host.mount_base, "_state")
        return locked(os.path.join(folder, f"mount_{self._hash}.lock"), self._host.lock_timeout)

    def _users(self) -> Users:
        folder = os.path.join(self._host.mount_base, "_state")
        return Users(os.path.join(folder, f"mount_users_{self._hash}"))

    def extend(self) -> None:
        """Do nothing: a larger file needs no action here."""

    def _refuse_formats(self) -> None:
        volume = self._volume.id
        if self._info.get("encrypted") or getattr(self._volume, "encrypted", False):
            raise errors.CinderError(
                _(
                    "Volume %(volume)s is encrypted, which is not possible for images on NFS: "
                    "set cinder_volume_type to a type without encryption"
                ),
                volume=volume,
            )
        kind = self._info.get("format")
        if kind not in _RAW:
            raise errors.CinderError(
                _(
                    "Volume %(volume)s has the format %(format)s, in which an image would be "
                    "damaged: set nfs_qcow2_volumes to False in Cinder"
                ),
                volume=volume,
                format=kind,
            )

    def _connect(self, writable: bool) -> Device:
        self._refuse_formats()
        name = str(self._info["name"])
        if name != os.path.basename(name) or name in ("", ".", ".."):
            raise errors.CinderError(
                _("Volume %(volume)s has %(name)r on its share, which is not a valid file name"),
                volume=self._volume.id,
                name=name[:100],
            )
        with self._lock():
            self._users().add(self._id)
            self._counted = True
            self._mount()
            path = os.path.join(self.mount_point, name)
            self._found = {"path": path}
            # Whoever can write to the share could point the name at any file of this host.
            with self._host.owning(path, follow=False):
                return FileDevice(path, writable, os.O_NOFOLLOW)

    def _mount(self) -> None:
        os.makedirs(self.mount_point, mode=0o755, exist_ok=True)
        if is_mounted(self.mount_point):
            return
        options = (self._info.get("options") or "").split()
        self._host.execute("mount", "-t", "nfs", *options, self._export, self.mount_point)

    def _disconnect(self) -> None:
        if not self._counted:
            return
        with self._lock():
            self._counted = False
            self._found = None
            if self._users().remove(self._id) == 0:
                self._unmount()

    def _unmount(self) -> None:
        if is_mounted(self.mount_point):
            self._host.execute("umount", self.mount_point)
        with contextlib.suppress(OSError):
            os.rmdir(self.mount_point)


def is_mounted(path: str) -> bool:
    """Tell whether something is mounted at a directory.

    Unlike `os.path.ismount`, this also sees a bind mount from the same file system.
    """
    real = os.path.realpath(path)
    with open("/proc/self/mounts", encoding="utf-8", errors="surrogateescape") as mounts:
        places = [line.split(" ")[1] for line in mounts]
    return real in [_ESCAPE.sub(lambda found: chr(int(found[1], 8)), place) for place in places]
