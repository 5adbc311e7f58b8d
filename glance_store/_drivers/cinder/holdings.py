# SPDX-License-Identifier: Apache-2.0
"""What volumes a store has: those of images, and those that uploads have left."""

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
# While one of these lasts somebody works at a volume.
_IDLE = ("available", "error")


def images(api: Api, store: str, uri_of: Callable[[str], str]) -> Iterator[StoredImage]:
    """Yield the volumes of images of a store.

    :param api: sends the requests
    :param store: identifier of the store, empty in single-store mode
    :param uri_of: returns the location of an image by the id of its volume
    """
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
    """Yield the volumes that are images of a store; older releases did not note whose they are."""
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
    """Return when Cinder has changed its record of a volume, in seconds since 1970."""
    text = getattr(volume, "updated_at", None) or getattr(volume, "created_at", None)
    try:
        return float(calendar.timegm(time.strptime(str(text)[:19], "%Y-%m-%dT%H:%M:%S")))
    except ValueError:
        return None


def leftovers(api: Api, store: str, older_than: float) -> Iterator[Leftover]:
    """Yield volumes of uploads that were broken off, and that nobody has attached.

    :param api: sends the requests
    :param store: identifier of the store
    :param older_than: seconds since Cinder has changed its record of the volume
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
            proof=_("its upload is not complete by its metadata, and nobody has it attached"),
            remove=remove,
        )


def _is_left(volume: Any) -> bool:
    # An upload has its volume attached as long as it lasts, but for moments.
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
