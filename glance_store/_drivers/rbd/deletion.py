# SPDX-License-Identifier: Apache-2.0
"""Removes an image, or nothing of it when somebody uses it."""

from __future__ import annotations

import contextlib
import errno
import logging
from collections.abc import Iterator

from glance_store import exceptions
from glance_store._drivers.rbd import bindings, errors, watchers
from glance_store._drivers.rbd.connection import Lease
from glance_store._drivers.rbd.image import SNAPSHOT, OpenImage
from glance_store._drivers.rbd.trash import move_to_trash, purge
from glance_store.i18n import _

LOG = logging.getLogger(__name__)


def remove_image(lease: Lease, name: str, snapshot: str | None) -> None:
    """Remove an image with its snapshot.

    :param lease: the pool
    :param name: of the image
    :param snapshot: the one that the location names, None if it names none
    :raises NotFound: there is no such image, or it has another snapshot
    :raises InUseByStore: it has clones, or is open for writing elsewhere; nothing is destroyed
    """
    with errors.translated(_("Deleting image %s") % name, lease.connection, name):
        with OpenImage(lease, name, read_only=False) as image:
            there = image.snapshots()
            if snapshot is not None and snapshot not in there and SNAPSHOT in there:
                raise exceptions.NotFound(
                    _("Image %(image)s not found: it has no snapshot '%(snapshot)s'"),
                    image=name,
                    snapshot=snapshot,
                )
            if watchers.living(lease, image):
                raise _in_use(name, _("another client has it open for writing"))
            # All others are entries of the cluster that stand for nobody.
            stale = len(image.watchers()) > 1
            removed = _remove_snapshot(image, snapshot or SNAPSHOT)
            # Also the one that was removed just now, while it keeps the data of clones.
            needed = bool(image.snapshots())
            image_id = image.id
        try:
            with _unless_in_use(name):
                if needed:
                    _set_aside(lease, name)
                else:
                    _remove(lease, name, image_id if stale else None)
        except exceptions.InUseByStore:
            if removed:
                # Without it the image could not be read any more.
                _restore_snapshot(lease, name, snapshot or SNAPSHOT)
            raise


def _remove_snapshot(image: OpenImage, snapshot: str) -> bool:
    """Remove a snapshot.

    :returns: False when there was none
    """
    unprotected = removed = False
    try:
        # Already unprotected, or not there.
        with errors.expected(errno.EINVAL, errno.ENOENT):
            image.native.unprotect_snap(snapshot)
            unprotected = True
        with errors.expected(errno.ENOENT):
            image.native.remove_snap(snapshot)
            removed = True
    except Exception as exc:
        if errors.number_of(exc) != errno.EBUSY:
            raise
        if unprotected:
            image.native.protect_snap(snapshot)
        raise _in_use(image.name, _("its snapshot has clones")) from exc
    return removed


def _remove(lease: Lease, name: str, stale_id: str | None) -> None:
    """Remove an image.

    :param stale_id: id of the image when it has watchers that stand for nobody
    """
    try:
        bindings.rbd().RBD().remove(lease.access, name)
    except Exception as exc:
        number = errors.number_of(exc)
        if number == errno.ENOTEMPTY:
            # There was no snapshot a moment ago.
            _set_aside(lease, name)
        elif number == errno.EBUSY and stale_id is not None:
            if move_to_trash(lease, name, stale_id) is not None:
                purge(lease, stale_id)
        else:
            raise


def _set_aside(lease: Lease, name: str) -> None:
    LOG.info(
        "RBD image %s/%s has further snapshots or clones: it goes to the trash of the pool",
        lease.pool,
        name,
    )
    bindings.rbd().RBD().trash_move(lease.access, name, 0)


@contextlib.contextmanager
def _unless_in_use(name: str) -> Iterator[None]:
    try:
        yield
    except Exception as exc:
        if errors.number_of(exc) != errno.EBUSY:
            raise
        raise _in_use(name, _("another client has it open")) from exc


def _restore_snapshot(lease: Lease, name: str, snapshot: str) -> None:
    try:
        with OpenImage(lease, name, read_only=False) as image:
            image.native.create_snap(snapshot)
            image.native.protect_snap(snapshot)
    except Exception as exc:
        if not errors.is_native(exc) and not isinstance(exc, exceptions.GlanceStoreException):
            raise
        LOG.error(
            "RBD image %s/%s could not be deleted, and has lost its snapshot, without which it "
            "cannot be read (%s); to make it readable: rbd snap create %s/%s@%s, then rbd snap "
            "protect",
            lease.pool,
            name,
            exc,
            lease.pool,
            name,
            snapshot,
        )


def _in_use(name: str, reason: object) -> exceptions.InUseByStore:
    LOG.warning("RBD image %s cannot be deleted: %s", name, reason)
    return exceptions.InUseByStore(
        _("Image %(image)s cannot be deleted: %(reason)s"), image=name, reason=reason
    )
