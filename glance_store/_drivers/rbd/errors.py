# SPDX-License-Identifier: Apache-2.0
"""Errors of Ceph's bindings as exceptions of this library."""

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
# After these the connection cannot be relied on: the cluster is silent, or shuts this client out.
LOST = (errno.ETIMEDOUT, errno.ESHUTDOWN, errno.ENOTCONN)
_REFUSED = (errno.EACCES, errno.EPERM)
# A file is missing, or the user is not one of the cluster.
_MISTAKES = (errno.ENOENT, errno.EACCES, errno.EPERM, errno.EINVAL)

# Seconds by which Ceph's own time-outs, which say more, come first.
_GRACE = 0.5


class Link(Protocol):
    """What has to be known of a connection when an operation on it fails."""

    @property
    def timeout(self) -> float:
        """Seconds that an operation may take; 0 for any time."""
        ...

    def retire(self) -> None:
        """Use the connection for nothing new."""
        ...

    def lose(self) -> None:
        """Take note that the cluster does not answer, or answers this client no more."""
        ...


class NotAvailable(exceptions.BackendUnavailable):
    """The cluster does not take orders from this connection any more; another may work."""


# Callers have always caught trouble with the connection as a `BackendException`, or, with several
# stores, as a `BadStoreConfiguration`: both classes are both.
class ClusterRefused(exceptions.BadStoreConfiguration, exceptions.BackendException):
    """The cluster cannot be used with these options."""


class ClusterUnreachable(
    exceptions.BackendUnavailable, exceptions.BadStoreConfiguration, exceptions.BackendException
):
    """The cluster cannot be reached; it may come back."""


def unusable(number: int | None) -> type[ClusterRefused | ClusterUnreachable]:
    """Return the class of the error for a cluster that cannot be connected to.

    :param number: error number of the attempt
    """
    return ClusterRefused if number in _MISTAKES else ClusterUnreachable


def is_native(exc: BaseException) -> bool:
    """Tell whether an exception comes from Ceph's bindings."""
    return any(kind.__module__ in _MODULES for kind in type(exc).__mro__)


def native_errors() -> tuple[type[Exception], ...]:
    """Return the base classes of all errors of the bindings."""
    return tuple(sys.modules[name].Error for name in _MODULES if name in sys.modules)


def number_of(exc: BaseException) -> int | None:
    """Return the error number of an exception of the bindings, None for any other exception."""
    return abs(getattr(exc, "errno", None) or 0) if is_native(exc) else None


def is_lost(exc: BaseException) -> bool:
    """Tell whether an error, native or translated, says that the cluster is out of reach."""
    if isinstance(exc, (exceptions.TimeoutError, NotAvailable)):
        return True
    return number_of(exc) in LOST


@contextlib.contextmanager
def expected(*numbers: int) -> Iterator[None]:
    """Go on after the block when it fails with one of some error numbers.

    :param numbers: such as `errno.ENOENT`
    """
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

    :param action: what is tried: the beginning of the error's text
    :param link: the connection, which is retired when the cluster is out of reach or refuses this
    :param image: name of the image
    :param denied: class of the error when the cluster's user may not do this
    :raises GlanceStoreException: of the class that fits the error
    :raises BackendException: no class fits
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
            # A client keeps the rights that it had when it connected.
            link.retire()
        raise _translate(exc, action, link, image, denied) from exc


def bounded_calls(link: Link, threads: int) -> Calls:
    """Return what bounds calls that may take several operations to the time of one.

    Ceph's time-outs are for each operation, and a write to a lost cluster may have to wait for a
    dozen of them, one after the other.

    :param link: the connection
    :param threads: maximum number of calls at once
    """
    return Calls(link.timeout and link.timeout + _GRACE, threads, "glance_store-rbd-call")


def bounded(calls: Calls, call: Callable[[], _T], action: str, link: Link) -> _T:
    """Call a function in time; nobody takes notice of the end of one that is late.

    :param calls: bounds the time
    :param call: the function, which raises errors of the bindings
    :param action: what is tried: the beginning of the error's text
    :param link: the connection, which is retired when the time is over
    :raises TimeoutError: the time is over
    """
    try:
        return calls.call(call)
    except exceptions.TimeoutError:
        link.lose()
        raise _timed_out(action, link) from None


def _timed_out(action: str, link: Link) -> exceptions.BackendUnavailable:
    return exceptions.BackendUnavailable(
        _(
            "%(action)s: the Ceph cluster did not answer within %(timeout)g seconds (option "
            "rados_connect_timeout). See whether its monitors and OSDs are up"
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
        text = _("%(action)s: it is in use by another client, a clone or a snapshot (%(cause)s)")
        return exceptions.InUseByStore(text, action=action, cause=exc)
    if number in (errno.ENOSPC, errno.EDQUOT):
        text = _("%(action)s: the pool is full, or over its quota (%(cause)s)")
        return exceptions.StorageFull(text, action=action, cause=exc)
    if number in (errno.EACCES, errno.EPERM, errno.EROFS):
        text = _(
            "%(action)s: the Ceph user of rbd_store_user may not do this (%(cause)s). Give it the "
            "capabilities 'profile rbd' for the monitors, and for the OSDs on the pools of the "
            "store"
        )
        return denied(text, action=action, cause=exc)
    return exceptions.BackendException(f"{action}: {exc}")
