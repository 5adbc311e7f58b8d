# SPDX-License-Identifier: Apache-2.0
"""The pool's trash: moving an image there takes its name away and changes nothing else.

Every image to delete is moved there first and then removed. Whatever fails on the way leaves the
image either unchanged under its name, or nameless in the trash.
"""

from __future__ import annotations

import contextlib
import errno
import logging
from collections.abc import Iterator
from typing import Any, NamedTuple

from glance_store import exceptions
from glance_store._drivers.rbd import bindings, errors, watchers
from glance_store._drivers.rbd.connection import Lease
from glance_store._drivers.rbd.image import SNAPSHOT, UPLOAD_PREFIX, OpenImage, seconds_of

LOG = logging.getLogger(__name__)

# Key in the metadata of an image that is being deleted; its value is the snapshot to remove. Others
# use the trash too, also to keep images.
_MARK = "glance_store.deletion"

_TRANSLATED = (exceptions.GlanceStoreException, exceptions.BackendException)


class Trashed(NamedTuple):
    """An image in the trash that this store put there to remove it."""

    image_id: str
    name: str
    snapshot: str
    size: int
    since: float  # seconds since 1970


def mark(image: OpenImage, snapshot: str) -> None:
    """Mark an image as being deleted. Without the mark, only its owner can tell why it stays."""
    with contextlib.suppress(*errors.native_errors()):
        image.native.metadata_set(_MARK, snapshot)


def unmark(image: OpenImage) -> None:
    """Remove the mark, as the image stays."""
    # The bindings raise KeyError if there is none.
    with contextlib.suppress(KeyError, *errors.native_errors()):
        image.native.metadata_remove(_MARK)


def forgotten(lease: Lease, name: str | None = None) -> Iterator[Trashed]:
    """Yield what interrupted deletions have left in the trash, all or those of an image's name.

    Skips images that a client has open, or that snapshots or clones need.
    """
    entries = []
    with errors.expected(errno.ENOENT):
        entries = list(bindings.rbd().RBD().trash_list(lease.access))
    for entry in entries:
        if name in (None, entry["name"]) and (found := _trashed(lease, entry)) is not None:
            yield found


def _trashed(lease: Lease, entry: dict[str, Any]) -> Trashed | None:
    snapshot = SNAPSHOT
    # KeyError: there is no mark. NotFound: only the entry is left, or somebody was faster.
    with contextlib.suppress(KeyError, exceptions.NotFound):
        with OpenImage(lease, None, image_id=entry["id"]) as image:
            if not entry["name"].startswith(UPLOAD_PREFIX):
                snapshot = image.native.metadata_get(_MARK)
            if image.watchers() or image.snapshots() - {snapshot}:
                return None
            size, since = int(image.native.size()), seconds_of(entry["deletion_time"])
        return Trashed(entry["id"], entry["name"], snapshot, size, since or 0.0)
    return None


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
