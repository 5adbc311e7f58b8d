# SPDX-License-Identifier: Apache-2.0
"""What uploads leave that were broken off, under the names that only uploads have.

Each upload has a name of its own. One that was taken for dead, and wakes up, so finds its image
gone, and never somebody else's in its place.
"""

from __future__ import annotations

import errno
import logging
import uuid

from glance_store import exceptions
from glance_store._drivers.rbd import bindings, errors, watchers
from glance_store._drivers.rbd.claim import Claim
from glance_store._drivers.rbd.connection import Lease
from glance_store._drivers.rbd.image import OpenImage, id_of
from glance_store._drivers.rbd.trash import move_to_trash, purge
from glance_store.i18n import _

LOG = logging.getLogger(__name__)

# What the image of an upload is called until it is complete: with the name of the image and a
# number of its own behind. Nothing else is ever replaced.
UPLOAD_PREFIX = "glance_store.upload."
# The object in which RBD keeps which images there are, by keys that begin so.
_DIRECTORY, _NAME = "rbd_directory", "name_"
_MOST = 100


def new_name(name: str) -> str:
    """Return what a new upload of an image is called.

    :param name: of the image
    """
    return f"{UPLOAD_PREFIX}{name}.{uuid.uuid4().hex}"


def _uploads(lease: Lease, name: str) -> list[str]:
    """Return what the uploads of an image are called that are not complete."""
    prefix = f"{_NAME}{UPLOAD_PREFIX}{name}."
    keys: list[str] = []
    # A pool without any image has none.
    with bindings.rados().ReadOpCtx() as operation, errors.expected(errno.ENOENT):
        found, _code = lease.access.get_omap_vals(operation, "", prefix, _MOST)
        lease.access.operate_read_op(operation, _DIRECTORY)
        keys = [key for key, _value in found]
    # Of an image whose name goes on after a full stop there may be some, too.
    return [key[len(_NAME) :] for key in keys if "." not in key[len(prefix) :]]


def is_half_named(lease: Lease, name: str) -> bool:
    """Tell whether a name leads to the image of an upload that stopped while it gave it this name.

    RBD notes the new name first, then lists the image under it.

    :param lease: the pool
    :param name: of the image
    """
    found = id_of(lease, name)
    return found is not None and any(id_of(lease, left) == found for left in _uploads(lease, name))


def remove_leftovers(lease: Lease, name: str, claim: Claim) -> list[str]:
    """Take away what dead uploads of an image have left.

    Their data goes with `purge`, which may take time.

    :param lease: the pool
    :param name: of the image
    :param claim: the right to do this
    :returns: ids of what was left, which is in the trash now
    :raises Duplicate: one of them is alive
    """
    moved = []
    for left in _uploads(lease, name):
        try:
            with OpenImage(lease, left) as image:
                # A lock that nobody can take is in nobody's way, see below.
                alive, image_id = watchers.living(lease, image, locks=False), image.id
        except exceptions.NotFound:
            # It died while it created its image: there is no more than the name of it.
            claim.check()
            with errors.expected(errno.ENOENT):
                bindings.rbd().RBD().remove(lease.access, left)
            continue
        if alive:
            raise exceptions.Duplicate(
                _(
                    "Image %(image)s already exists: it is being uploaded; should its client have "
                    "died, the cluster takes up to 30 seconds to notice that, and then the image "
                    "can be stored anew"
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
            # It is in nobody's way: this upload has another name.
            LOG.warning(
                "What a dead upload has left, RBD image %s/%s, cannot be removed (%s): its lock "
                "cannot be taken away. Either the Ceph user of rbd_store_user may not do that: "
                "give it the capability 'profile rbd' for the monitors, which lets it blocklist "
                "dead clients. Or the cluster still lists the dead client ('rbd status'). Later: "
                "rbd remove %s/%s",
                lease.place,
                left,
                exc,
                lease.place,
                left,
            )
            continue
        if image_id is not None:
            moved.append(image_id)
    return moved


def discard(lease: Lease, image: OpenImage, upload: str, name: str) -> None:
    """Remove the image of an upload that has failed, and close it.

    :param lease: the pool
    :param image: as it was opened for writing
    :param upload: what it is called until it is complete
    :param name: of the image
    """
    listed = name
    if upload in _uploads(lease, name):
        listed = upload
        _take_name_back(lease, name, image.id)
    # Not before it has lost its name is the watcher taken away that shows the upload to be alive.
    moved = None
    if id_of(lease, listed) == image.id:
        moved = move_to_trash(lease, listed, image.id)
    image.close_quietly()
    if moved is not None:
        purge(lease, moved)


def _take_name_back(lease: Lease, name: str, image_id: str | None) -> None:
    """Undo what RBD has done of giving an image its name; nobody was told that it has it."""
    if image_id is not None and id_of(lease, name) == image_id:
        lease.access.remove_object(f"rbd_id.{name}")
