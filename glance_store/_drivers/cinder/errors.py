# SPDX-License-Identifier: Apache-2.0
"""Errors of Cinder's and Keystone's clients, os-brick and devices, as exceptions of this library.

Callers have always been told of trouble with Cinder by a `BackendException`, and are told more by
the classes of `GlanceStoreException`: what is raised here is both.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from typing import Any

from glance_store import exceptions
from glance_store.i18n import _
from glance_store.transfer.retry import PASSING

# The server has done nothing but count the request.
_TOO_MANY = 429
_TOO_LARGE = 413
_LONGEST_TEXT = 300
# What an answer raises that lacks what it must contain, such as the page of a proxy.
GARBLED = (TypeError, KeyError, AttributeError, ValueError)
# What an attached volume says whose storage is gone; I/O errors are how the kernel puts it.
_LOST = frozenset(
    {
        *(errno.EIO, errno.ENXIO, errno.ENODEV, errno.EREMOTEIO, errno.ESTALE, errno.ETIMEDOUT),
        *(errno.ENOTCONN, errno.ESHUTDOWN, errno.ECONNRESET, errno.ECONNREFUSED),
        *(errno.ECONNABORTED, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETUNREACH),
    }
)


class CinderError(exceptions.GlanceStoreException, exceptions.BackendException):
    """Cinder, or what attaches its volumes, has refused or failed."""


class VolumeNotFound(exceptions.NotFound, CinderError):  # noqa: N818 - as the library's own
    """There is no such volume, or none that holds an image."""


class VolumeInUse(exceptions.InUseByStore, CinderError):  # noqa: N818 - as the library's own
    """The volume is attached to somebody."""


class VolumeBusy(VolumeInUse):
    """Cinder does not take it now, and its record does not say why."""


class VolumeHasSnapshots(exceptions.HasSnapshot, CinderError):  # noqa: N818 - as the library's own
    """The volume has snapshots."""


class CinderUnavailable(exceptions.BackendUnavailable, CinderError):  # noqa: N818 - as the library's own
    """Cinder or Keystone cannot be reached, or is out of order."""


class CinderGarbled(CinderUnavailable):
    """An answer says nothing: what became of the request is not known."""

    # Seconds for which it is worth bearing: at a wrong address there are no other answers.
    patience = 3.0


class CinderTimeout(exceptions.BackendUnavailable, CinderError):  # noqa: N818 - as the library's own
    """Cinder was silent, or a volume did not get where it should in time."""


class CinderForbids(exceptions.Forbidden, CinderError):  # noqa: N818 - as the library's own
    """The credentials are not good for this."""


class CinderRefusesCredentials(exceptions.NotAuthenticated, CinderError):  # noqa: N818 - as the library's own
    """The credentials are not good for anything."""


class CinderMisconfigured(exceptions.BadStoreConfiguration, CinderError):  # noqa: N818 - as the library's own
    """Cinder does not know what the options of the store name."""


class QuotaExceeded(exceptions.StorageFull, CinderError):  # noqa: N818 - as the library's own
    """The project may have no more volumes or gigabytes."""


def status_of(exc: BaseException) -> int:
    """Return the HTTP status that an error of a client stands for, 0 if none.

    :param exc: of cinderclient or keystoneauth
    """
    for name in ("code", "http_status"):
        status = getattr(exc, name, None)
        if isinstance(status, int):
            return status
    return 0


def _connection_errors() -> tuple[type[BaseException], type[BaseException]]:
    """Return the classes for broken connections and for silence."""
    from keystoneauth1 import exceptions as auth

    return auth.ConnectionError, auth.ConnectTimeout


def is_transient(exc: BaseException) -> bool:
    """Tell whether another try of the same request may work.

    A server that was silent for the whole of the time limit is not asked again.

    :param exc: of cinderclient or keystoneauth
    """
    broken, silent = _connection_errors()
    if isinstance(exc, silent):
        return False
    if isinstance(exc, (broken, CinderGarbled)):
        return True
    return status_of(exc) in PASSING or is_refused_for_now(exc)


def is_refused_for_now(exc: BaseException) -> bool:
    """Tell whether a server has not even begun with a request, which may be sent again.

    :param exc: of cinderclient or keystoneauth, with the seconds that the server wants as
        `retry_after`
    """
    status = status_of(exc)
    # Cinder says 413 where a quota is used up, too, but then it asks nobody to come again.
    return status == _TOO_MANY or (
        status == _TOO_LARGE and float(getattr(exc, "retry_after", 0) or 0) > 0
    )


def text_of(exc: BaseException) -> str:
    """Return what an error says, on one line and not too long.

    :param exc: any exception
    """
    # That of the exception: some classes have one, too, with gaps to be filled.
    text = vars(exc).get("message") or str(exc) or type(exc).__name__
    line = " ".join(str(text).split())
    return line if len(line) <= _LONGEST_TEXT else line[:_LONGEST_TEXT] + "..."


def translate(exc: BaseException, action: str, seconds: float) -> Exception:
    """Return an exception of this library for one of a client.

    :param exc: of cinderclient or keystoneauth
    :param action: what was tried: the beginning of the text
    :param seconds: time limit of a request
    """
    if isinstance(exc, (exceptions.GlanceStoreException, exceptions.BackendException)):
        return exc
    if isinstance(exc, GARBLED):
        return CinderGarbled(
            _("%(action)s: the answer of Cinder cannot be understood (%(kind)s)"),
            action=action,
            kind=type(exc).__name__,
        )
    cause = {"action": action, "cause": text_of(exc)}
    broken, silent = _connection_errors()
    if isinstance(exc, silent):
        return CinderTimeout(
            _("%(action)s: no answer within %(timeout)s seconds (cinder_request_timeout)"),
            action=action,
            timeout=seconds,
        )
    status = status_of(exc)
    if status == 404:
        return VolumeNotFound(_("%(action)s: Cinder does not know it: %(cause)s"), **cause)
    if status == 401:
        return CinderRefusesCredentials(
            _("%(action)s: the credentials are refused: %(cause)s"), **cause
        )
    if (status == _TOO_LARGE and not is_refused_for_now(exc)) or _is_quota(exc, status):
        return QuotaExceeded(
            _("%(action)s: no room, or the quota of the project is used up: %(cause)s"), **cause
        )
    if status == 403:
        return CinderForbids(_("%(action)s: Cinder forbids it: %(cause)s"), **cause)
    if isinstance(exc, broken) or status in PASSING or is_refused_for_now(exc):
        return CinderUnavailable(_("%(action)s: %(cause)s"), **cause)
    return CinderError(_("%(action)s: %(cause)s"), **cause)


def _is_quota(exc: BaseException, status: int) -> bool:
    """Tell whether a request was forbidden because of a quota."""
    words = str(exc).lower()
    return status == 403 and "quota" in words and "exceed" in words


@contextlib.contextmanager
def never_missing() -> Iterator[None]:
    """Have what is missing in an upload reported as a failure: there is no image yet to be found.

    :raises CinderError: something was not found
    """
    try:
        yield
    except VolumeNotFound as exc:
        raise CinderError(str(exc.msg)) from exc


@contextlib.contextmanager
def device_errors(what: str, writing: bool) -> Iterator[None]:
    """Translate errors of reading or writing an attached volume.

    :param what: which volume, for the text
    :param writing: whether it is written
    """
    try:
        yield
    except (exceptions.GlanceStoreException, exceptions.BackendException):
        raise
    except Exception as exc:
        number = getattr(exc, "errno", None)
        # Errors of librbd have the numbers of the operating system, by their sign as well.
        code = abs(number) if isinstance(number, int) else 0
        raise _device_error(exc, code, what, writing) from exc


def _device_error(exc: Exception, code: int, what: str, writing: bool) -> Exception:
    cause: dict[str, Any] = {"what": what, "cause": text_of(exc)}
    if writing and code in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
        return exceptions.StorageFull(_("No room on %(what)s: %(cause)s"), **cause)
    if writing and code in (errno.EACCES, errno.EPERM, errno.EROFS):
        return exceptions.StorageWriteDenied(
            _("This process may not write to %(what)s: %(cause)s"), **cause
        )
    kind = CinderUnavailable if code in _LOST else CinderError
    if writing:
        return kind(_("Writing to %(what)s has failed: %(cause)s"), **cause)
    return kind(_("Reading from %(what)s has failed: %(cause)s"), **cause)
