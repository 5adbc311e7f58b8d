# SPDX-License-Identifier: Apache-2.0
"""Detects and removes what interrupted uploads leave.

Every upload writes under a name of its own. So an upload that was taken for dead and wakes up finds
its image gone, and never another upload's in its place.
"""

from __future__ import annotations

import errno
import logging
import uuid

from glance_store import exceptions
from glance_store._drivers.rbd import bindings, errors, watchers
from glance_store._drivers.rbd.claim import Claim
from glance_store._drivers.rbd.connection import Lease
from glance_store._drivers.rbd.image import UPLOAD_PREFIX, OpenImage, id_of
from glance_store._drivers.rbd.trash import move_to_trash, purge
from glance_store.i18n import _

LOG = logging.getLogger(__name__)

# The object in which RBD lists a pool's images, and the prefix of its keys.
_DIRECTORY, _NAME = "rbd_directory", "name_"
_MAX_KEYS = 100


def new_name(name: str) -> str:
    """Return a name for a new upload of an image."""
    return f"{UPLOAD_PREFIX}{name}.{uuid.uuid4().hex}"


def _uploads(lease: Lease, name: str) -> list[str]:
    """Return the names of an image's unfinished uploads."""
    prefix = f"{_NAME}{UPLOAD_PREFIX}{name}."
    keys: list[str] = []
    # A pool without images has no such object.
    with bindings.rados().ReadOpCtx() as operation, errors.expected(errno.ENOENT):
        found, _code = lease.access.get_omap_vals(operation, "", prefix, _MAX_KEYS)
        lease.access.operate_read_op(operation, _DIRECTORY)
        keys = [key for key, _value in found]
    # Skip uploads of images whose names continue after a full stop.
    return [key[len(_NAME) :] for key in keys if "." not in key[len(prefix) :]]


def is_half_named(lease: Lease, name: str) -> bool:
    """Tell whether the name belongs to an upload that died while renaming its image.

    RBD first records the new name, and only then lists the image under it.
    """
    found = id_of(lease, name)
    return found is not None and any(id_of(lease, left) == found for left in _uploads(lease, name))


def remove_leftovers(lease: Lease, name: str, claim: Claim) -> list[str]:
    """Move what dead uploads of an image have left to the trash; return the image ids.

    The data stays until `purge`, which may take time. Raises Duplicate if an upload is alive.
    """
    moved = []
    for left in _uploads(lease, name):
        try:
            with OpenImage(lease, left) as image:
                # An RBD lock that cannot be broken does no harm here, see below.
                alive, image_id = watchers.living(lease, image, locks=False), image.id
        except exceptions.NotFound:
            # It died while creating its image: only the name exists.
            claim.check()
            with errors.expected(errno.ENOENT):
                bindings.rbd().RBD().remove(lease.access, left)
            continue
        if alive:
            raise exceptions.Duplicate(
                _(
                    "Image %(image)s already exists: it is being uploaded. If the uploading "
                    "client has died, try again in 30 seconds, when the cluster has noticed"
                ),
                image=name,
            )
        claim.check()
        _take_name_back(lease, name, image_id)
        try:
            image_id = move_to_trash(lease, left, image_id)
        except Exception as exc:
            if errors.number_of(exc) != errno.EBUSY:
                raise
            # It does no harm: this upload has another name.
            LOG.warning(
                "Cannot remove RBD image %s/%s, left by a dead upload, because its lock cannot "
                "be broken (%s). If the Ceph user of rbd_store_user may not blocklist dead "
                "clients, give it the monitor capability 'profile rbd'. Otherwise the cluster "
                "still lists the dead client ('rbd status'). Remove the image later: rbd remove "
                "%s/%s",
                lease.pool_spec,
                left,
                exc,
                lease.pool_spec,
                left,
            )
            continue
        if image_id is not None:
            moved.append(image_id)
    return moved


def discard(lease: Lease, image: OpenImage, upload: str, name: str) -> None:
    """Remove the image of a failed upload, and close it."""
    listed = name
    if upload in _uploads(lease, name):
        listed = upload
        _take_name_back(lease, name, image.id)
    # Keep the watcher, which shows that the upload is alive, until the image has lost its name.
    moved = None
    if id_of(lease, listed) == image.id:
        moved = move_to_trash(lease, listed, image.id)
    image.close_quietly()
    if moved is not None:
        purge(lease, moved)


def _take_name_back(lease: Lease, name: str, image_id: str | None) -> None:
    """Undo a half-done rename; nobody was told that the image has this name."""
    if image_id is not None and id_of(lease, name) == image_id:
        lease.access.remove_object(f"rbd_id.{name}")
