# SPDX-License-Identifier: Apache-2.0
"""A store's cluster: one shared connection, opened on first use."""

from __future__ import annotations

import atexit
import errno
import os
import threading
import weakref
from collections.abc import Callable

from glance_store import exceptions
from glance_store._drivers.rbd import bindings, errors
from glance_store._drivers.rbd.connection import (
    Connection,
    Lease,
    Settings,
    UnknownHost,
    wait_for_ends,
)
from glance_store.i18n import _

# Seconds to wait at exit for connections to shut down.
_EXIT_WAIT = 5.0
# Set when the process exits: other threads must not open new connections while the library is being
# torn down.
_EXITING = threading.Event()


class _Slot:
    """The connection of one process, and the lock that threads wait for while it is opened."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.connection: Connection | None = None
        self.attempts = 0  # how many failed
        self.failure: tuple[str, int | None] | None = None  # of the last failure: reason, number


class Cluster:
    """The cluster of a store.

    `settings` returns how to connect; when its result changes, or a file with Ceph's settings or
    keys, the connection is replaced.
    `failure` turns a reason and an error number into the exception for a cluster that cannot be
    connected to.
    """

    def __init__(
        self,
        settings: Callable[[], Settings],
        failure: Callable[[str, int | None], Exception],
    ) -> None:
        self._settings = settings
        self._failure = failure
        # Not one lock for all processes: a lock held during a fork stays locked in the child.
        self._slots: dict[int, _Slot] = {}
        _CLUSTERS.add(self)
        # Close the connection of a store that is collected: it has some 25 threads. At exit,
        # `_at_exit` closes it instead.
        weakref.finalize(self, _retire, self._slots).atexit = False

    def lease(self, pool: str, namespace: str = "", latest: bool = False) -> Lease:
        """Return a lease on a pool; `latest` asks the monitors which pool has this name now.

        Raises the exception of `failure` when the cluster cannot be reached, and UnknownPool.
        """
        connection = self._connected()
        try:
            with errors.translated(_("Opening pool %s") % pool, connection, pool):
                pool_id = connection.pool_id(pool, latest)
                if pool_id is not None:
                    return Lease(connection, pool, pool_id, namespace)
            raise UnknownPool(
                _(
                    "The Ceph cluster has no pool %(pool)s; to store images, create it or "
                    "correct the option rbd_store_pool"
                ),
                pool=pool,
            )
        except BaseException:
            connection.give_back()
            raise

    def borrow(self) -> Connection:
        """Return the connection, counted as in use; the caller gives it back."""
        return self._connected()

    def _connected(self) -> Connection:
        if _EXITING.is_set() and threading.current_thread() is not threading.main_thread():
            raise errors.NotAvailable(_("The process is exiting"))
        slot = self._slots.setdefault(os.getpid(), _Slot())
        settings = self._settings()
        while True:
            seen = slot.attempts
            with slot.lock:
                connection = slot.connection
                if connection is not None and (
                    connection.settings != settings or connection.is_outdated()
                ):
                    connection.retire()
                if connection is None or connection.retired:
                    connection = slot.connection = self._connect(slot, settings, seen)
            if connection.take():
                return connection

    def _connect(self, slot: _Slot, settings: Settings, seen: int) -> Connection:
        if slot.attempts != seen and slot.failure is not None:
            # Another thread has just failed while this one waited. Do not wait as long again.
            raise self._failure(*slot.failure)
        slot.failure = None
        try:
            return Connection(settings)
        except Exception as exc:
            if not errors.is_native(exc) and not isinstance(exc, UnknownHost):
                raise
            slot.failure = _reason(exc, settings), errors.number_of(exc)
            slot.attempts += 1
            raise self._failure(*slot.failure) from exc

    def forget(self) -> None:
        """Drop the parent's connections, in a forked child."""
        self._slots = {}

    def end(self, seconds: float = _EXIT_WAIT) -> None:
        """Shut down this process's connection and wait for that, at most for `seconds`."""
        slot = self._slots.get(os.getpid())
        if slot is not None and slot.connection is not None:
            slot.connection.end()
            wait_for_ends(seconds)


def _retire(slots: dict[int, _Slot]) -> None:
    slot = slots.get(os.getpid())
    if slot is not None and slot.connection is not None:
        slot.connection.retire()


class UnknownPool(exceptions.NotFound):
    """The cluster has no pool of this name."""


def _reason(exc: Exception, settings: Settings) -> str:
    number = errors.number_of(exc)
    where = settings.conf_file or "ceph.conf in its default locations"
    user = settings.user or "(default)"
    if isinstance(exc, UnknownHost):
        hint = f"check DNS, or correct mon_host in {where}"
    elif number == errno.ETIMEDOUT:
        hint = "its monitors do not answer within rados_connect_timeout"
    elif number in (errno.EACCES, errno.EPERM):
        hint = f"it refuses the Ceph user {user}: check rbd_store_user and its keyring"
    elif number == errno.ENOENT:
        hint = f"a file is missing: {where} (option rbd_store_ceph_conf), or a keyring it names"
    else:
        hint = f"check {where} (option rbd_store_ceph_conf) and the user {user} (rbd_store_user)"
    return f"the Ceph cluster cannot be used: {exc}: {hint}"


_CLUSTERS: weakref.WeakSet[Cluster] = weakref.WeakSet()


def _after_fork() -> None:
    # Slots are keyed by process id, and the child's id may once have been an ancestor's.
    for cluster in list(_CLUSTERS):
        cluster.forget()


os.register_at_fork(after_in_child=_after_fork)


@atexit.register
def _at_exit() -> None:
    # Otherwise the interpreter closes the connections, when waiting can no longer be bounded and
    # their threads find the library half torn down.
    _EXITING.set()
    for cluster in list(_CLUSTERS):
        cluster.end(0)
    wait_for_ends(_EXIT_WAIT)
    # The interpreter must not close what is still in use.
    bindings.OBJECTS.forget()
