# SPDX-License-Identifier: Apache-2.0
"""A short lock on an image's name while an upload begins.

Between creating and opening an upload's image, nothing distinguishes it from one that a dead upload
left. So every upload holds a RADOS lock, on an object of its own, until its image is open. The lock
of a client that dies expires.
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
# Seconds until the lock expires, and how many of them to rely on: clocks and threads may be slow.
_DURATION = 30
_RELIABLE = 20.0


class Claim:
    """The right to create the image of a name."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._began = time.monotonic()

    @property
    def is_held(self) -> bool:
        """Whether the lock certainly still holds."""
        return time.monotonic() - self._began < _RELIABLE

    def check(self) -> None:
        """Raise TimeoutError if the lock may have expired: somebody else may hold it now."""
        if not self.is_held:
            raise exceptions.TimeoutError(
                _("Image %(image)s could not be created in %(timeout)d seconds; try again"),
                image=self._name,
                timeout=_RELIABLE,
            )


@contextlib.contextmanager
def claimed(lease: Lease, name: str) -> Iterator[Claim]:
    """Hold the claim to a name during a block; raise Duplicate if somebody else holds it."""
    claim = Claim(name)
    key = OBJECT_PREFIX + name
    with errors.expected(errno.ENOENT):
        # A lock takes only the right to call a class: who may not write could not remove it again.
        lease.access.remove_object(f"{key}.{uuid.uuid4()}")
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
        # Removing the object removes the lock. An expired lock may already be somebody else's.
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
            "Could not remove object %s from pool %s: %s. It does no harm; the next upload of "
            "the image removes it",
            key,
            lease.pool,
            exc,
        )
