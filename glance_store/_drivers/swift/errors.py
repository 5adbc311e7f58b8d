# SPDX-License-Identifier: Apache-2.0
"""What Swift and the identity service answer, as exceptions of the library."""

from __future__ import annotations

import http.client
import socket
import ssl

import urllib3
import urllib3.exceptions

from glance_store import exceptions
from glance_store._drivers import _network
from glance_store.i18n import _

# Answers that another try may cure: too early, too often, or the server is not well.
PASSING = frozenset({408, 425, 429, 498, 499, 500, 502, 503, 504})
_FULL = frozenset({413, 507})
_LONGEST_REASON = 80
_DEEPEST_CAUSE = 8

NETWORK = (
    urllib3.exceptions.HTTPError,
    http.client.HTTPException,
    OSError,
)


class SwiftError(exceptions.GlanceStoreException, exceptions.BackendException):
    """Swift or the identity service refuses; callers catch it by either of its bases."""

    message = _("Swift refuses the request.")


class SwiftDenied(exceptions.Forbidden, exceptions.BackendException):
    """The account may not do this."""


class SwiftUnavailable(exceptions.BackendUnavailable, exceptions.BackendException):
    """Swift or the identity service cannot be reached, or breaks off; another try may work."""


class NoEndpointError(exceptions.NoServiceEndpoint, exceptions.BackendException):
    """The service catalogue does not say where Swift is."""

    message = _(
        "The service catalogue has no object store of the configured type, interface and region: "
        "look at swift_store_service_type, swift_store_endpoint_type and swift_store_region, or "
        "set swift_store_endpoint"
    )


class TokenRefusedError(SwiftError):
    """The token is not good any more, or not good for this account."""


class NameTakenError(SwiftError):
    """There is an object of this name."""

    message = _("There is an object of this name in Swift.")


class DamagedError(SwiftUnavailable):
    """What has arrived is not what was sent."""


def refusal(
    status: int, reason: str | None, action: str, image: str
) -> exceptions.GlanceStoreException:
    """Return the error for an answer that is no success, ready to raise.

    :param status: of the answer
    :param reason: the words that came with it
    :param action: what was tried, in words without secrets: the beginning of the text
    :param image: how the image is called in errors
    """
    words = "".join(char for char in reason or "" if char.isprintable())
    answer = f"{status} {words[:_LONGEST_REASON]}".rstrip()
    if status == 404:
        return exceptions.NotFound(
            _("Image %(image)s not found: %(action)s: Swift has no such object or container"),
            image=image,
            action=action,
        )
    if status in _FULL:
        return exceptions.StorageFull(
            _(
                "%(action)s: Swift answered '%(answer)s': the cluster is full, or a quota or the "
                "largest size of an object is exceeded"
            ),
            action=action,
            answer=answer,
        )
    if status == 403:
        return SwiftDenied(
            _("%(action)s: Swift answered '%(answer)s': the account may not do this"),
            action=action,
            answer=answer,
        )
    if status in PASSING:
        return SwiftUnavailable(
            _("%(action)s: Swift answered '%(answer)s'"), action=action, answer=answer
        )
    if status == 401:
        return TokenRefusedError(
            _(
                "%(action)s: Swift answered '%(answer)s': the token is refused; it has expired or "
                "was revoked, or the account may not use this storage"
            ),
            action=action,
            answer=answer,
        )
    return SwiftError(_("%(action)s: Swift answered '%(answer)s'"), action=action, answer=answer)


def unreachable(exc: BaseException, action: str) -> SwiftUnavailable:
    """Return the error for a request that got no answer, ready to raise.

    :param exc: what the network raised
    :param action: what was tried, in words without secrets
    """
    return SwiftUnavailable(
        _("%(action)s: %(cause)s"), action=action, cause=_cause_in_words(_root_of(exc))
    )


def identity_failure(exc: BaseException, action: str) -> exceptions.GlanceStoreException:
    """Return the error for what keystoneauth raised, ready to raise.

    :param exc: the exception
    :param action: what was tried, in words without secrets
    """
    status = getattr(exc, "http_status", None)
    # The texts of keystoneauth quote the answer of the server: only what is known to be harmless is
    # passed on.
    if status is not None:
        kind: type[exceptions.GlanceStoreException] = (
            SwiftUnavailable if status in PASSING else SwiftError
        )
        return kind(
            _(
                "%(action)s: the identity service answered %(status)s; check address, project, "
                "user and password, or the application credential, of the store"
            ),
            action=action,
            status=status,
        )
    if type(exc).__name__ in _NO_ENDPOINT:
        return NoEndpointError()
    if type(exc).__name__ in _CONNECTION_FAILURES:
        return SwiftUnavailable(
            _("%(action)s: the identity service cannot be reached (%(cause)s)"),
            action=action,
            cause=_cause_in_words(_root_of(exc)),
        )
    return SwiftError(
        _("%(action)s: the identity service cannot be used (%(cause)s)"),
        action=action,
        cause=type(exc).__name__,
    )


# By name: keystoneauth is imported where it is used.
_CONNECTION_FAILURES = frozenset(
    {"ConnectFailure", "ConnectTimeout", "ConnectionError", "UnknownConnectionError", "SSLFailure"}
)
_NO_ENDPOINT = frozenset({"EndpointNotFound", "EmptyCatalog", "CatalogException"})


def _root_of(exc: BaseException) -> BaseException:
    """Return the exception that others are wrapped around."""
    for _level in range(_DEEPEST_CAUSE):
        if isinstance(exc, (ssl.SSLError, http.client.HTTPException)):
            break
        inner = [getattr(exc, "reason", None), *exc.args, exc.__cause__, exc.__context__]
        deeper = next((item for item in inner if isinstance(item, BaseException)), None)
        if deeper is None:
            break
        exc = deeper
    return exc


def _cause_in_words(root: BaseException) -> str:
    if isinstance(root, ssl.SSLCertVerificationError):
        return str(
            _(
                "the certificate of the server is not trusted (%(cause)s); name the file with the "
                "authority's certificate in the option swift_store_cacert"
            )
            % {"cause": root.verify_message}
        )
    if isinstance(
        root,
        (socket.timeout, urllib3.exceptions.TimeoutError, urllib3.exceptions.ReadTimeoutError),
    ):
        return str(
            _("no answer in the time of swift_store_connect_timeout or swift_store_read_timeout")
        )
    if isinstance(root, urllib3.exceptions.IncompleteRead):
        return str(_("the connection was closed before the end"))
    return _network.in_words(root) or type(root).__name__
