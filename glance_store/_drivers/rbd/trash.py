# SPDX-License-Identifier: Apache-2.0
"""The trash of a pool: what goes there loses its name at once, and nothing else.

An image that is not wanted is moved there whole, and removed there. So whatever fails meanwhile
leaves it as it was under its name, or without a name.
"""

from __future__ import annotations

import errno
import logging

from glance_store import exceptions
from glance_store._drivers.rbd import bindings, errors, watchers
from glance_store._drivers.rbd.connection import Lease
from glance_store._drivers.rbd.image import SNAPSHOT, OpenImage

LOG = logging.getLogger(__name__)

_TRANSLATED = (exceptions.GlanceStoreException, exceptions.BackendException)


def move_to_trash(lease: Lease, name: str, image_id: str | None) -> str | None:
    """Take the name from an image.

    :param lease: the pool
    :param name: of the image
    :param image_id: its id
    :returns: the id; None when there is no image any more
    """
    try:
        bindings.rbd().RBD().trash_move(lease.access, name, 0)
    except Exception as exc:
        if errors.number_of(exc) != errno.ENOENT:
            raise
        return None
    return image_id


def purge(lease: Lease, image_id: str, snapshot: str = SNAPSHOT) -> None:
    """Remove the data of an image that is in the trash; an error is logged.

    What is needed by snapshots of others, or by clones, stays there for them.

    :param lease: the pool
    :param image_id: id of the image
    :param snapshot: the one that goes with the image
    """
    try:
        with errors.expected(errno.ENOENT):
            _purge(lease, image_id, snapshot)
    except Exception as exc:
        if not errors.is_native(exc) and not isinstance(exc, _TRANSLATED):
            raise
        if errors.is_lost(exc):
            lease.connection.lose()
        LOG.warning(
            "The data of an image that is gone could not be removed (%s); to free the space: "
            "rbd trash remove %s/%s",
            exc,
            lease.place,
            image_id,
        )


def _purge(lease: Lease, image_id: str, snapshot: str) -> None:
    with OpenImage(lease, None, read_only=False, image_id=image_id) as image:
        for step in (image.native.unprotect_snap, image.native.remove_snap):
            if snapshot in image.snapshots():
                with errors.expected(errno.EINVAL, errno.ENOENT):
                    step(snapshot)
        # Also the one that was removed just now, while it keeps the data of clones.
        needed = bool(image.snapshots())
    if needed:
        LOG.info(
            "The image with id %s has further snapshots or clones: it stays in the trash of pool "
            "%s for them",
            image_id,
            lease.place,
        )
        return
    rbd = bindings.rbd().RBD()
    try:
        rbd.trash_remove(lease.access, image_id)
    except Exception as exc:
        if errors.number_of(exc) != errno.EBUSY or not _rid_of_watchers(lease, image_id):
            raise
        rbd.trash_remove(lease.access, image_id)


def _rid_of_watchers(lease: Lease, image_id: str) -> bool:
    """Rid an image of watchers that the cluster will never notice to be dead.

    They go with its header, and the data have to go before that.

    :returns: False when it has others, or more than data
    """
    with OpenImage(lease, None, read_only=False, image_id=image_id) as image:
        if watchers.living(lease, image) or image.snapshots() or image.has_parent():
            return False
        image.native.resize(0)
    lease.access.remove_object(watchers.HEADER + image_id)
    LOG.info(
        "RBD image with id %s in the trash of pool %s is removed in spite of a watcher: its client "
        "has died, which Ceph never noticed (Ceph issue 58120)",
        image_id,
        lease.place,
    )
    return True
