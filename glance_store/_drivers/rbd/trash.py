# SPDX-License-Identifier: Apache-2.0
"""The pool's trash: moving an image there takes its name away and changes nothing else.

Every image to delete is moved there first and then removed. Whatever fails on the way leaves the
image either unchanged under its name, or nameless in the trash.
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
    """Take an image's name away; return its id, or None if there is no such image."""
    try:
        bindings.rbd().RBD().trash_move(lease.access, name, 0)
    except Exception as exc:
        if errors.number_of(exc) != errno.ENOENT:
            raise
        return None
    return image_id


def purge(lease: Lease, image_id: str, snapshot: str = SNAPSHOT) -> None:
    """Remove the data of an image in the trash, and log errors.

    An image that has other snapshots or clones stays in the trash for them.
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
            "Could not remove the data of a deleted image (%s); to free the space: rbd trash "
            "remove %s/%s",
            exc,
            lease.pool_spec,
            image_id,
        )


def _purge(lease: Lease, image_id: str, snapshot: str) -> None:
    with OpenImage(lease, None, read_only=False, image_id=image_id) as image:
        for step in (image.native.unprotect_snap, image.native.remove_snap):
            if snapshot in image.snapshots():
                with errors.expected(errno.EINVAL, errno.ENOENT):
                    step(snapshot)
        # Includes the one just removed, as long as clones need its data.
        needed = bool(image.snapshots())
    if needed:
        LOG.info(
            "The image with id %s stays in the trash of pool %s: it has other snapshots or clones",
            image_id,
            lease.pool_spec,
        )
        return
    rbd = bindings.rbd().RBD()
    try:
        rbd.trash_remove(lease.access, image_id)
    except Exception as exc:
        if errors.number_of(exc) != errno.EBUSY or not _drop_dead_watchers(lease, image_id):
            raise
        rbd.trash_remove(lease.access, image_id)


def _drop_dead_watchers(lease: Lease, image_id: str) -> bool:
    """Remove the image's data and header, and with it watchers that the cluster never drops.

    Returns False if living clients have the image open, or it has snapshots or a parent.
    """
    with OpenImage(lease, None, read_only=False, image_id=image_id) as image:
        if watchers.living(lease, image) or image.snapshots() or image.has_parent():
            return False
        image.native.resize(0)
    lease.access.remove_object(watchers.HEADER + image_id)
    LOG.info(
        "Removed the RBD image with id %s from the trash of pool %s despite a watcher: its "
        "client has died, which Ceph never noticed (Ceph issue 58120)",
        image_id,
        lease.pool_spec,
    )
    return True
