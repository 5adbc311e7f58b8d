# SPDX-License-Identifier: Apache-2.0
"""Who else has an image open.

An OSD may keep the watcher of a client for ever that died in the moment in which it was taken in
(https://tracker.ceph.com/issues/58120). The image then looks open to all, and neither RBD nor time
helps, only a new start of the OSD. But such a watcher is no more than an entry: a notification
passes it over, while it waits for all others, dead or alive.
"""

from __future__ import annotations

import threading
from typing import Any

from glance_store._drivers.rbd.connection import Lease
from glance_store._drivers.rbd.image import OpenImage

# What the object that is watched is called, with the id of the image behind.
HEADER = "rbd_header."
# Cookie of a lock that RBD takes by itself, with that of the watcher behind.
_LOCK = "auto "
# Milliseconds that a client has to answer a notification. One that is late counts as alive.
_PATIENCE = 1000
# Seconds by which Ceph's own time-out comes first.
_GRACE = 10.0


def living(lease: Lease, image: OpenImage, locks: bool = True) -> int:
    """Return how many clients have an image open for writing, besides `image` itself.

    One that has died counts until the cluster has noticed it, which takes up to 30 seconds, but not
    one that the cluster will never notice.

    :param lease: the pool of the image
    :param image: the image
    :param locks: count one that is dead for sure, but whose lock of RBD nobody can take: who wants
        to change the image would wait for it
    """
    own = 0 if image.read_only else 1
    before = image.watchers()
    if len(before) <= own or image.id is None:
        return max(len(before) - own, 0)
    answered = _answered(lease, HEADER + image.id)
    if answered is None:
        return len(before) - own
    # Who has come meanwhile has not been asked, who has gone need not answer.
    now = image.watchers()
    stale = (before & now) - answered
    if locks:
        stale = {key for key in stale if not _has_lock(image, *key)}
    return max(len(now) - len(stale) - own, 0)


def _answered(lease: Lease, header: str) -> set[tuple[int, int]] | None:
    """Return the watchers that answer, None when there are others that should but do not."""
    notify = getattr(lease.access, "aio_notify", None)
    if notify is None:
        # The bindings are too old for it.
        return None
    done = threading.Event()
    results: list[tuple[int, list[Any] | None, list[Any] | None]] = []

    def finish(
        _completion: object, code: int, answers: list[Any] | None, late: list[Any] | None
    ) -> None:
        results.append((code, answers, late))
        done.set()

    # To clients of RBD an empty message means to look at the header again, which does no harm.
    # The library may write to what it returns after the answer has come.
    lease.connection.keep(notify(header, finish, "", _PATIENCE))
    if not done.wait(_PATIENCE / 1000 + _GRACE):
        return None
    code, answers, late = results[0]
    if code or answers is None or late:
        return None
    return {(client, cookie) for client, cookie, _message in answers}


def _has_lock(image: OpenImage, client: int, cookie: int) -> bool:
    """Tell whether a watcher holds RBD's lock: nobody gets it as long as its entry is there.

    A client may have several entries, as while it gives an image its name. Its lock belongs to one.
    """
    lockers = image.native.list_lockers()
    owner = (f"client.{client}", f"{_LOCK}{cookie}")
    return bool(lockers) and owner in {entry[:2] for entry in lockers["lockers"]}
