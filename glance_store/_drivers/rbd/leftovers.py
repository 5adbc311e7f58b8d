# SPDX-License-Identifier: Apache-2.0
"""What uploads leave that were broken off: how it is told from images, and how it is removed."""

from __future__ import annotations

import errno
import logging
import os
import threading
import time

from glance_store import exceptions
from glance_store._drivers.rbd import bindings, errors, watchers
from glance_store._drivers.rbd.claim import Claim, claimed
from glance_store._drivers.rbd.connection import Cluster, Lease
from glance_store._drivers.rbd.image import SNAPSHOT, OpenImage
from glance_store._drivers.rbd.trash import move_to_trash, purge
from glance_store.i18n import _

LOG = logging.getLogger(__name__)

# Seconds between the tries to remove what a lost cluster still holds: first, longest, all in all.
_FIRST_PAUSE = 2.0
_LONGEST_PAUSE = 20.0
_PATIENCE = 6 * 3600.0


def remove_leftover(lease: Lease, name: str, claim: Claim) -> str | None:
    """Take away what a dead upload has left under a name.

    Its name is free at once; its data goes with `purge`, which may take time.

    :param lease: the pool
    :param name: of the image
    :param claim: the right to do this
    :returns: id of the image, which is in the trash now; None when there is no image any more
    :raises Duplicate: it is an image, or an upload that is alive
    """
    try:
        with OpenImage(lease, name) as image:
            _check_dead(lease, image)
            image_id, snapshots = image.id, image.snapshots()
    except exceptions.NotFound:
        # An upload that died while it created its image: there is no more than the name of it.
        claim.check()
        with errors.expected(errno.ENOENT):
            bindings.rbd().RBD().remove(lease.access, name)
        return None
    if snapshots:
        _drop_snapshot(lease, name)
    claim.check()
    return move_to_trash(lease, name, image_id)


def _check_dead(lease: Lease, image: OpenImage) -> None:
    if image.is_old or image.is_complete():
        raise exceptions.Duplicate(image=image.name)
    reason = None
    if image.snapshots() - {SNAPSHOT} or image.has_parent():
        reason = _("it has snapshots or a parent that no upload makes")
    elif watchers.living(lease, image):
        reason = _(
            "it is being uploaded; should its client have died, the cluster takes up to 30 seconds "
            "to notice that, and then the image can be stored anew"
        )
    elif image.is_locked():
        reason = _("it is incomplete, but locked: see 'rbd lock list'")
    if reason is not None:
        raise exceptions.Duplicate(
            _("Image %(image)s already exists: %(reason)s"), image=image.name, reason=reason
        )


def _drop_snapshot(lease: Lease, name: str) -> None:
    """Remove the snapshot of an upload that died before it protected it."""
    with OpenImage(lease, name, read_only=False) as image:
        try:
            image.native.remove_snap(SNAPSHOT)
        except Exception as exc:
            if errors.number_of(exc) != errno.EBUSY:
                raise
            raise exceptions.Duplicate(
                _("Image %(image)s already exists: its snapshot is not protected, but has clones"),
                image=name,
            ) from exc


def discard(lease: Lease, image: OpenImage) -> None:
    """Remove the image of an upload that has failed, and close it.

    :param lease: the pool
    :param image: as it was opened for writing
    """
    for step in (image.native.unprotect_snap, image.native.remove_snap):
        # Most uploads fail before there is a snapshot.
        if SNAPSHOT in image.snapshots():
            with errors.expected(errno.ENOENT, errno.EINVAL):
                step(SNAPSHOT)
    # Not before it has lost its name is the watcher taken away that shows the upload to be alive.
    moved = None
    if _id_of(lease, image.name) == image.id:
        moved = move_to_trash(lease, image.name, image.id)
    image.close_quietly()
    if moved is not None:
        purge(lease, moved)


def _id_of(lease: Lease, name: str) -> str | None:
    try:
        with OpenImage(lease, name) as image:
            return image.id
    except exceptions.NotFound:
        return None


class LateRemoval:
    """Removes what a failed upload has left in a cluster that is out of reach, once it is back.

    :param cluster: the cluster
    :param lease: the one of the upload, which is given back
    :param image: of the upload, which is closed
    """

    def __init__(self, cluster: Cluster, lease: Lease, image: OpenImage) -> None:
        self._cluster = cluster
        self._lease: Lease | None = lease
        self._image: OpenImage | None = image
        self._pool, self._name, self._id = lease.pool, image.name, image.id

    def start(self) -> None:
        """Begin; this returns at once."""
        threading.Thread(target=self._run, name="glance_store-rbd-late", daemon=True).start()

    def _run(self) -> None:
        process = os.getpid()
        self._let_go()
        pause, deadline = _FIRST_PAUSE, time.monotonic() + _PATIENCE
        while time.monotonic() < deadline and process == os.getpid():
            time.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)
            try:
                if self._removed():
                    return
            except (exceptions.GlanceStoreException, exceptions.BackendException) as exc:
                LOG.debug("RBD image %s/%s is still left: %s", self._pool, self._name, exc)
        LOG.warning(
            "The leftover of a failed upload could not be removed; a new upload of image %s "
            "replaces it, or: rbd remove %s/%s",
            self._name,
            self._pool,
            self._name,
        )

    def _let_go(self) -> None:
        """Close what the upload had opened; its connection ends with that."""
        image, lease, self._image, self._lease = self._image, self._lease, None, None
        if image is not None:
            image.close_quietly()
        if lease is not None:
            lease.close()

    def _removed(self) -> bool:
        """Remove the image.

        :returns: False when it is too early for that
        """
        action = _("Removing the leftover of image %s") % self._name
        with (
            self._cluster.lease(self._pool) as lease,
            errors.translated(action, lease.connection, self._name),
            claimed(lease, self._name),
        ):
            try:
                image = OpenImage(lease, self._name, read_only=False)
            except exceptions.NotFound:
                return True
            if image.id != self._id or watchers.living(lease, image):
                image.close_quietly()
                # It is another image of the same name, or the cluster has not noticed yet that this
                # upload is over.
                return image.id != self._id
            discard(lease, image)
        LOG.info("Removed what a failed upload had left: RBD image %s/%s", self._pool, self._name)
        return True
