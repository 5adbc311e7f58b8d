# SPDX-License-Identifier: Apache-2.0
"""What a pool holds: images, what uploads have left, and room."""

from __future__ import annotations

import calendar
import time
from collections.abc import Callable, Iterator
from typing import Any

from glance_store import exceptions
from glance_store._drivers.rbd import bindings, errors
from glance_store._drivers.rbd.claim import claimed
from glance_store._drivers.rbd.connection import Lease
from glance_store._drivers.rbd.image import SNAPSHOT, OpenImage
from glance_store._drivers.rbd.leftovers import UPLOAD_PREFIX, remove_leftovers
from glance_store._drivers.rbd.trash import purge
from glance_store.i18n import _
from glance_store.inventory import (
    COMPLETE,
    FOREIGN,
    INCOMPLETE,
    Capacity,
    Leftover,
    StoredImage,
)

_KIB = 1024


def images(lease: Lease, uri_of: Callable[[str], str]) -> Iterator[StoredImage]:
    """Yield all images of a pool, with their states; each is opened for that.

    :param lease: the pool
    :param uri_of: returns the location of a complete image by its name
    """
    for name in _names(lease):
        try:
            yield _image(lease, name, uri_of)
        except exceptions.NotFound:
            # It has gone meanwhile, or is just beginning to be there.
            continue


def _names(lease: Lease) -> list[str]:
    with errors.translated(_("Listing pool %s") % lease.place, lease.connection, lease.place):
        return list(bindings.rbd().RBD().list(lease.access))


def _image(lease: Lease, name: str, uri_of: Callable[[str], str]) -> StoredImage:
    with (
        OpenImage(lease, name) as image,
        errors.translated(_("Looking at image %s") % name, lease.connection, name),
    ):
        complete = SNAPSHOT in image.snapshots()
        size, created = int(image.native.size()), _created(image)
    state = COMPLETE if complete else FOREIGN
    image_id = name
    if name.startswith(UPLOAD_PREFIX):
        state, image_id = INCOMPLETE, _image_id(name)
    uri = uri_of(name) if state == COMPLETE else None
    return StoredImage(image_id, uri, size, state, created)


def _image_id(upload: str) -> str:
    """Return the id of the image that an upload, known by its name, was of."""
    return upload[len(UPLOAD_PREFIX) :].rpartition(".")[0]


def _created(image: OpenImage) -> float | None:
    """Return when an image was created, seconds since 1970; older images do not say."""
    stamp: Any = getattr(image.native, "create_timestamp", lambda: None)()
    return None if stamp is None else float(calendar.timegm(stamp.timetuple()))


def leftovers(lease: Lease, older_than: float) -> Iterator[Leftover]:
    """Yield what uploads have not completed, and no client has open.

    :param lease: the pool
    :param older_than: seconds since it was created
    """
    for name in _names(lease):
        if not name.startswith(UPLOAD_PREFIX):
            continue
        try:
            found = _leftover(lease, name, older_than)
        except exceptions.NotFound:
            continue
        if found is not None:
            yield found


def _leftover(lease: Lease, name: str, older_than: float) -> Leftover | None:
    action = _("Looking at image %s") % name
    with OpenImage(lease, name) as image, errors.translated(action, lease.connection, name):
        created, size = _created(image), int(image.native.size())
        # Any client that is listed counts as alive. Those that the cluster takes for alive for ever
        # are told from the others when the image is uploaded again.
        alive = bool(image.watchers())
    if alive or created is None or created > time.time() - older_than:
        return None
    return Leftover(
        name=f"RBD image {lease.place}/{name}",
        size=size,
        modified=created,
        proof=_("the name is one of uploads, and no client has the image open"),
        remove=lambda: _remove(lease, _image_id(name)),
    )


def _remove(lease: Lease, image_id: str) -> None:
    """Remove what dead uploads of an image have left."""
    action = _("Removing what uploads of image %s have left") % image_id
    try:
        with errors.translated(action, lease.connection, image_id):
            with claimed(lease, image_id) as claim:
                moved = remove_leftovers(lease, image_id, claim)
            for leftover in moved:
                purge(lease, leftover)
    except exceptions.Duplicate as exc:
        raise exceptions.InUseByStore(str(exc.msg)) from exc


def capacity(lease: Lease) -> Capacity:
    """Return the room of the cluster, before replication.

    :param lease: a pool of it
    """
    with errors.translated(_("Asking for the room"), lease.connection, lease.place):
        stats = lease.connection.native.get_cluster_stats()
    return Capacity(*(int(stats[key]) * _KIB for key in ("kb", "kb_avail", "kb_used")))
