# SPDX-License-Identifier: Apache-2.0
"""Connects an exported volume to this host, through os-brick or from a mounted share."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable
from typing import Any

from glance_store._drivers.cinder import errors
from glance_store._drivers.cinder.device import Device, FileDevice, of_handle
from glance_store._drivers.cinder.host import Host
from glance_store._drivers.cinder.locks import Users, locked
from glance_store._drivers.cinder.volumes import GiB
from glance_store.i18n import _

LOG = logging.getLogger(__name__)

_SCALEIO_TIMEOUT = 20.0
_SCALEIO_POLL = 0.2


def refuse_encryption(volume: Any, info: dict[str, Any]) -> None:
    """Raise CinderError if Cinder says that a volume, or its connection, is encrypted."""
    data = info.get("data") or {}
    if getattr(volume, "encrypted", False) or info.get("encrypted") or data.get("encrypted"):
        raise errors.CinderError(
            _(
                "Volume %(volume)s is encrypted, so nobody could read an image on it, or it would "
                "be stored unencrypted: set cinder_volume_type to a type without encryption"
            ),
            volume=volume.id,
        )


class Connector:
    """The connection of one attachment; this base class serves most protocols.

    `others` tells whether Cinder lists other attachments of the volume to this host; None: unknown.
    """

    # Whether the volume can be extended while connected.
    grows = True

    def __init__(
        self,
        host: Host,
        info: dict[str, Any],
        volume: Any,
        attachment_id: str,
        others: Callable[[], bool | None] = lambda: False,
    ) -> None:
        self._host = host
        self._others = others
        self._info = info
        self._volume = volume
        self._id = attachment_id
        self._found: dict[str, Any] | None = None
        self._counted = False

    def connect(self, writable: bool) -> Device:
        """Connect the volume to this host and open it.

        Raises CinderError if that fails; nothing is left of it then.
        """
        try:
            return self._connect(writable)
        except BaseException as exc:
            try:
                self.disconnect(None)
            except errors.CinderError as second:
                LOG.error("%s", second.msg)
            if isinstance(exc, errors.CinderError) or not isinstance(exc, Exception):
                raise
            raise errors.kind_of(exc)(
                _("Volume %(volume)s cannot be connected to this host: %(cause)s"),
                volume=self._volume.id,
                cause=errors.text_of(exc),
            ) from exc

    def disconnect(self, device: Device | None) -> None:
        """Close the volume and disconnect it from this host.

        Raises CinderError if something may be left behind; the text says what to do.
        """
        try:
            if device is not None:
                device.close()
            self._disconnect()
        except Exception as exc:
            raise errors.CinderError(
                _(
                    "Volume %(volume)s could not be disconnected from this host; its device "
                    "%(device)s may be left behind and must then be removed: %(cause)s"
                ),
                volume=self._volume.id,
                device=self._found["path"] if self._found else "",
                cause=errors.text_of(exc),
            ) from exc

    def has_ended(self) -> bool:
        """Tell whether a process of this host had the attachment and has ended with it."""
        return self._users.has_ended(self._id)

    def clear(self) -> None:
        """Disconnect what a process that has ended had connected. Raises CinderError."""
        self._counted, self._found = True, {}
        self.disconnect(None)

    def extend(self) -> None:
        """Make this host notice that the volume is larger."""
        self._brick().extend_volume(self._info)

    def _brick(self) -> Any:
        from os_brick.initiator import connector

        return connector.InitiatorConnector.factory(
            self._info["driver_volume_type"],
            self._host.root_helper,
            use_multipath=self._host.use_multipath,
            conn=self._info,
        )

    @property
    def _lock_file(self) -> str:
        return os.path.join(self._host.lock_path, f"glance_store-volume-{self._volume.id}")

    @property
    def _users(self) -> Users:
        folder = os.path.join(self._host.lock_path, "glance_store-attachments")
        return Users(os.path.join(folder, self._volume.id))

    def _lock(self) -> contextlib.AbstractContextManager[None]:
        # One at a time: connecting the same volume twice gives the same device.
        return locked(self._lock_file, self._host.lock_timeout)

    def _connect(self, writable: bool) -> Device:
        with self._lock():
            # Register first: an attachment that cannot be counted must not be connected.
            self._users.add(self._id)
            self._counted = True
            return self._open(writable)

    def _open(self, writable: bool) -> Device:
        self._found = self._brick().connect_volume(self._info)
        path = self._found["path"]
        if not isinstance(path, (str, bytes)):
            return of_handle(path)
        name = os.fsdecode(path)
        with self._host.owning(name):
            device = FileDevice(name, writable)
        try:
            self._check(device)
        except BaseException:
            device.close()
            raise
        return device

    def _check(self, device: Device) -> None:
        """Check that a device is as expected."""

    def _disconnect(self) -> None:
        if not self._counted:
            return
        with self._lock():
            left = self._users.remove(self._id)
            self._counted = False
            found, self._found = self._found, None
            self._let_go(found, left)

    def _let_go(self, found: dict[str, Any] | None, left: int) -> None:
        """Undo `_open`, as far as `left` other attachments of this host allow."""
        # A handle belongs to this attachment alone. What a dead process had is taken for a device.
        is_handle = found is not None and not isinstance(found.get("path", ""), (str, bytes))
        if found is None or (left and not is_handle):
            return
        others = False if is_handle else self._others()
        if others:
            LOG.warning(
                "The device of volume %s stays at this host: Cinder lists another attachment "
                "here, whose process does not share this one's locks (lock_path in [os_brick])",
                self._volume.id,
            )
            return
        # Force it if nobody else can use it: a stale device could show another volume one day.
        self._brick().disconnect_volume(self._info, found, force=others is not None)


class ScaleIOConnector(Connector):
    """ScaleIO, which shows an extended device with its old size for a while."""

    def _check(self, device: Device) -> None:
        wanted = int(self._volume.size) * GiB
        deadline = time.monotonic() + _SCALEIO_TIMEOUT
        while (found := device.size()) < wanted:
            if time.monotonic() > deadline:
                raise errors.CinderError(
                    _(
                        "Device %(device)s has %(found)d bytes and did not get the %(wanted)d "
                        "of volume %(volume)s within %(seconds)d seconds"
                    ),
                    device=device.path,
                    found=found,
                    wanted=wanted,
                    volume=self._volume.id,
                    seconds=_SCALEIO_TIMEOUT,
                )
            time.sleep(_SCALEIO_POLL)
