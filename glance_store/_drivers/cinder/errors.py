# SPDX-License-Identifier: Apache-2.0
"""Translates errors of Cinder and Keystone clients, os-brick and devices.

Callers have always caught trouble with Cinder as `BackendException`; the classes of
`GlanceStoreException` say more. The exceptions raised here are both.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from typing import Any

from glance_store import exceptions
from glance_store.i18n import _
from glance_store.transfer.retry import PASSING

# The server only counted the request.
_TOO_MANY = 429
_TOO_LARGE = 413
_LONGEST_TEXT = 300
# What an incomplete answer raises, such as a proxy's error page.
GARBLED = (TypeError, KeyError, AttributeError, ValueError)
# Errors of an attached volume whose storage is gone; the kernel reports it as an I/O error.
_LOST = frozenset(
    {
        *(errno.EIO, errno.ENXIO, errno.ENODEV, errno.EREMOTEIO, errno.ESTALE, errno.ETIMEDOUT),
        *(errno.ENOTCONN, errno.ESHUTDOWN, errno.ECONNRESET, errno.ECONNREFUSED),
        *(errno.ECONNABORTED, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETUNREACH),
    }
)


class CinderError(exceptions.GlanceStoreException, exceptions.BackendException):
    """Cinder, or what attaches its volumes, refused or failed."""


class VolumeNotFound(exceptions.NotFound, CinderError):  # noqa: N818 - as the library's own
    """The volume does not exist, or holds no image."""


class VolumeInUse(exceptions.InUseByStore, CinderError):  # noqa: N818 - as the library's own
    """The volume is attached."""


class VolumeBusy(VolumeInUse):
    """Cinder refuses the request for now, and the volume's record does not say why."""


class VolumeHasSnapshots(exceptions.HasSnapshot, CinderError):  # noqa: N818 - as the library's own
    """The volume has snapshots."""


class CinderUnavailable(exceptions.BackendUnavailable, CinderError):  # noqa: N818 - as the library's own
    """Cinder or Keystone is unreachable or broken."""


class CinderGarbled(CinderUnavailable):
    """The answer makes no sense: the outcome of the request is unknown."""

    # Seconds to retry: at a wrong address, all answers look like this.
    patience = 3.0


class CinderTimeout(CinderUnavailable):
    """Cinder did not answer, or a volume did not reach its state, in time."""

    # Who was silent for the whole timeout is not asked again.
    patience = 0.0


class CinderForbids(exceptions.Forbidden, CinderError):  # noqa: N818 - as the library's own
    """The credentials do not permit this."""


class CinderRefusesCredentials(exceptions.NotAuthenticated, CinderError):  # noqa: N818 - as the library's own
    """Cinder or Keystone rejects the credentials."""


class CinderMisconfigured(exceptions.BadStoreConfiguration, CinderError):  # noqa: N818 - as the library's own
    """Cinder does not know something that the store's options name."""


class QuotaExceeded(exceptions.StorageFull, CinderError):  # noqa: N818 - as the library's own
    """The project's quota allows no more volumes or gigabytes."""


def status_of(exc: BaseException) -> int:
    """Return the HTTP status of a client's error, or 0."""
    for name in ("code", "http_status"):
        status = getattr(exc, name, None)
        if isinstance(status, int):
            return status
    return 0


def _of_keystone() -> Any:
    """Return keystoneauth's exceptions, which only this driver needs."""
    from keystoneauth1 import exceptions as found

    return found


def is_transient(exc: BaseException) -> bool:
    """Tell whether retrying the same request may help.

    A server that stayed silent for the whole timeout is not asked again.
    """
    auth = _of_keystone()
    if isinstance(exc, auth.ConnectTimeout):
        return False
    passes = isinstance(exc, (auth.ConnectionError, *GARBLED)) or status_of(exc) in PASSING
    return passes or is_refused_for_now(exc)


def is_refused_for_now(exc: BaseException) -> bool:
    """Tell whether the server did not start on the request, so that it may be sent again."""
    status = status_of(exc)
    # Cinder also answers 413 for an exhausted quota, but then without Retry-After.
    return status == _TOO_MANY or (
        status == _TOO_LARGE and float(getattr(exc, "retry_after", 0) or 0) > 0
    )


def text_of(exc: BaseException) -> str:
    """Return an error's text, on one line and not too long."""
    # The instance's own: some classes have a `message` too, with placeholders.
    text = vars(exc).get("message") or str(exc) or type(exc).__name__
    line = " ".join(str(text).split())
    return line if len(line) <= _LONGEST_TEXT else line[:_LONGEST_TEXT] + "..."


def translate(exc: BaseException, action: str, seconds: float) -> Exception:
    """Return an exception of this library for a client's error; `action` begins its text."""
    if isinstance(exc, (exceptions.GlanceStoreException, exceptions.BackendException)):
        return exc
    if isinstance(exc, GARBLED):
        return CinderGarbled(
            _("%(action)s: Cinder's answer makes no sense (%(kind)s)"),
            action=action,
            kind=type(exc).__name__,
        )
    cause = {"action": action, "cause": text_of(exc)}
    auth = _of_keystone()
    if isinstance(exc, auth.CatalogException):
        return CinderMisconfigured(
            _("%(action)s: %(cause)s; correct cinder_catalog_info or cinder_os_region_name"),
            **cause,
        )
    if isinstance(exc, auth.ConnectTimeout):
        return CinderTimeout(
            _("%(action)s: no answer within %(timeout)s seconds (cinder_request_timeout)"),
            action=action,
            timeout=seconds,
        )
    status = status_of(exc)
    # Keystone knows nothing of volumes.
    if status == 404 and not isinstance(exc, auth.HttpError):
        return VolumeNotFound(_("%(action)s: not found in Cinder: %(cause)s"), **cause)
    if status == 401:
        return CinderRefusesCredentials(
            _("%(action)s: the credentials are rejected: %(cause)s"), **cause
        )
    words = str(exc).lower()
    of_quota = status == 403 and "quota" in words and "exceed" in words
    if of_quota or (status == _TOO_LARGE and not is_refused_for_now(exc)):
        return QuotaExceeded(
            _("%(action)s: no space, or the project's quota is used up: %(cause)s"), **cause
        )
    if status == 403:
        return CinderForbids(_("%(action)s: Cinder forbids it: %(cause)s"), **cause)
    if is_transient(exc):
        outage = CinderUnavailable(_("%(action)s: %(cause)s"), **cause)
        outage.retry_after = float(getattr(exc, "retry_after", 0) or 0)
        return outage
    return CinderError(_("%(action)s: %(cause)s"), **cause)


@contextlib.contextmanager
def never_missing() -> Iterator[None]:
    """Raise CinderError for VolumeNotFound.

    During an upload there is no image to be found yet, so something missing is a failure.
    """
    try:
        yield
    except VolumeNotFound as exc:
        raise CinderError(str(exc.msg)) from exc


@contextlib.contextmanager
def device_errors(volume_id: str, writing: bool) -> Iterator[None]:
    """Translate errors of reading or writing an attached volume."""
    try:
        yield
    except (exceptions.GlanceStoreException, exceptions.BackendException):
        raise
    except Exception as exc:
        raise _device_error(exc, volume_id, writing) from exc


def number_of(exc: BaseException | None) -> int:
    """Return the errno value of an error, or of the one behind it; 0: none."""
    while exc is not None:
        number = getattr(exc, "errno", None)
        if isinstance(number, int):
            # librbd negates them.
            return abs(number)
        exc = exc.__cause__ or exc.__context__
    return 0


def kind_of(exc: BaseException) -> type[CinderError]:
    """Return the class for an error of an attached volume: an outage if its storage is gone."""
    return CinderUnavailable if number_of(exc) in _LOST else CinderError


def _device_error(exc: Exception, volume_id: str, writing: bool) -> Exception:
    cause: dict[str, Any] = {"volume": volume_id, "cause": text_of(exc)}
    code = number_of(exc)
    if writing and code in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
        return exceptions.StorageFull(_("No space on volume %(volume)s: %(cause)s"), **cause)
    if writing and code in (errno.EACCES, errno.EPERM, errno.EROFS):
        return exceptions.StorageWriteDenied(
            _("This process may not write to volume %(volume)s: %(cause)s"), **cause
        )
    kind = kind_of(exc)
    if writing:
        return kind(_("Writing to volume %(volume)s failed: %(cause)s"), **cause)
    return kind(_("Reading from volume %(volume)s failed: %(cause)s"), **cause)
