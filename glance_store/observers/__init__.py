# SPDX-License-Identifier: Apache-2.0
"""Observe store operations: the hook for metrics and traces.

A registered observer is called for each operation of every store in the process, including stores
of third-party drivers::

    class Slow(observers.Observer):
        def end(self, operation):
            if operation.seconds > 60:
                print(operation)


    observers.register(Slow())

Without an observer, the cost for each operation is one check of an empty tuple.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from glance_store.transfer.threads import Workers

LOG = logging.getLogger(__name__)

OK = "ok"
ABANDONED = "abandoned"

# The observed operations of a store.
OPERATIONS = ("add", "get", "get_size", "delete", "set_acls")


@dataclasses.dataclass(eq=False)
class Operation:
    """One operation of a store. The fields after `name` are set when it ends.

    :param store: identifier of the store; in single-store mode, the name of its driver
    :param driver: entry point name of the driver
    :param name: ``add``, ``get``, ``get_size``, ``delete`` or ``set_acls``
    :param bytes: bytes stored by ``add`` (0 if it failed) or delivered by ``get`` (even if it
        failed); 0 for other operations
    :param seconds: duration of the call; for ``get``, time until the last byte was delivered,
        including the time the caller took between chunks
    :param outcome: ``ok``, the class name of the exception, or ``abandoned`` for a download that
        the caller closed before its end
    """

    store: str
    driver: str
    name: str
    bytes: int = 0
    seconds: float = 0.0
    outcome: str = ""


class Observer:
    """Base of observers: override either method. Both may be called from several threads at once.

    Be quick: the operation waits. An exception is logged once and otherwise ignored.
    """

    def begin(self, operation: Operation) -> None:
        """Handle the start of an operation. Called on the thread that starts it.

        :param operation: the operation; `end` gets the same object
        """

    def end(self, operation: Operation) -> None:
        """Handle the end of an operation. For ``get``, it may be called on another thread.

        :param operation: the operation, with all fields set
        """


class _Guarded:
    """An observer whose errors are logged once and do not reach the caller."""

    def __init__(self, observer: Observer) -> None:
        self.observer = observer
        self._failed = False

    def tell(self, moment: str, operation: Operation) -> None:
        try:
            getattr(self.observer, moment)(operation)
        except Exception:
            if not self._failed:
                self._failed = True
                LOG.exception(
                    "Observer %r failed; its further failures are not logged",
                    self.observer,
                )


# Replaced, never modified: readers need no lock.
_OBSERVERS: tuple[_Guarded, ...] = ()
_CHANGING = threading.RLock()
# The garbage collector may interrupt an observer that holds a lock, so the end of a collected
# download is reported on another thread.
_LATE = Workers(1, "glance_store-observers")


def register(observer: Observer) -> None:
    """Call an observer for all operations of this process that begin from now on.

    :param observer: an `Observer`; registering it again has no effect
    """
    global _OBSERVERS  # noqa: PLW0603 - the hook of the process
    with _CHANGING:
        if all(one.observer is not observer for one in _OBSERVERS):
            _OBSERVERS = (*_OBSERVERS, _Guarded(observer))


def unregister(observer: Observer) -> None:
    """Stop calling an observer for new operations. It still gets the end of running ones.

    :param observer: an `Observer`; one that is not registered is ignored
    """
    global _OBSERVERS  # noqa: PLW0603 - the hook of the process
    with _CHANGING:
        _OBSERVERS = tuple(one for one in _OBSERVERS if one.observer is not observer)


def instrument(driver: type) -> None:
    """Wrap the operations of a driver class so that they are observed."""
    for name in OPERATIONS:
        method = inspect.getattr_static(driver, name)
        # An inherited method is observed already.
        if inspect.isfunction(method) and not hasattr(method, "observed_operation"):
            setattr(driver, name, _observed(name, method))


def _observed(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def operation(store: Any, *args: Any, **kwargs: Any) -> Any:
        if not _OBSERVERS:
            return method(store, *args, **kwargs)
        return _watch(name, store, functools.partial(method, store, *args, **kwargs))

    operation.observed_operation = name  # type: ignore[attr-defined]
    return operation


class _Working(threading.local):
    """The stores at work on a thread: operations they call on themselves are not reported."""

    def __init__(self) -> None:
        self.stores: set[int] = set()


_WORKING = _Working()


def _watch(name: str, store: Any, call: Callable[[], Any]) -> Any:
    working = _WORKING.stores
    if id(store) in working:
        return call()
    running = _Running(name, store)
    working.add(id(store))
    try:
        result = call()
    except BaseException as exc:
        running.end(type(exc).__name__)
        raise
    finally:
        working.discard(id(store))
    # A third-party driver may return anything.
    values = result if isinstance(result, tuple) else ()
    size = values[1] if len(values) > 1 and isinstance(values[1], int) else 0
    if name == "get" and len(values) == len(("chunks", "size")):
        return _delivery(values[0], size, running), *values[1:]
    running.end(OK, size if name == "add" else 0)
    return result


class _Running:
    """A running operation, and the observers to call once at its end."""

    def __init__(self, name: str, store: Any) -> None:
        driver = str(store.driver_entry or store.name)
        # Missing if a third-party driver does not call the constructor of its base.
        identifier = getattr(store, "backend_group", None)
        self._operation = Operation(identifier or driver, driver, name)
        self._observers = _OBSERVERS
        self._begun = time.monotonic()
        self._ended: dict[None, object] = {}
        self._tell("begin")

    def _tell(self, moment: str) -> None:
        for one in self._observers:
            one.tell(moment, self._operation)

    def end(self, outcome: str, size: int = 0, collected: bool = False) -> None:
        """Report the end; `collected` if called by the garbage collector."""
        caller = object()
        # Only the first call counts; setdefault() is atomic.
        if self._ended.setdefault(None, caller) is not caller:
            return
        self._operation.bytes = size
        self._operation.seconds = time.monotonic() - self._begun
        self._operation.outcome = outcome
        if not collected:
            self._tell("end")
            return
        with contextlib.suppress(RuntimeError):
            # The interpreter may be shutting down.
            _LATE.put(functools.partial(self._tell, "end"))


def _delivery(chunks: Any, size: int, running: _Running) -> Any:
    if hasattr(chunks, "__getitem__") or hasattr(chunks, "__len__"):
        # Older drivers return sequences, which can be read in several ways: pass them on.
        running.end(OK, size)
        return chunks
    return _Delivery(chunks, size, running)


class _Delivery:
    """Counts the bytes of a download, and otherwise behaves like what the driver returned."""

    def __init__(self, chunks: Any, size: int, running: _Running) -> None:
        self._chunks = chunks
        self._size = size
        self._running = running
        self._iterator: Iterator[Any] | None = None
        self._delivered = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._chunks, name)

    def __iter__(self) -> _Delivery:
        return self

    def __next__(self) -> Any:
        try:
            if self._iterator is None:
                self._iterator = iter(self._chunks)
            chunk = next(self._iterator)
        except StopIteration:
            self._running.end(OK, self._delivered)
            raise
        except BaseException as exc:
            self._running.end(type(exc).__name__, self._delivered)
            raise
        self._delivered += len(chunk)
        if self._delivered == self._size:
            # A caller that knows the size does not read on to StopIteration.
            self._running.end(OK, self._delivered)
        return chunk

    def __enter__(self) -> _Delivery:  # noqa: PYI034 - typing.Self came with Python 3.11
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the image."""
        try:
            close = getattr(self._chunks, "close", None)
            if callable(close):
                close()
        finally:
            self._running.end(ABANDONED, self._delivered)

    def __del__(self) -> None:
        self._running.end(ABANDONED, self._delivered, collected=True)
