# SPDX-License-Identifier: Apache-2.0
"""The right to begin an upload of an image, for the moment that this takes.

Between the creation of an upload's image and its opening nothing tells it from what a dead upload
has left. So all who begin an upload of an image hold a lock of RADOS meanwhile, on an object of its
own; the lock of one that died ends by itself.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import time
import uuid
from collections.abc import Iterator

from glance_store import exceptions
from glance_store._drivers.rbd import errors
from glance_store._drivers.rbd.connection import Lease
from glance_store.i18n import _

LOG = logging.getLogger(__name__)

OBJECT_PREFIX = "glance_store.claim."
_LOCK = "claim"
# Seconds until the lock ends by itself, and the part of them in which it is relied on: clocks and
# threads may be slow.
_DURATION = 30
_RELIABLE = 20.0


class Claim:
    """The right to create the image of a name."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._began = time.monotonic()

    @property
    def is_held(self) -> bool:
        """Whether the right still exists for sure."""
        return time.monotonic() - self._began < _RELIABLE

    def check(self) -> None:
        """Make sure of the right.

        :raises TimeoutError: too much time has passed, somebody else may have the right
        """
        if not self.is_held:
            raise exceptions.TimeoutError(
                _("Image %(image)s could not be created in %(timeout)d seconds; try again"),
                image=self._name,
                timeout=_RELIABLE,
            )


@contextlib.contextmanager
def claimed(lease: Lease, name: str) -> Iterator[Claim]:
    """Hold the right to create the image of a name in the block.

    :param lease: the pool
    :param name: of the image
    :raises Duplicate: somebody else has the right at this moment
    """
    claim = Claim(name)
    key = OBJECT_PREFIX + name
    try:
        lease.access.lock_exclusive(
            key, _LOCK, str(uuid.uuid4()), desc="creating an image", duration=_DURATION
        )
    except Exception as exc:
        if errors.number_of(exc) not in (errno.EBUSY, errno.EEXIST):
            raise
        raise exceptions.Duplicate(
            _("Image %(image)s already exists: another upload of it is just beginning"),
            image=name,
        ) from exc
    try:
        yield claim
    finally:
        # The lock goes with its object. A lock that may have ended may be somebody else's by now.
        if claim.is_held and not lease.connection.lost:
            _remove(lease, key)


def _remove(lease: Lease, key: str) -> None:
    try:
        lease.access.remove_object(key)
    except Exception as exc:
        if not errors.is_native(exc):
            raise
        if errors.is_lost(exc):
            lease.connection.lose()
        LOG.warning(
            "Object %s in pool %s could not be removed (%s); it does no harm, and goes with the "
            "next upload of this image",
            key,
            lease.pool,
            exc,
        )
