# SPDX-License-Identifier: Apache-2.0
"""Translates errors of Ceph's bindings into exceptions of this library."""

from __future__ import annotations

import contextlib
import errno
import sys
from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar

from glance_store import exceptions
from glance_store.i18n import _
from glance_store.transfer.threads import Calls

_T = TypeVar("_T")

_MODULES = ("rados", "rbd")
# After these the connection is unreliable: the cluster is silent, or has shut this client out.
LOST = (errno.ETIMEDOUT, errno.ESHUTDOWN, errno.ENOTCONN)
_REFUSED = (errno.EACCES, errno.EPERM)
# A missing file, or a user the cluster does not know or refuses.
_MISTAKES = (errno.ENOENT, errno.EACCES, errno.EPERM, errno.EINVAL)

# Seconds of head start for Ceph's own timeouts, which say more.
_GRACE = 0.5


class Link(Protocol):
    """What translating an error needs of a connection."""

    @property
    def timeout(self) -> float:
        """Seconds an operation may take; 0 means no limit."""
        ...

    def retire(self) -> None:
        """Take no new operations."""
        ...

    def lose(self) -> None:
        """Record that the cluster no longer answers this client."""
        ...


class NotAvailable(exceptions.BackendUnavailable):
    """The cluster no longer accepts this connection; a new one may work."""


# Callers have always caught connection failures as `BackendException` or, with several stores, as
# `BadStoreConfiguration`: these classes are both.
class ClusterRefused(exceptions.BadStoreConfiguration, exceptions.BackendException):
    """The cluster cannot be used with these options."""


class ClusterUnreachable(
    exceptions.BackendUnavailable, exceptions.BadStoreConfiguration, exceptions.BackendException
):
    """The cluster cannot be reached; it may come back."""


def unusable(number: int | None) -> type[ClusterRefused | ClusterUnreachable]:
    """Return the exception class for a cluster that cannot be connected to."""
    return ClusterRefused if number in _MISTAKES else ClusterUnreachable


def is_native(exc: BaseException) -> bool:
    """Tell whether an exception comes from Ceph's bindings."""
    return any(kind.__module__ in _MODULES for kind in type(exc).__mro__)


def native_errors() -> tuple[type[Exception], ...]:
    """Return the base classes of the bindings' errors."""
    return tuple(sys.modules[name].Error for name in _MODULES if name in sys.modules)


def number_of(exc: BaseException) -> int | None:
    """Return the error number of a bindings' exception, or None for any other."""
    return abs(getattr(exc, "errno", None) or 0) if is_native(exc) else None


def is_lost(exc: BaseException) -> bool:
    """Tell whether an error, native or translated, means that the cluster is out of reach."""
    if isinstance(exc, (exceptions.TimeoutError, NotAvailable)):
        return True
    return number_of(exc) in LOST


@contextlib.contextmanager
def expected(*numbers: int) -> Iterator[None]:
    """Swallow a bindings' error with one of these error numbers, such as `errno.ENOENT`."""
    try:
        yield
    except Exception as exc:
        if number_of(exc) not in numbers:
            raise


@contextlib.contextmanager
def translated(
    action: str,
    link: Link,
    image: str,
    denied: type[exceptions.GlanceStoreException] = exceptions.Forbidden,
) -> Iterator[None]:
    """Translate the errors of a block that uses the cluster.

    `action` begins the error's text; `denied` is the class to raise when the Ceph user may not do
    this. A connection that is out of reach or lacks the rights is retired. Errors that fit no class
    become BackendException.
    """
    try:
        yield
    except Exception as exc:
        if not is_native(exc):
            raise
        number = number_of(exc)
        if number in LOST:
            link.lose()
        elif number in _REFUSED:
            # A client keeps the rights it had when it connected: new ones need a new connection.
            link.retire()
        raise _translate(exc, action, link, image, denied) from exc


def bounded_calls(link: Link, threads: int) -> Calls:
    """Return a pool of calls that limits each to the time of one operation.

    Ceph's timeouts apply to each operation, and a write to a lost cluster may wait for a dozen of
    them in a row.
    """
    return Calls(link.timeout and link.timeout + _GRACE, threads, "glance_store-rbd-call")


def bounded(calls: Calls, call: Callable[[], _T], action: str, link: Link) -> _T:
    """Run a call within the limit of `calls`, or raise TimeoutError and abandon it."""
    try:
        return calls.call(call)
    except exceptions.TimeoutError:
        link.lose()
        raise _timed_out(action, link) from None


def _timed_out(action: str, link: Link) -> exceptions.BackendUnavailable:
    return exceptions.BackendUnavailable(
        _(
            "%(action)s: the Ceph cluster did not answer within %(timeout)g seconds "
            "(rados_connect_timeout). Check that its monitors and OSDs are up"
        ),
        action=action,
        timeout=link.timeout,
    )


def _translate(
    exc: Exception,
    action: str,
    link: Link,
    image: str,
    denied: type[exceptions.GlanceStoreException],
) -> Exception:
    number = number_of(exc)
    if type(exc).__name__ == "IncompleteWriteError":
        return exceptions.Invalid(_("%(action)s: %(cause)s"), action=action, cause=exc)
    if number == errno.ENOENT:
        return exceptions.NotFound(image=image)
    if number == errno.EEXIST:
        return exceptions.Duplicate(image=image)
    if number == errno.ETIMEDOUT:
        return _timed_out(action, link)
    if number in LOST:
        return NotAvailable(
            _("%(action)s: the Ceph cluster has shut this client out (%(cause)s); try again"),
            action=action,
            cause=exc,
        )
    if number in (errno.EBUSY, errno.ENOTEMPTY):
        text = _("%(action)s: another client, a clone or a snapshot is using it (%(cause)s)")
        return exceptions.InUseByStore(text, action=action, cause=exc)
    if number in (errno.ENOSPC, errno.EDQUOT):
        text = _("%(action)s: the pool is full or over its quota (%(cause)s)")
        return exceptions.StorageFull(text, action=action, cause=exc)
    if number in (errno.EACCES, errno.EPERM, errno.EROFS):
        text = _(
            "%(action)s: the Ceph user of rbd_store_user may not do this (%(cause)s). Give it "
            "the capability 'profile rbd' for the monitors, and for the OSDs on the store's "
            "pools"
        )
        return denied(text, action=action, cause=exc)
    return exceptions.BackendException(f"{action}: {exc}")
