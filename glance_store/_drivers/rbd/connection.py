# SPDX-License-Identifier: Apache-2.0
"""The connection of a store to its cluster: one for all operations, made when first needed."""

from __future__ import annotations

import atexit
import errno
import logging
import os
import threading
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import Any, NamedTuple

from glance_store import exceptions
from glance_store._drivers.rbd import bindings, errors
from glance_store.i18n import _

LOG = logging.getLogger(__name__)

# Seconds that the end of the process waits for a connection to be shut down.
_LAST_WAIT = 5.0


class Settings(NamedTuple):
    """How to connect."""

    conf_file: str
    user: str | None
    timeout: int  # seconds; 0 for ever, negative as the configuration file says

    def options(self) -> dict[str, str]:
        """Return the options that go beyond the configuration file."""
        # Blocks are written and read once each: a cache costs a copy, takes memory that nobody has
        # counted, and reports a failed write too late.
        options = {"rbd_cache": "false"}
        if self.timeout >= 0:
            for name in ("rados_osd_op_timeout", "rados_mon_op_timeout", "client_mount_timeout"):
                options[name] = str(self.timeout)
        return options


class Connection:
    """A connected client of a cluster, and its pools. Shared by threads.

    :param settings: how to connect
    :raises rados.Error: it does not work
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._process = os.getpid()
        # Reentrant: the collector may retire the connection in a thread that holds the lock.
        self._lock = threading.RLock()
        self._pools: dict[tuple[int, str], Any] = {}  # by id and namespace
        self._users = 0
        self._retired = False
        self.lost = False
        self._ended = False
        rados = bindings.rados()
        native = rados.Rados(
            conffile=settings.conf_file, rados_id=settings.user or None, conf=settings.options()
        )
        # Before it has been connected there is nothing to shut down.
        native.connect()
        self.native = bindings.OBJECTS.opened(native)
        # Also of the configuration file.
        self._timeout = float(native.conf_get("rados_osd_op_timeout") or 0)

    @property
    def timeout(self) -> float:
        """Seconds that an operation may take; 0 for any time."""
        return self._timeout

    @property
    def retired(self) -> bool:
        """Whether nothing new may be done with it."""
        return self._retired

    def lose(self) -> None:
        """Take note that the cluster does not answer, or answers this client no more."""
        self.lost = True
        self.retire()

    def retire(self) -> None:
        """Use the connection for nothing new; it ends with the last operation that uses it."""
        with self._lock:
            self._retired = True
        self._end_unless_used()

    def take(self) -> bool:
        """Count an operation in.

        :returns: False when the connection is retired
        """
        with self._lock:
            if self._retired:
                return False
            self._users += 1
            return True

    def give_back(self) -> None:
        """Count an operation out."""
        with self._lock:
            self._users -= 1
        self._end_unless_used()

    def pool_id(self, name: str, latest: bool = True) -> int | None:
        """Return the id of the pool that has a name now, None where there is none.

        :param name: of the pool
        :param latest: ask the monitors whether pools were renamed or made anew; without that the
            answer is as old as the last operation, and costs none
        :raises rados.Error: they do not answer
        """
        if latest:
            self.native.wait_for_latest_osdmap()
        found: int | None = self.native.pool_lookup(name)
        return found

    def access(self, pool_id: int, namespace: str) -> Any:
        """Return the access to a pool.

        :param pool_id: its id
        :param namespace: in the pool, empty for the default one
        :raises rados.Error: there is no such pool any more
        """
        with self._lock:
            found = self._pools.get((pool_id, namespace))
        if found is None:
            # Not under the lock, for which operations on other pools would wait.
            opened = bindings.OBJECTS.opened(self.native.open_ioctx2(pool_id))
            opened.set_namespace(namespace)
            bindings.try_when_full(opened)
            with self._lock:
                found = self._pools.setdefault((pool_id, namespace), opened)
            if found is not opened:
                opened.close()
                bindings.OBJECTS.closed(opened)
        return found

    def _end_unless_used(self) -> None:
        with self._lock:
            if self._users or self._ended or not self._retired or self._process != os.getpid():
                return
            self._ended = True
        # In a thread of its own: with the cluster out of reach it may take its time.
        threading.Thread(target=self._shut_down, name="glance_store-rbd-end", daemon=True).start()

    def _shut_down(self) -> None:
        try:
            for pool in self._pools.values():
                pool.close()
                bindings.OBJECTS.closed(pool)
            self._pools.clear()
            self.native.shutdown()
            bindings.OBJECTS.closed(self.native)
        except Exception as exc:
            if not errors.is_native(exc):
                raise
            LOG.warning("A connection to a Ceph cluster could not be shut down: %s", exc)

    def end(self) -> None:
        """Shut the connection down at the end of the process, if nobody uses it."""
        with self._lock:
            if self._users or self._ended or self._process != os.getpid():
                return
            self._retired = self._ended = True
        thread = threading.Thread(target=self._shut_down, name="glance_store-rbd-end", daemon=True)
        thread.start()
        thread.join(_LAST_WAIT)


class Lease:
    """The use of a connection and a pool by one operation.

    :param connection: counted in
    :param pool: name of the pool
    :param pool_id: the pool that had it when the operation began
    :param namespace: in the pool, empty for the default one
    :raises rados.Error: the pool cannot be opened
    """

    def __init__(
        self, connection: Connection, pool: str, pool_id: int, namespace: str = ""
    ) -> None:
        self.connection = connection
        self.pool = pool
        self.namespace = namespace
        self.access = connection.access(pool_id, namespace)  # the bindings' ioctx
        self._pool_id = pool_id
        self._lock = threading.Lock()
        self._process = os.getpid()
        self._closed = False

    @property
    def place(self) -> str:
        """The pool, and the namespace if there is one, as `rbd` wants them before an image."""
        return f"{self.pool}/{self.namespace}" if self.namespace else self.pool

    def has_moved(self) -> bool:
        """Tell whether the name of the pool means another one by now, or none."""
        return self.connection.pool_id(self.pool) != self._pool_id

    def close(self) -> None:
        """Give the connection back; further calls do nothing."""
        if self._process != os.getpid():
            return
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self.connection.give_back()

    def __enter__(self) -> Lease:  # noqa: PYI034 - typing.Self came with Python 3.11
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


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
                    "The Ceph cluster has no pool %(pool)s: create it, or set the option "
                    "rbd_store_pool to the right one"
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

    def end(self) -> None:
        """Shut the connection of this process down, at its end."""
        slot = self._slots.get(os.getpid())
        if slot is not None and slot.connection is not None:
            slot.connection.end()


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
    # Else the connections end with the interpreter, at a time when a wait cannot be bounded.
    for cluster in list(_CLUSTERS):
        cluster.end()
