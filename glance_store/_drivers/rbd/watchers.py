# SPDX-License-Identifier: Apache-2.0
"""Who else has an image open.

If a client dies just as an OSD registers its watcher, the OSD may list the watcher forever
(https://tracker.ceph.com/issues/58120). The image then looks open to everybody, and only restarting
the OSD helps. But such a watcher is only an entry: a notification skips it, while it waits for all
others, dead or alive.
"""

from __future__ import annotations

import threading
from typing import Any

from glance_store._drivers.rbd.connection import Lease
from glance_store._drivers.rbd.image import OpenImage

# Prefix of the watched object; the image id follows.
HEADER = "rbd_header."
# Prefix of the cookie of a lock that RBD takes itself; the watcher's cookie follows.
_LOCK = "auto "
# Milliseconds a client has to answer a notification. A late one counts as alive.
_ANSWER_TIMEOUT = 1000
# Seconds of head start for Ceph's own timeout.
_GRACE = 10.0


def living(lease: Lease, image: OpenImage, locks: bool = True) -> int:
    """Return how many other clients have an image open for writing.

    A dead client counts until the cluster notices, which takes up to 30 seconds; one that the
    cluster never notices does not count. `locks` counts that one too if it holds an RBD lock that
    nobody can break, as whoever wants to change the image would wait for it.
    """
    own = 0 if image.read_only else 1
    before = image.watchers()
    if len(before) <= own or image.id is None:
        return max(len(before) - own, 0)
    answered = _answered(lease, HEADER + image.id)
    if answered is None:
        return len(before) - own
    # Newcomers were not asked, and those who left need not answer.
    now = image.watchers()
    stale = (before & now) - answered
    if locks:
        stale = {key for key in stale if not _has_lock(image, *key)}
    return max(len(now) - len(stale) - own, 0)


def _answered(lease: Lease, header: str) -> set[tuple[int, int]] | None:
    """Return the watchers that answer, or None if one that should answer does not."""
    notify = getattr(lease.access, "aio_notify", None)
    if notify is None:
        # The bindings are too old.
        return None
    done = threading.Event()
    results: list[tuple[int, list[Any] | None, list[Any] | None]] = []

    def finish(
        _completion: object, code: int, answers: list[Any] | None, late: list[Any] | None
    ) -> None:
        results.append((code, answers, late))
        done.set()

    # An empty message tells RBD clients to reread the header, which is harmless. The library may
    # write to the returned object even after the answer has arrived.
    lease.connection.keep(notify(header, finish, "", _ANSWER_TIMEOUT))
    if not done.wait(_ANSWER_TIMEOUT / 1000 + _GRACE):
        return None
    code, answers, late = results[0]
    if code or answers is None or late:
        return None
    return {(client, cookie) for client, cookie, _message in answers}


def _has_lock(image: OpenImage, client: int, cookie: int) -> bool:
    """Tell whether a watcher holds RBD's lock, which nobody gets while its entry exists.

    A client may have several entries, for example while it renames an image; its lock belongs to
    one.
    """
    lockers = image.native.list_lockers()
    owner = (f"client.{client}", f"{_LOCK}{cookie}")
    return bool(lockers) and owner in {entry[:2] for entry in lockers["lockers"]}
