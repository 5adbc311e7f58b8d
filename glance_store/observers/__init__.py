# SPDX-License-Identifier: Apache-2.0
"""Watch what the stores do: the hook for metrics and traces.

A registered observer is told of each operation of each store of the process, those of drivers from
outside included::

    class Slow(observers.Observer):
        def end(self, operation):
            if operation.seconds > 60:
                print(operation)


    observers.register(Slow())

Without an observer an operation costs one look at an empty tuple.
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

# The operations of a store that are watched.
OPERATIONS = ("add", "get", "get_size", "delete", "set_acls")


@dataclasses.dataclass(eq=False)
class Operation:
    """One operation of a store. What follows `name` is known at its end.

    :param store: identifier of the store; in single-store mode the name of its driver
    :param driver: entry point name of the driver
    :param name: what is done: ``add``, ``get``, ``get_size``, ``delete`` or ``set_acls``
    :param bytes: of the image that were stored (``add``, 0 when it failed) or handed to the caller
        (``get``, also when it broke off); 0 for the others
    :param seconds: from the call to its return; for ``get`` until the last byte was handed over,
        with the time that the caller took between chunks
    :param outcome: ``ok``, the class name of the exception, or ``abandoned`` for a download that
        the caller closed half-way
    """

    store: str
    driver: str
    name: str
    bytes: int = 0
    seconds: float = 0.0
    outcome: str = ""


class Observer:
    """Base of observers: override what is wanted. Calls may come from several threads at once.

    What an observer raises is logged once and otherwise ignored. The operation waits for it: it
    should be quick.
    """

    def begin(self, operation: Operation) -> None:
        """Take note that an operation begins; called in the thread that asks for it.

        :param operation: the same object is given to `end`
        """

    def end(self, operation: Operation) -> None:
        """Take note that an operation has ended; for ``get`` this may be in another thread.

        :param operation: complete
        """


class _Guarded:
    """An observer whose errors disturb nobody."""

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
                    "The observer %r has failed; further failures of it are not logged",
                    self.observer,
                )


# Replaced, never changed: whoever reads it needs no lock.
_OBSERVERS: tuple[_Guarded, ...] = ()
_CHANGING = threading.RLock()
# What the garbage collector ends is told by a thread: observers have locks, which it may interrupt.
_LATE = Workers(1, "glance_store-observers")


def register(observer: Observer) -> None:
    """Have an observer told of the operations that begin from now on, in this process.

    :param observer: an `Observer`; one that is registered already is told once
    """
    global _OBSERVERS  # noqa: PLW0603 - the hook of the process
    with _CHANGING:
        if all(one.observer is not observer for one in _OBSERVERS):
            _OBSERVERS = (*_OBSERVERS, _Guarded(observer))


def unregister(observer: Observer) -> None:
    """Tell an observer of no further operation; it still hears how those that run have ended.

    :param observer: one that was registered; otherwise nothing happens
    """
    global _OBSERVERS  # noqa: PLW0603 - the hook of the process
    with _CHANGING:
        _OBSERVERS = tuple(one for one in _OBSERVERS if one.observer is not observer)


def instrument(driver: type) -> None:
    """Have the operations of a class of stores observed.

    :param driver: the class
    """
    for name in OPERATIONS:
        method = inspect.getattr_static(driver, name)
        # One that is inherited, or a decorated one of the base, is observed there.
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
    """The stores that are at work in a thread: what they call of themselves is not told again."""

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
    # A driver from outside may return anything.
    values = result if isinstance(result, tuple) else ()
    size = values[1] if len(values) > 1 and isinstance(values[1], int) else 0
    if name == "get" and len(values) == len(("chunks", "size")):
        return _delivery(values[0], size, running), *values[1:]
    running.end(OK, size if name == "add" else 0)
    return result


class _Running:
    """An operation that has begun, and those who are told of its end, once."""

    def __init__(self, name: str, store: Any) -> None:
        driver = str(store.driver_entry or store.name)
        # Without it where a driver from outside does not call the constructor of its base.
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
        """Tell how it has ended.

        :param outcome: of the operation
        :param size: its bytes
        :param collected: whether the garbage collector says so
        """
        caller = object()
        # Whoever is first: setdefault() is one bytecode.
        if self._ended.setdefault(None, caller) is not caller:
            return
        self._operation.bytes = size
        self._operation.seconds = time.monotonic() - self._begun
        self._operation.outcome = outcome
        if not collected:
            self._tell("end")
            return
        with contextlib.suppress(RuntimeError):
            # The interpreter may be at its end.
            _LATE.put(functools.partial(self._tell, "end"))


def _delivery(chunks: Any, size: int, running: _Running) -> Any:
    if hasattr(chunks, "__getitem__") or hasattr(chunks, "__len__"):
        # The sequences of old drivers can be read in more ways than one: they stay what they are.
        running.end(OK, size)
        return chunks
    return _Delivery(chunks, size, running)


class _Delivery:
    """The chunks of a download, counted; in all else what the driver returned.

    :param chunks: what the driver returned
    :param size: bytes that it will deliver, 0 when unknown
    :param running: the operation
    """

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
            # Whoever knows the size does not ask for the end.
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
