# SPDX-License-Identifier: Apache-2.0
"""The cluster of a store: one connection for all operations, made when it is first needed."""

from __future__ import annotations

import atexit
import errno
import os
import threading
import weakref
from collections.abc import Callable

from glance_store import exceptions
from glance_store._drivers.rbd import bindings, errors
from glance_store._drivers.rbd.connection import Connection, Lease, Settings, wait_for_ends
from glance_store.i18n import _

# Seconds that the end of the process waits for its connections to be shut down.
_LAST_WAIT = 5.0
# Whether the process ends. A thread that goes on must not connect anew: the library is taken down.
_LAST = threading.Event()


class _Slot:
    """The connection of one process, and the lock that makes threads wait while it is made."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.connection: Connection | None = None
        self.attempts = 0  # that have failed
        self.failure: tuple[str, int | None] | None = None  # of the last of them: reason, number


class Cluster:
    """The cluster of a store.

    :param settings: returns how to connect; when that changes, so does the connection
    :param failure: makes the error for a cluster that cannot be connected to out of the reason and
        the error number
    """

    def __init__(
        self,
        settings: Callable[[], Settings],
        failure: Callable[[str, int | None], Exception],
    ) -> None:
        self._settings = settings
        self._failure = failure
        # No lock for all processes: one that is held during a fork stays locked in the child.
        self._slots: dict[int, _Slot] = {}
        _CLUSTERS.add(self)
        # The connection of a store that is thrown away: it has some 25 threads. The end of the
        # process has a way of its own.
        weakref.finalize(self, _retire, self._slots).atexit = False

    def lease(self, pool: str, namespace: str = "", latest: bool = False) -> Lease:
        """Return the use of a pool.

        :param pool: its name
        :param namespace: in the pool, empty for the default one
        :param latest: ask the monitors which pool has this name now
        :raises BackendException: the cluster cannot be reached (the class is that of `failure`)
        :raises UnknownPool: there is no such pool
        """
        connection = self._connected()
        try:
            with errors.translated(_("Opening pool %s") % pool, connection, pool):
                pool_id = connection.pool_id(pool, latest)
                if pool_id is not None:
                    return Lease(connection, pool, pool_id, namespace)
            raise UnknownPool(
                _(
                    "The Ceph cluster has no pool %(pool)s; for new images create it, or set the "
                    "option rbd_store_pool to the right one"
                ),
                pool=pool,
            )
        except BaseException:
            connection.give_back()
            raise

    def borrow(self) -> Connection:
        """Return the connection, counted in; the caller gives it back.

        :raises BackendException: the cluster cannot be reached (the class is that of `failure`)
        """
        return self._connected()

    def _connected(self) -> Connection:
        if _LAST.is_set() and threading.current_thread() is not threading.main_thread():
            raise errors.NotAvailable(_("The process is about to end"))
        slot = self._slots.setdefault(os.getpid(), _Slot())
        settings = self._settings()
        while True:
            seen = slot.attempts
            with slot.lock:
                connection = slot.connection
                if connection is not None and connection.settings != settings:
                    connection.retire()
                if connection is None or connection.retired:
                    connection = slot.connection = self._connect(slot, settings, seen)
            if connection.take():
                return connection

    def _connect(self, slot: _Slot, settings: Settings, seen: int) -> Connection:
        if slot.attempts != seen and slot.failure is not None:
            # Somebody else has just tried in vain while this call waited: not once more as long.
            raise self._failure(*slot.failure)
        slot.failure = None
        try:
            return Connection(settings)
        except Exception as exc:
            if not errors.is_native(exc):
                raise
            slot.failure = _reason(exc, settings), errors.number_of(exc)
            slot.attempts += 1
            raise self._failure(*slot.failure) from exc

    def forget(self) -> None:
        """Begin anew, in a forked process: the connections are the parent's."""
        self._slots = {}

    def end(self, seconds: float = _LAST_WAIT) -> None:
        """Shut the connection of this process down, at its end.

        :param seconds: how long to wait for it
        """
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
    where = settings.conf_file or "ceph.conf at its usual places"
    user = settings.user or "of the default"
    if number == errno.ETIMEDOUT:
        hint = "its monitors do not answer in the time of the option rados_connect_timeout"
    elif number in (errno.EACCES, errno.EPERM):
        hint = f"it refuses the Ceph user {user}: see rbd_store_user and its keyring"
    elif number == errno.ENOENT:
        hint = f"a file is missing: {where} (option rbd_store_ceph_conf), or the keyring in it"
    else:
        hint = f"see {where} (option rbd_store_ceph_conf) and the user {user} (rbd_store_user)"
    return f"the Ceph cluster cannot be used: {exc}: {hint}"


_CLUSTERS: weakref.WeakSet[Cluster] = weakref.WeakSet()


def _after_fork() -> None:
    # Not only because of the new process id, which may have been that of an ancestor.
    for cluster in list(_CLUSTERS):
        cluster.forget()


os.register_at_fork(after_in_child=_after_fork)


@atexit.register
def _at_exit() -> None:
    # Else the connections end with the interpreter, at a time when a wait cannot be bounded, and
    # their threads meet a library that is being taken down.
    _LAST.set()
    for cluster in list(_CLUSTERS):
        cluster.end(0)
    wait_for_ends(_LAST_WAIT)
    # What is in use still must not be closed by the interpreter, in any order.
    bindings.OBJECTS.forget()
