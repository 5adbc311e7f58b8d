# SPDX-License-Identifier: Apache-2.0
"""Removes an image entirely, or not at all when somebody uses it."""

from __future__ import annotations

import errno
import logging

from glance_store import exceptions
from glance_store._drivers.rbd import bindings, errors, watchers
from glance_store._drivers.rbd.connection import Lease
from glance_store._drivers.rbd.image import SNAPSHOT, OpenImage
from glance_store._drivers.rbd.trash import forgotten, mark, move_to_trash, purge, unmark
from glance_store.i18n import _

LOG = logging.getLogger(__name__)

# The cluster's answers for an image that cannot be removed now.
_REFUSALS = (errno.EBUSY, errno.EMLINK, errno.EROFS, errno.ENOTEMPTY)


def remove_image(lease: Lease, name: str, snapshot: str | None) -> None:
    """Remove an image with its snapshot.

    `snapshot` is the one the location names, if any. Raises NotFound if there is no such image or
    it has another snapshot, and InUseByStore if somebody uses it; the image then stays readable.
    """
    which = snapshot or SNAPSHOT
    with errors.translated(_("Deleting image %s") % name, lease.connection, name):
        with _opened(lease, name) as image:
            _check_removable(lease, image, snapshot)
            unprotected = _unprotect(image, which)
            image_id = image.id
            if image_id is None:
                with errors.expected(errno.ENOENT):
                    image.native.remove_snap(which)
            else:
                mark(image, which)
        try:
            if image_id is None:
                # Format 1 images cannot be moved to the trash.
                bindings.rbd().RBD().remove(lease.access, name)
            else:
                image_id = move_to_trash(lease, name, image_id)
        except BaseException as exc:
            _restore(lease, name, which if unprotected else None)
            if errors.number_of(exc) in _REFUSALS:
                raise _in_use(name, _("the cluster refuses it (%s)") % exc) from exc
            raise
        if image_id is not None:
            purge(lease, image_id, which)


def _opened(lease: Lease, name: str) -> OpenImage:
    """Open an image; if there is none, remove what a deletion that was interrupted has left."""
    try:
        return OpenImage(lease, name, read_only=False)
    except exceptions.NotFound:
        for left in list(forgotten(lease, name)):
            purge(lease, left.image_id, left.snapshot)
        raise


def _check_removable(lease: Lease, image: OpenImage, snapshot: str | None) -> None:
    there = image.snapshots()
    if snapshot is not None and snapshot not in there and SNAPSHOT in there:
        raise exceptions.NotFound(
            _("Image %(image)s not found: it has no snapshot '%(snapshot)s'"),
            image=image.name,
            snapshot=snapshot,
        )
    if image.native.features() & bindings.FEATURE_MIGRATING:
        raise _in_use(image.name, _("it is being migrated (see 'rbd migration' and 'rbd status')"))
    if image.is_locked():
        # RBD would wait for the lock to be released.
        raise _in_use(image.name, _("it is locked (see 'rbd lock list')"))
    if group := image.group():
        raise _in_use(image.name, _("it belongs to the RBD group %s") % group)
    if watchers.living(lease, image):
        raise _in_use(
            image.name,
            _(
                "another client has it open for writing, or has died and is still listed by the "
                "cluster (see 'rbd status')"
            ),
        )


def _unprotect(image: OpenImage, snapshot: str) -> bool:
    """Unprotect the snapshot, so that nobody clones it; return whether it was protected."""
    try:
        image.native.unprotect_snap(snapshot)
    except Exception as exc:
        number = errors.number_of(exc)
        if number == errno.EBUSY:
            raise _in_use(image.name, _("its snapshot has clones")) from exc
        if number == errno.EROFS:
            reason = _(
                "it is read-only: either a mirrored copy, or locked by a dead client that the "
                "Ceph user may not blocklist (it needs the monitor capability 'profile rbd')"
            )
            raise _in_use(image.name, reason) from exc
        # Already unprotected, or no such snapshot.
        if number not in (errno.EINVAL, errno.ENOENT):
            raise
        return False
    return True


def _restore(lease: Lease, name: str, snapshot: str | None) -> None:
    """Remove the mark and protect the snapshot again, as the image stays."""
    try:
        with OpenImage(lease, name, read_only=False) as image:
            unmark(image)
            if snapshot is not None:
                image.native.protect_snap(snapshot)
    except Exception as exc:
        if not errors.is_native(exc) and not isinstance(exc, exceptions.GlanceStoreException):
            raise
        is_gone = errors.number_of(exc) == errno.ENOENT or isinstance(exc, exceptions.NotFound)
        if is_gone or snapshot is None:
            return
        LOG.warning(
            "Could not delete RBD image %s/%s, and could not protect its snapshot again (%s). "
            "It can be read but not cloned; to protect it: rbd snap protect %s/%s@%s",
            lease.pool_spec,
            name,
            exc,
            lease.pool_spec,
            name,
            snapshot,
        )


def _in_use(name: str, reason: object) -> exceptions.InUseByStore:
    LOG.warning("RBD image %s cannot be deleted: %s", name, reason)
    return exceptions.InUseByStore(
        _("Image %(image)s cannot be deleted: %(reason)s"), image=name, reason=reason
    )
