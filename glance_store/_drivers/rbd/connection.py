# SPDX-License-Identifier: Apache-2.0
"""A connection to a cluster, shared by many operations, and one operation's lease on it."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any, NamedTuple, Protocol

from glance_store._drivers.rbd import bindings, errors
from glance_store.transfer.threads import Pending, start

LOG = logging.getLogger(__name__)

# Where Ceph looks first for its configuration file.
_DEFAULT_CONF = "/etc/ceph/ceph.conf"
# Results to keep alive: far more than can be at risk at any one moment.
_KEPT = 1000
# Seconds for other threads' operations to notice that they must stop, and between two checks.
_DRAIN, _POLL = 0.5, 0.01
# Threads that are shutting connections down.
_ENDING: set[threading.Thread] = set()

# A host in a list such as "[v2:a:3300,v1:a:6789], b", but no IPv6 address.
_HOST = re.compile(r"(?:^|[\s,;\[])(?:v[12]:)?([\w.-]+)(?::\d+)?(?:/\d+)?(?=[\s,;\]]|$)")

os.register_at_fork(after_in_child=_ENDING.clear)


class UnknownHost(Exception):  # noqa: N818 - an answer of the name service
    """The name service has no address for a monitor now."""


def unknown_hosts(monitors: str) -> list[str]:
    """Return those hosts of Ceph's option mon_host that have no address now."""
    unknown = []
    for host in dict.fromkeys(_HOST.findall(monitors)):
        try:
            socket.getaddrinfo(host, None)
        except OSError:
            unknown.append(host)
    return unknown


def _not_found(number: int | None, monitors: str) -> str:
    """Return which monitors the name service does not find, if that explains an error."""
    if number == errno.ENOENT and not monitors:
        return "the DNS records (SRV) of the monitors"
    return ", ".join(unknown_hosts(monitors)) if number == errno.EINVAL else ""


def _stamps(*lists: Any) -> dict[str, tuple[int, int, int] | None]:
    """Return what shows that a file was changed, for the paths in Ceph's lists; None: no file."""
    found: dict[str, tuple[int, int, int] | None] = {}
    for path in re.split("[,; ]+", " ".join(map(str, lists))):
        found[path] = None
        with contextlib.suppress(OSError):
            status = os.stat(path)
            found[path] = (status.st_ino, status.st_size, status.st_mtime_ns)
    return found


class Settings(NamedTuple):
    """How to connect."""

    conf_file: str
    user: str | None
    timeout: int  # seconds; 0: no limit, negative: as in the configuration file

    def options(self) -> dict[str, str]:
        """Return the options to set on top of the configuration file."""
        # Every block is written or read once. A cache costs a copy, uses memory that nobody has
        # counted, and reports failed writes too late.
        options = {"rbd_cache": "false"}
        if self.timeout >= 0:
            for name in ("rados_osd_op_timeout", "rados_mon_op_timeout", "client_mount_timeout"):
                options[name] = str(self.timeout)
        return options


class Opened(Protocol):
    """Something opened through a connection."""

    def close_quietly(self) -> None:
        """Close it once no call uses it."""
        ...


class Connection:
    """A connected cluster client and its pools, shared by threads. Raises rados.Error."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._process = os.getpid()
        # Reentrant: garbage collection may retire the connection in a thread that holds the lock.
        self._lock = threading.RLock()
        self._pools: dict[tuple[int, str], Any] = {}  # by id and namespace
        self._opened: set[Opened] = set()
        self._kept: deque[Any] = deque(maxlen=_KEPT)
        self._users = 0
        self._retired = False
        self.lost = False
        self._ended = False
        rados = bindings.rados()
        conf_file = settings.conf_file or os.environ.get("CEPH_CONF") or _DEFAULT_CONF
        self._files = _stamps(conf_file)
        native = rados.Rados(
            conffile=settings.conf_file, rados_id=settings.user or None, conf=settings.options()
        )
        self._files.update(_stamps(native.conf_get("keyring"), native.conf_get("keyfile")))
        # Nothing to shut down before the client is connected.
        try:
            _on_new_thread(native.connect)
        except Exception as exc:
            # The library says the same of a mistake in the configuration.
            if unknown := _not_found(errors.number_of(exc), native.conf_get("mon_host") or ""):
                raise UnknownHost(f"DNS does not find {unknown}") from exc
            raise
        self.native = bindings.OBJECTS.opened(native)
        # May come from the configuration file.
        self._timeout = float(native.conf_get("rados_osd_op_timeout") or 0)

    @property
    def timeout(self) -> float:
        """Seconds an operation may take; 0 means no limit."""
        return self._timeout

    @property
    def retired(self) -> bool:
        """Whether the connection takes no new operations."""
        return self._retired

    def is_outdated(self) -> bool:
        """Tell whether the configuration file or the key has changed since.

        A client whose key was replaced waits forever once it has to show it again. A file that is
        missing for a moment has not changed.
        """
        return any(
            stamp and self._files[path] != stamp for path, stamp in _stamps(*self._files).items()
        )

    def lose(self) -> None:
        """Record that the cluster no longer answers this client."""
        self.lost = True
        self.retire()

    def retire(self) -> None:
        """Take no new operations, and shut down after the last one."""
        with self._lock:
            self._retired = True
        self._end_unless_used()

    def take(self) -> bool:
        """Count an operation in; return False if the connection is retired."""
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
        """Count in something an operation has opened, which may outlast that operation."""
        with self._lock:
            self._users += 1
            self._opened.add(opened)

    def release(self, opened: Opened) -> None:
        """Count out something that was closed."""
        self._opened.discard(opened)
        self.give_back()

    def keep(self, native: Any) -> None:
        """Keep alive an object that the library may write to after its call has returned.

        See https://tracker.ceph.com/issues/73907.
        """
        self._kept.append(native)

    def pool_id(self, name: str, latest: bool = True) -> int | None:
        """Return the id of the pool with this name, or None. Raises rados.Error.

        `latest` asks the monitors whether pools were renamed or recreated. Without it, the answer
        is as old as the last operation and costs no request.
        """
        if latest:
            self.native.wait_for_latest_osdmap()
        found: int | None = self.native.pool_lookup(name)
        return found

    def access(self, pool_id: int, namespace: str) -> Any:
        """Return the ioctx for a pool and namespace. Raises rados.Error if the pool is gone."""
        with self._lock:
            found = self._pools.get((pool_id, namespace))
        if found is None:
            # Outside the lock: operations on other pools would wait for it.
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
            LOG.warning("Could not shut down a connection to a Ceph cluster: %s", exc)

    def end(self) -> None:
        """Start shutting down, at the end of the process.

        First closes whatever no call uses, so that nobody has to wait for the cluster to notice
        that this client is gone.
        """
        if self._process != os.getpid():
            return
        with self._lock:
            self._retired = True
        if self._users:
            _start_to_end(self._close_all)
        self._end_unless_used()

    def _close_all(self) -> None:
        """Close everything open once no call uses it, including what is opened in the meantime."""
        deadline = time.monotonic() + _DRAIN
        while self._opened or (self._users and time.monotonic() < deadline):
            for opened in list(self._opened):
                opened.close_quietly()
            time.sleep(_POLL)


def _on_new_thread(work: Callable[[], object]) -> None:
    """Run work that draws random numbers on a new thread.

    The number in a client's address comes from a series that each thread begins, and that forked
    processes continue: they would all have one address, and Ceph shuts out all of them with one.
    """
    pending = Pending(work, ())
    thread = threading.Thread(target=pending.run, name="glance_store-rbd-connect", daemon=True)
    start(thread)
    thread.join()
    pending.take()


def _start_to_end(work: Callable[[], object]) -> bool:
    """Run a shutdown step on a thread, as a lost cluster may block it; False: no thread."""

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
    """Wait at most `seconds` for the connections that are shutting down."""
    deadline = time.monotonic() + seconds
    # Not with join(): a thread may be about to start, and another may follow it.
    while _ENDING and time.monotonic() < deadline:
        time.sleep(_POLL)


class Lease:
    """One operation's use of a connection, counted in, and a pool. Raises rados.Error."""

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
    def pool_spec(self) -> str:
        """The pool, with its namespace if any, as the `rbd` command takes it."""
        return f"{self.pool}/{self.namespace}" if self.namespace else self.pool

    def has_moved(self) -> bool:
        """Tell whether the pool's name now belongs to another pool, or to none."""
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
