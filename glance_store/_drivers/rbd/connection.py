# SPDX-License-Identifier: Apache-2.0
"""A connection to a cluster, which many operations share, and its use by one of them."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any, NamedTuple, Protocol

from glance_store._drivers.rbd import bindings, errors

LOG = logging.getLogger(__name__)

# Results of calls that are kept: so many are never made in the moment in which it matters.
_KEPT = 1000
# Seconds in which operations of other threads get to where they are stopped, and between two looks.
_UNDER_WAY, _LOOK = 0.5, 0.01
# Answers of the monitors that are waited for before a new connection is used: a millisecond or two.
_ANSWERS = 3
# Threads that shut connections down.
_ENDING: set[threading.Thread] = set()

os.register_at_fork(after_in_child=_ENDING.clear)


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


class Opened(Protocol):
    """Something that is open by way of a connection."""

    def close_quietly(self) -> None:
        """Close it as soon as no call uses it."""
        ...


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
        self._opened: set[Opened] = set()
        self._kept: deque[Any] = deque(maxlen=_KEPT)
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
        self._settle()
        # Also of the configuration file.
        self._timeout = float(native.conf_get("rados_osd_op_timeout") or 0)

    def _settle(self) -> None:
        """Wait until the library has worked off what the monitors send to a new client.

        It does so in a thread of its own, and an image that is opened meanwhile can end the process
        (an exception in that thread while librbd copies the configuration; seen with 16.2.15).
        """
        # What monitors answer comes after it; more than once, as the library has several threads.
        with contextlib.suppress(*errors.native_errors()):
            for _time in range(_ANSWERS):
                self.native.wait_for_latest_osdmap()

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

    def hold(self, opened: Opened) -> None:
        """Count in what an operation has opened, which may have to outlast it.

        :param opened: released with `release`
        """
        with self._lock:
            self._users += 1
            self._opened.add(opened)

    def release(self, opened: Opened) -> None:
        """Count out what is closed.

        :param opened: as given to `hold`
        """
        self._opened.discard(opened)
        self.give_back()

    def keep(self, native: Any) -> None:
        """Keep what a call has returned until nothing can come from the cluster any more.

        :param native: object of the bindings that the library may write to after its call has ended
            (https://tracker.ceph.com/issues/73907)
        """
        self._kept.append(native)

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
        if not _start_to_end(self._shut_down) and not self.lost:
            self._shut_down()

    def _shut_down(self) -> None:
        try:
            for pool in self._pools.values():
                pool.close()
                bindings.OBJECTS.closed(pool)
            self._pools.clear()
            self.native.shutdown()
            bindings.OBJECTS.closed(self.native)
            self._kept.clear()
        except Exception as exc:
            if not errors.is_native(exc):
                raise
            LOG.warning("A connection to a Ceph cluster could not be shut down: %s", exc)

    def end(self) -> None:
        """Begin to shut the connection down at the end of the process.

        What was left open is closed first, as far as no call uses it: so nobody has to wait until
        the cluster notices that its client is gone.
        """
        if self._process != os.getpid():
            return
        with self._lock:
            self._retired = True
        if self._users:
            _start_to_end(self._close_all)
        self._end_unless_used()

    def _close_all(self) -> None:
        """Close what is open as soon as no call uses it, and what is opened meanwhile."""
        deadline = time.monotonic() + _UNDER_WAY
        while self._opened or (self._users and time.monotonic() < deadline):
            for opened in list(self._opened):
                opened.close_quietly()
            time.sleep(_LOOK)


def _start_to_end(work: Callable[[], object]) -> bool:
    """Do something that ends a connection, on a thread: a lost cluster may take its time.

    :returns: False when there is no thread: Python 3.12 starts none when the interpreter ends
    """

    def run() -> None:
        try:
            work()
        finally:
            _ENDING.discard(thread)

    thread = threading.Thread(target=run, name="glance_store-rbd-end", daemon=True)
    _ENDING.add(thread)
    try:
        thread.start()
    except RuntimeError:
        _ENDING.discard(thread)
        return False
    return True


def wait_for_ends(seconds: float) -> None:
    """Wait until the connections that end have ended.

    :param seconds: how long at most
    """
    deadline = time.monotonic() + seconds
    # Not by join(): one may be about to start, and be followed by another.
    while _ENDING and time.monotonic() < deadline:
        time.sleep(_LOOK)


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
