# SPDX-License-Identifier: Apache-2.0
"""What volumes a store has: images, and leftovers of uploads."""

from __future__ import annotations

import calendar
import functools
import time
from collections.abc import Callable, Iterator
from typing import Any

from glance_store import exceptions
from glance_store._drivers.cinder import volumes
from glance_store._drivers.cinder.attachment import connector_class
from glance_store._drivers.cinder.client import Api
from glance_store._drivers.cinder.connector import Connector
from glance_store._drivers.cinder.host import Host
from glance_store._drivers.cinder.volumes import Volumes
from glance_store.i18n import _
from glance_store.inventory import (
    COMPLETE,
    INCOMPLETE,
    Leftover,
    StoredImage,
)

_PAGE = 500
_PREFIX = volumes.name_of("")
_UNFINISHED = (volumes.UPLOADING, volumes.COMMITTING)
# Statuses in which nothing is being done to a volume.
_IDLE = ("available", "error")
# Seconds after which a reservation counts as abandoned: the next steps follow at once.
_RESERVATION_LASTS = 600.0


def images(api: Api, store: str, uri_of: Callable[[str], str]) -> Iterator[StoredImage]:
    """Yield the volumes that hold a store's images; an empty `store` means single-store mode."""
    for volume in _of_store(api, store):
        state = volume.metadata.get(volumes.STATE, volumes.COMPLETE)
        complete = state == volumes.COMPLETE
        yield StoredImage(
            image_id=volume.metadata.get(volumes.IMAGE_ID) or volume.name[len(_PREFIX) :],
            uri=uri_of(volume.id) if complete else None,
            size=volumes.image_bytes(volume) if complete else None,
            state=COMPLETE if complete else INCOMPLETE,
            modified=_changed(volume),
            used=int(volume.size) * volumes.GiB,
        )


def _of_store(api: Api, store: str) -> Iterator[Any]:
    """Yield a store's image volumes; older releases did not record the store."""
    seen: list[str] = []
    while True:
        try:
            page = _page(api, seen[-1] if seen else None)
        except exceptions.NotFound:
            if not seen:
                raise
            # The last one was deleted meanwhile: go on after the one before.
            seen.pop()
            continue
        for volume in page:
            if _is_image(volume) and volume.metadata.get(volumes.STORE, store) == store:
                yield volume
        if len(page) < _PAGE:
            return
        seen += [volume.id for volume in page]


def _page(api: Api, marker: str | None) -> list[Any]:
    action = _("Listing volumes")
    return list(api.call(action, lambda client: client.volumes.list(limit=_PAGE, marker=marker)))


def _is_image(volume: Any) -> bool:
    return str(volume.name or "").startswith(_PREFIX) and volume.status != "deleting"


def _changed(volume: Any) -> float | None:
    """Return when Cinder last changed a volume's record, in seconds since 1970."""
    text = getattr(volume, "updated_at", None) or getattr(volume, "created_at", None)
    try:
        return float(calendar.timegm(time.strptime(str(text)[:19], "%Y-%m-%dT%H:%M:%S")))
    except ValueError:
        return None


def leftovers(api: Api, host: Host, store: str, older_than: float) -> Iterator[Leftover]:
    """Yield volumes of interrupted uploads, and attachments left by killed processes of this host.

    `older_than` is in seconds since Cinder last changed the volume's record.
    """
    for volume in _of_store(api, store):
        changed = _changed(volume)
        if changed is None or changed > time.time() - older_than:
            continue
        remains = _Remains(api, host, volume)
        if remains.is_nothing:
            continue
        name = f"volume {volume.id} ({volume.name})"
        yield Leftover(
            name=name if remains.of_upload else f"attachment of {name}",
            size=int(volume.size) * volumes.GiB if remains.of_upload else None,
            modified=changed,
            proof=remains.proof,
            remove=functools.partial(_remove, api, host, volume.id),
        )


class _Remains:
    """What killed processes have left of a volume: its data if of an upload, and attachments."""

    def __init__(self, api: Api, host: Host, volume: Any) -> None:
        self._api = api
        self._volume = volume
        self.of_upload = volume.metadata.get(volumes.STATE) in _UNFINISHED
        self._ended: dict[str, Connector | None] = {}
        self._others = False
        if volume.attachments or volume.status not in _IDLE:
            self._look_at_attachments(host)
        # A running upload keeps its volume attached, but for moments.
        self.is_nothing = self._others if self.of_upload else not self._ended

    @property
    def proof(self) -> str:
        """Why nobody is using it."""
        if not self.of_upload:
            return _("the process on this host that had the volume attached has ended")
        if self._ended:
            return _(
                "its metadata says that the upload is incomplete, and the process that had it "
                "attached has ended"
            )
        return _("its metadata says that the upload is incomplete, and it is not attached")

    def _look_at_attachments(self, host: Host) -> None:
        found = volumes.Volumes(self._api).attachments(self._volume.id)
        for one in found:
            try:
                connector = self._connector(host, one.id)
            except exceptions.NotFound:
                continue
            if connector is not None and connector.has_ended():
                self._ended[one.id] = connector
            elif one.status != "attached" and self.of_upload and self._is_old():
                # Killed between reserving the volume and connecting it, on whatever host.
                self._ended[one.id] = None
            else:
                self._others = True
        # Something else is being done to the volume.
        self._others = self._others or not found

    def _connector(self, host: Host, attachment_id: str) -> Connector | None:
        action = _("Looking for attachments of volume %s") % self._volume.id
        found = self._api.call(action, lambda client: client.attachments.show(attachment_id))
        info = dict(found.connection_info or {})
        if not info.get("driver_volume_type"):
            return None
        others = None if getattr(self._volume, "multiattach", False) else False
        kind = connector_class(info)
        return kind(host, info, self._volume, attachment_id, lambda: others)

    def _is_old(self) -> bool:
        changed = _changed(self._volume)
        return changed is not None and changed < time.time() - _RESERVATION_LASTS

    def detach(self) -> None:
        """Disconnect the volume from this host and delete the attachments."""
        for attachment_id, connector in self._ended.items():
            if connector is not None:
                connector.clear()
            volumes.Volumes(self._api).detach(self._volume.id, attachment_id)


def _remove(api: Api, host: Host, volume_id: str) -> None:
    own = Volumes(api)
    try:
        volume = own.get(volume_id)
        if volume.status == "deleting":
            return
        remains = _Remains(api, host, volume)
        if remains.is_nothing:
            raise exceptions.InUseByStore(
                _("Volume %(volume)s is in use, or complete"), volume=volume_id
            )
        remains.detach()
        if remains.of_upload:
            own.delete(volume_id)
    except exceptions.NotFound:
        return
