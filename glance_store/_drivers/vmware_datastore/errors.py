# SPDX-License-Identifier: Apache-2.0
"""Translates answers of vSphere and its file server into exceptions of this library.

No text quotes an address or a header, to keep cookies and credentials out of the log.
"""

from __future__ import annotations

import ssl
import xml.sax
from collections.abc import Callable
from typing import Any, TypeVar

import requests

from glance_store import exceptions
from glance_store._drivers import _network
from glance_store.i18n import _
from glance_store.transfer.retry import PASSING, seconds_asked

_T = TypeVar("_T")

_LONGEST_REASON = 200


class DatastoreError(exceptions.GlanceStoreException, exceptions.BackendException):
    """vSphere refused; callers catch this as either of its bases."""


class DatastoreDenied(exceptions.Forbidden, exceptions.BackendException):
    """The user may not do this."""


class DatastoreUnavailable(exceptions.BackendUnavailable, exceptions.BackendException):
    """The server is unreachable or broke off; a retry may work.

    `status` is that of its answer, 0 if there was none.
    """

    status = 0


class ReferenceGone(DatastoreUnavailable):
    """The server no longer knows a managed object; a new lookup may find it under another id."""


class SessionExpired(DatastoreError):  # noqa: N818 - as the others
    """The session has ended; logging in again helps."""


class MethodRefused(DatastoreError):  # noqa: N818 - as the others
    """The server does not support this kind of request."""


class PrivilegeMissing(DatastoreDenied):
    """The user lacks a privilege on an object."""


class LoginRefused(DatastoreDenied):
    """The server rejects the user name or the password."""


# Faults of the vSphere API: https://developer.broadcom.com/xapis/vsphere-web-services-api/latest/
_FAULTS: dict[str, type[exceptions.GlanceStoreException]] = {
    "NotAuthenticated": SessionExpired,
    "InvalidLogin": LoginRefused,
    "NoPermission": PrivilegeMissing,
    "FileNotFound": exceptions.NotFound,
    "FileAlreadyExists": exceptions.Duplicate,
    "FileLocked": exceptions.InUseByStore,
    "CannotDeleteFile": exceptions.InUseByStore,
    "TaskInProgress": exceptions.InUseByStore,
    "ResourceInUse": exceptions.InUseByStore,
    "NoDiskSpace": exceptions.StorageFull,
    # For example after a datastore was unmounted, or a vCenter was set up again.
    "ManagedObjectNotFound": ReferenceGone,
    "HostNotConnected": DatastoreUnavailable,
    "HostNotReachable": DatastoreUnavailable,
    "HostCommunication": DatastoreUnavailable,
    "InvalidDatastoreState": DatastoreUnavailable,
    "InaccessibleDatastore": DatastoreUnavailable,
    "Timedout": DatastoreUnavailable,
}
_HINTS = {
    "NoPermission": _(": the user of vmware_server_username lacks the privilege %(privilege)s"),
    "InvalidLogin": _(": vmware_server_username or vmware_server_password is wrong"),
}


def of_fault(
    name: str, message: str, action: str, details: Any = None
) -> exceptions.GlanceStoreException:
    """Return the error for a fault of the vSphere API; `action` begins its text."""
    hint = str(_HINTS.get(name, ""))
    if hint:
        hint %= {"privilege": (details or {}).get("privilegeId", "")}
    return _FAULTS.get(name, DatastoreError)(
        _("%(action)s: vSphere answers %(fault)s%(words)s%(hint)s"),
        action=action,
        fault=name,
        words=f" ({_plain(message)})" if _plain(message) else "",
        hint=hint,
    )


def refusal(response: requests.Response, action: str) -> exceptions.GlanceStoreException:
    """Return the error for an unsuccessful answer of the file server."""
    status = response.status_code
    kinds: dict[int, type[exceptions.GlanceStoreException]] = {
        401: SessionExpired,
        403: DatastoreDenied,
        404: exceptions.NotFound,
        405: MethodRefused,
        409: exceptions.Duplicate,
        423: exceptions.InUseByStore,
        501: MethodRefused,
        507: exceptions.StorageFull,
    }
    kind = kinds.get(status, DatastoreUnavailable if status in PASSING else DatastoreError)
    error = kind(
        _("%(action)s: the server answers %(status)d %(reason)s"),
        action=action,
        status=status,
        reason=_plain(response.reason or ""),
    )
    if isinstance(error, DatastoreUnavailable):
        error.status = status
        error.retry_after = seconds_asked(
            response.headers.get("Retry-After"), response.headers.get("Date")
        )
    return error


def guarded(call: Callable[[], _T], action: str) -> _T:
    """Call a function that uses the network, and translate its errors."""
    try:
        return call()
    except _network.FAILURES as exc:
        error = _of_network(exc, action)
    # Not chained: the original error quotes the address, and its traceback would be logged.
    raise error


def soap_guarded(call: Callable[[], _T], action: str) -> _T:
    """Call a function that uses the vSphere API, and translate its errors."""
    import suds
    from oslo_vmware import exceptions as vmware

    try:
        return guarded(call, action)
    except vmware.VimFaultException as exc:
        error = of_fault((exc.fault_list or ["?"])[0], str(exc.msg or ""), action, exc.details)
    except vmware.VMwareDriverException as exc:
        error = _of_cause(exc, action)
    except (suds.WebFault, suds.MethodNotFound, suds.TypeNotFound, xml.sax.SAXException) as exc:
        error = DatastoreError(
            _("%(action)s: the server does not speak the vSphere API (%(cause)s)"),
            action=action,
            cause=type(exc).__name__,
        )
    raise error


def _of_cause(exc: Any, action: str) -> exceptions.GlanceStoreException:
    """Translate an oslo.vmware error for a call that the API did not answer."""
    cause = exc.cause
    response = getattr(cause, "response", None)
    if response is not None:
        return refusal(response, action)
    if isinstance(cause, _network.FAILURES):
        return _of_network(cause, action)
    # For example an answer that is not XML, from a proxy or a server that is starting.
    return DatastoreUnavailable(
        _("%(action)s: the answer does not come from the vSphere API (%(cause)s)"),
        action=action,
        cause=type(cause or exc).__name__,
    )


def _of_network(exc: BaseException, action: str) -> exceptions.GlanceStoreException:
    response = getattr(exc, "response", None)
    if response is not None:
        return refusal(response, action)
    root = _network.root_of(exc)
    cause = _network.in_words(root)
    if cause is None and type(root) is OSError:
        # From requests: the CA file is missing.
        cause = _plain(str(root))
    if isinstance(root, ssl.SSLCertVerificationError):
        cause = _(
            "TLS failed: %s. Set vmware_ca_file to the certificate of the CA that signed the "
            "server's certificate"
        ) % (cause or "")
    return DatastoreUnavailable(
        _("%(action)s: %(cause)s"), action=action, cause=cause or type(root).__name__
    )


def _plain(text: str) -> str:
    """Return a text of the server as part of one line."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:_LONGEST_REASON]
