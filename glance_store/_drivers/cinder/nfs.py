# SPDX-License-Identifier: Apache-2.0
"""Volumes stored as files on a share, which stays mounted while any attachment uses it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from typing import Any

from glance_store._drivers.cinder import errors
from glance_store._drivers.cinder.connector import Connector, refuse_encryption
from glance_store._drivers.cinder.device import Device, FileDevice
from glance_store._drivers.cinder.locks import Users
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

    @property
    def _state(self) -> str:
        return os.path.join(self._host.mount_base, "_state")

    @property
    def _lock_file(self) -> str:
        return os.path.join(self._state, f"mount_{self._hash}.lock")

    @property
    def _users(self) -> Users:
        return Users(os.path.join(self._state, f"mount_users_{self._hash}"))

    def extend(self) -> None:
        """Do nothing: a larger file needs no action here."""

    def _check_volume(self) -> None:
        refuse_encryption(self._volume, self._info)
        kind, name = self._info.get("format"), str(self._info["name"])
        if kind not in _RAW:
            raise errors.CinderError(
                _(
                    "Volume %(volume)s has the format %(format)s, in which an image would be "
                    "damaged: set nfs_qcow2_volumes to False in Cinder"
                ),
                volume=self._volume.id,
                format=kind,
            )
        if name != os.path.basename(name) or name in ("", ".", ".."):
            raise errors.CinderError(
                _("Volume %(volume)s has %(name)r on its share, which is not a valid file name"),
                volume=self._volume.id,
                name=name[:100],
            )

    def _connect(self, writable: bool) -> Device:
        self._check_volume()
        return super()._connect(writable)

    def _open(self, writable: bool) -> Device:
        self._mount()
        path = os.path.join(self.mount_point, self._info["name"])
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

    def _let_go(self, _found: dict[str, Any] | None, left: int) -> None:
        if left:
            return
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
