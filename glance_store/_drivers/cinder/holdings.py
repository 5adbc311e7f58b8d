# SPDX-License-Identifier: Apache-2.0
"""What volumes a store has: images, and leftovers of uploads."""

from __future__ import annotations

import calendar
import time
from collections.abc import Callable, Iterator
from typing import Any

from glance_store import exceptions
from glance_store._drivers.cinder import volumes
from glance_store._drivers.cinder.client import Api
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
    marker = None
    while True:
        page = api.call(
            _("Listing volumes"),
            lambda client: client.volumes.list(detailed=True, limit=_PAGE, marker=marker),  # noqa: B023
        )
        for volume in page:
            if _is_image(volume) and volume.metadata.get(volumes.STORE, store) == store:
                yield volume
        if len(page) < _PAGE:
            return
        marker = page[-1].id


def _is_image(volume: Any) -> bool:
    return str(volume.name or "").startswith(_PREFIX) and volume.status != "deleting"


def _changed(volume: Any) -> float | None:
    """Return when Cinder last changed a volume's record, in seconds since 1970."""
    text = getattr(volume, "updated_at", None) or getattr(volume, "created_at", None)
    try:
        return float(calendar.timegm(time.strptime(str(text)[:19], "%Y-%m-%dT%H:%M:%S")))
    except ValueError:
        return None


def leftovers(api: Api, store: str, older_than: float) -> Iterator[Leftover]:
    """Yield volumes of interrupted uploads that are not attached.

    `older_than` is in seconds since Cinder last changed the volume's record.
    """
    for volume in _of_store(api, store):
        changed = _changed(volume)
        if not _is_left(volume) or changed is None or changed > time.time() - older_than:
            continue

        def remove(volume_id: str = volume.id) -> None:
            _remove(api, volume_id)

        yield Leftover(
            name=f"volume {volume.id} ({volume.name})",
            size=int(volume.size) * volumes.GiB,
            modified=changed,
            proof=_("its metadata says that the upload is incomplete, and it is not attached"),
            remove=remove,
        )


def _is_left(volume: Any) -> bool:
    # A running upload keeps its volume attached, but for moments.
    unfinished = volume.metadata.get(volumes.STATE) in _UNFINISHED
    return bool(unfinished and volume.status in _IDLE and not volume.attachments)


def _remove(api: Api, volume_id: str) -> None:
    own = Volumes(api)
    try:
        volume = own.get(volume_id)
        if volume.status == "deleting":
            return
        if not _is_left(volume):
            raise exceptions.InUseByStore(
                _("Volume %(volume)s is in use, or complete"), volume=volume_id
            )
        own.delete(volume_id)
    except exceptions.NotFound:
        return
