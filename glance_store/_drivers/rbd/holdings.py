# SPDX-License-Identifier: Apache-2.0
"""What a pool holds: images, leftovers of uploads, and space."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Iterator

from glance_store import exceptions
from glance_store._drivers.rbd import bindings, errors
from glance_store._drivers.rbd.claim import claimed
from glance_store._drivers.rbd.connection import Lease
from glance_store._drivers.rbd.image import SNAPSHOT, UPLOAD_PREFIX, OpenImage, seconds_of
from glance_store._drivers.rbd.leftovers import remove_leftovers
from glance_store._drivers.rbd.trash import Trashed, forgotten, purge
from glance_store.i18n import _
from glance_store.inventory import (
    COMPLETE,
    FOREIGN,
    INCOMPLETE,
    Capacity,
    Leftover,
    StoredImage,
)

LOG = logging.getLogger(__name__)

_KIB = 1024
# A damaged image, or one whose parent the Ceph user may not read; the others can be listed.
_UNREADABLE = (exceptions.BackendException, exceptions.Forbidden)


def images(lease: Lease, uri_of: Callable[[str], str]) -> Iterator[StoredImage]:
    """Yield all images of a pool with their states; each is opened to find out."""
    for name in _names(lease):
        try:
            yield _image(lease, name, uri_of)
        except exceptions.NotFound:
            # Deleted meanwhile, or still being created.
            continue
        except _UNREADABLE as exc:
            LOG.warning("Pool %s: %s", lease.pool_spec, exc)
            yield StoredImage(name, None, None, FOREIGN)


def _names(lease: Lease) -> list[str]:
    with errors.translated(
        _("Listing pool %s") % lease.pool_spec, lease.connection, lease.pool_spec
    ):
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
    """Return the id of the image that an upload's name belongs to."""
    return upload[len(UPLOAD_PREFIX) :].rpartition(".")[0]


def _created(image: OpenImage) -> float | None:
    """Return when an image was created, in seconds since 1970; old images do not record it."""
    return seconds_of(getattr(image.native, "create_timestamp", lambda: None)())


def leftovers(lease: Lease, older_than: float) -> Iterator[Leftover]:
    """Yield what is older than `older_than` seconds and open in no client.

    That are unfinished uploads, and data in the trash that nobody is removing.
    """
    for name in _names(lease):
        if not name.startswith(UPLOAD_PREFIX):
            continue
        try:
            found = _leftover(lease, name, older_than)
        except exceptions.NotFound:
            continue
        except _UNREADABLE as exc:
            LOG.warning("Pool %s: %s", lease.pool_spec, exc)
            continue
        if found is not None:
            yield found
    for trashed in _forgotten(lease):
        if trashed.since <= time.time() - older_than:
            yield Leftover(
                name=f"RBD image {lease.pool_spec}/{trashed.name} in the trash",
                size=trashed.size,
                modified=trashed.since,
                proof=_("this store moved it there to remove it, and no client has it open"),
                remove=functools.partial(purge, lease, trashed.image_id, trashed.snapshot),
            )


def _forgotten(lease: Lease) -> list[Trashed]:
    with errors.translated(
        _("Listing the trash of pool %s") % lease.pool_spec, lease.connection, lease.pool_spec
    ):
        return list(forgotten(lease))


def _leftover(lease: Lease, name: str, older_than: float) -> Leftover | None:
    action = _("Looking at image %s") % name
    with OpenImage(lease, name) as image, errors.translated(action, lease.connection, name):
        created, size = _created(image), int(image.native.size())
        # Every listed client counts as alive. Clients that the cluster lists forever are told apart
        # when the image is uploaded again.
        alive = bool(image.watchers())
    if alive or created is None or created > time.time() - older_than:
        return None
    return Leftover(
        name=f"RBD image {lease.pool_spec}/{name}",
        size=size,
        modified=created,
        proof=_("it has the name of an unfinished upload, and no client has it open"),
        remove=lambda: _remove(lease, _image_id(name)),
    )


def _remove(lease: Lease, image_id: str) -> None:
    """Remove what dead uploads of an image have left."""
    action = _("Removing leftovers of uploads of image %s") % image_id
    try:
        with errors.translated(action, lease.connection, image_id):
            with claimed(lease, image_id) as claim:
                moved = remove_leftovers(lease, image_id, claim)
            for leftover in moved:
                purge(lease, leftover)
    except exceptions.Duplicate as exc:
        raise exceptions.InUseByStore(str(exc.msg)) from exc


def capacity(lease: Lease) -> Capacity | None:
    """Return the cluster's space, before replication; None without a manager, which counts it."""
    with errors.translated(
        _("Asking for the cluster's free space"), lease.connection, lease.pool_spec
    ):
        stats = lease.connection.native.get_cluster_stats()
    if not stats["kb"]:
        return None
    return Capacity(*(int(stats[key]) * _KIB for key in ("kb", "kb_avail", "kb_used")))
