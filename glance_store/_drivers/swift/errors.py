# SPDX-License-Identifier: Apache-2.0
"""Turns answers of Swift and the identity service into exceptions of this library."""

from __future__ import annotations

import http.client
import re
import ssl
from typing import Any

import requests
import urllib3.exceptions

from glance_store import exceptions
from glance_store._drivers import _network
from glance_store._drivers._objects.errors import NameTaken, NoResult, NotSeenYet
from glance_store.i18n import _
from glance_store.transfer.retry import PASSING as _PASSING
from glance_store.transfer.retry import seconds_asked

# 498 is Swift's status for too many requests.
PASSING = _PASSING | {498}
_LONGEST_REASON = 80
# Bytes of a refusal's body to read, and characters of it to show.
_LONGEST_BODY, _TOLD = 16 * 1024, 300

# With 400, Swift refuses a manifest: a segment is not visible (yet), or its server fails.
_SEGMENT_NOT_SEEN = re.compile(r"\b(404 Not Found|408 Request Timeout|5\d\d [A-Z])")
# Each response of Swift has some of these headers.
_OF_SWIFT = ("etag", "x-trans-id", "x-timestamp", "x-openstack-request-id")
# By status: the media types of pages that proxies send instead of a response of Swift.
_PAGES = {200: ("text/html",), 404: ("text/", "application/json")}

NETWORK = (
    urllib3.exceptions.HTTPError,
    http.client.HTTPException,
    OSError,
    # The address that a response redirects to.
    UnicodeError,
)
# Mistakes in the configuration, which another try cannot cure.
_MISTAKES = (
    requests.exceptions.InvalidURL,
    requests.exceptions.InvalidSchema,
    requests.exceptions.MissingSchema,
    requests.exceptions.InvalidProxyURL,
    urllib3.exceptions.ProxySchemeUnknown,
    urllib3.exceptions.LocationParseError,
)


class SwiftError(exceptions.GlanceStoreException, exceptions.BackendException):
    """Swift or the identity service refused; callers may catch either base."""

    message = _("Swift refused the request.")


class SwiftDenied(exceptions.Forbidden, exceptions.BackendException):
    """The account may not do this."""


class SwiftUnavailable(exceptions.BackendUnavailable, exceptions.BackendException):
    """Swift or the identity service cannot be reached, or broke off; another try may work."""


class NoEndpointError(exceptions.NoServiceEndpoint, exceptions.BackendException):
    """The service catalogue does not list Swift."""

    message = _(
        "The service catalogue has no object store of the configured type, interface and region: "
        "check swift_store_service_type, swift_store_endpoint_type and swift_store_region, or set "
        "swift_store_endpoint"
    )


class TokenRefusedError(SwiftError):
    """The token is no longer valid, or not valid for this account."""


class TokenNotKnownError(TokenRefusedError, SwiftUnavailable):
    """A new token was refused; not all servers may know it, or its key, yet."""

    patience = 5.0


class ConflictError(SwiftUnavailable):
    """Another request changed the same object or container at the same moment."""

    patience = 5.0


class ContainerMissingError(SwiftUnavailable, NotSeenYet):
    """A container is missing that existed a moment ago."""

    # Proxies remember for six seconds that a container was missing.
    patience = 10.0


_FULL = (
    exceptions.StorageFull,
    _(": the cluster is full, or the image exceeds a quota or the largest object size"),
)
# By status: the exception, and a hint.
_REFUSALS: dict[int, tuple[type[exceptions.GlanceStoreException], str]] = {
    **dict.fromkeys(PASSING, (SwiftUnavailable, "")),
    401: (
        TokenRefusedError,
        _(
            ": the token is refused; it has expired or was revoked, or the account may not use "
            "this storage"
        ),
    ),
    403: (SwiftDenied, _(": the account may not do this")),
    409: (ConflictError, ""),
    412: (NameTaken, ""),
    413: _FULL,
    507: _FULL,
}


def refusal(
    response: Any, action: str, image: str, renewed: bool = False
) -> exceptions.GlanceStoreException:
    """Return the error for a response that is not a success.

    `action` begins the text, and must contain no secret. `renewed` says that the token was a new
    one.
    """
    status = response.status_code
    answer = f"{status} {_printable(response.reason or '')[:_LONGEST_REASON]}".rstrip()
    said = _said(response)
    error: exceptions.GlanceStoreException
    if status == 404:
        error = exceptions.NotFound(
            _("Image %(image)s not found: %(action)s: Swift has no such object or container"),
            image=image,
            action=action,
        )
    else:
        kind, hint = _REFUSALS.get(status, (SwiftError, ""))
        transaction = _printable(response.headers.get("x-trans-id", ""))[:_LONGEST_REASON]
        if renewed and kind is TokenRefusedError:
            kind = TokenNotKnownError
        elif status == 400 and _SEGMENT_NOT_SEEN.search(said):
            kind = SwiftUnavailable
        error = kind(
            _("%(action)s: Swift answered '%(answer)s'%(said)s%(hint)s%(transaction)s"),
            action=action,
            answer=answer,
            said=f" ({said[:_TOLD]})" if said else "",
            hint=hint,
            transaction=_(" (transaction %s)") % transaction if transaction else "",
        )
    error.status = status  # type: ignore[attr-defined]
    if isinstance(error, exceptions.BackendUnavailable):
        error.retry_after = _seconds_asked(response)
    return error


def _seconds_asked(response: Any) -> float:
    return seconds_asked(response.headers.get("retry-after"), response.headers.get("date"))


def _said(response: Any) -> str:
    """Return the body of a refusal, if it is short and meant for people."""
    length = str(response.headers.get("content-length", ""))
    if not length.isdecimal() or not 0 < int(length) <= _LONGEST_BODY:
        return ""
    try:
        text: str = response.content.decode("utf-8", "replace")
    except (*NETWORK, RuntimeError):
        return ""
    # An HTML page only repeats the status in many words.
    return "" if text.lstrip().startswith("<") else _printable(text)


def _printable(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def check_source(response: Any, action: str) -> None:
    """Raise NoResult for a page of a proxy, such as a login page, or its own 404."""
    headers = response.headers
    kinds = _PAGES.get(response.status_code, ())
    # Swift calls even its empty responses text/html.
    if (
        headers.get("content-type", "").lower().startswith(kinds)
        and headers.get("content-length") != "0"
        and not any(name in headers for name in _OF_SWIFT)
    ):
        response.close()
        raise foreign(response, action)


def check_object(response: Any, action: str) -> None:
    """Raise NoResult for a success that is not Swift's: an object has an ETag, for example."""
    if not any(name in response.headers for name in _OF_SWIFT):
        raise foreign(response, action)


def foreign(response: Any, action: str) -> NoResult:
    """Return the error for a response that is not Swift's."""
    return NoResult(
        _("%(action)s: the answer %(status)d is not Swift's: look for a proxy"),
        action=action,
        status=response.status_code,
    )


def is_unknown_feature(error: BaseException) -> bool:
    """Tell whether the server may have refused a header that it does not know."""
    return is_unsupported(error) or (
        isinstance(error, SwiftError) and getattr(error, "status", 0) in (400, 417)
    )


def is_unsupported(error: BaseException) -> bool:
    """Tell whether the server, or a proxy, does not support a kind of request."""
    return isinstance(error, SwiftError) and getattr(error, "status", 0) in (405, 501)


def unreachable(exc: BaseException, action: str) -> exceptions.GlanceStoreException:
    """Return the error for a request that got no response."""
    if isinstance(exc, (requests.exceptions.TooManyRedirects, UnicodeError)):
        return SwiftError(
            _(
                "%(action)s: the server redirects to another address, which gets no token: check "
                "the address of Swift in the catalogue or in swift_store_endpoint"
            ),
            action=action,
        )
    root = _root_of(exc)
    # From requests itself, before anything is sent: the file of authorities is missing.
    unread = type(exc) is OSError and "CA certificate bundle" in str(exc)
    if unread or isinstance(exc, _MISTAKES):
        return SwiftError(
            _(
                "%(action)s: an option is wrong (%(cause)s): check swift_store_cacert and the "
                "addresses of Swift and of the proxy"
            ),
            action=action,
            cause=_("the CA certificates cannot be read") if unread else type(exc).__name__,
        )
    return SwiftUnavailable(_("%(action)s: %(cause)s"), action=action, cause=_cause_in_words(root))


def identity_failure(exc: BaseException, action: str) -> exceptions.GlanceStoreException:
    """Return the error for what keystoneauth raised."""
    # An exception of requests that keystoneauth reports as a network failure.
    original = getattr(exc, "original", exc)
    if isinstance(original, _MISTAKES):
        return unreachable(original, action)
    status = getattr(exc, "http_status", None)
    response = getattr(exc, "response", None)
    if type(exc).__name__ == "InvalidResponse" or (status == 404 and _is_page(response)):
        return NoResult(
            _(
                "%(action)s: the answer is not that of the identity service: look for a proxy, or "
                "check the address"
            ),
            action=action,
        )
    # The texts of keystoneauth quote the server's response: pass on only what is known to be
    # harmless.
    if status is not None:
        answer = _("%(action)s: the identity service answered %(status)s") % {
            "action": action,
            "status": status,
        }
        if status not in PASSING:
            return SwiftError(
                _(
                    "%(answer)s; check the address, project, user and password of the store, or "
                    "its application credential"
                ),
                answer=answer,
            )
        error = SwiftUnavailable(answer)
        if response is not None:
            error.retry_after = _seconds_asked(response)
        return error
    if type(exc).__name__ in _NO_ENDPOINT:
        return NoEndpointError()
    if type(exc).__name__ in _CONNECTION_FAILURES:
        return SwiftUnavailable(
            _("%(action)s: the identity service cannot be reached (%(cause)s)"),
            action=action,
            cause=_cause_in_words(_root_of(exc)),
        )
    if isinstance(exc, NETWORK):
        return unreachable(exc, action)
    return SwiftError(
        _("%(action)s: the identity service cannot be used (%(cause)s)"),
        action=action,
        cause=type(exc).__name__,
    )


def _is_page(response: Any) -> bool:
    media = "" if response is None else str(response.headers.get("content-type", ""))
    return media.lower().startswith("text/")


# By name, because keystoneauth is imported only where it is used.
_CONNECTION_FAILURES = frozenset(
    {"ConnectFailure", "ConnectTimeout", "ConnectionError", "UnknownConnectionError", "SSLFailure"}
)
_NO_ENDPOINT = frozenset({"EndpointNotFound", "EmptyCatalog", "CatalogException"})


def _root_of(exc: BaseException) -> BaseException:
    # All exceptions, so that those of keystoneauth, which is not imported here, are unwrapped too.
    return _network.root_of(exc, (Exception,), (ssl.SSLError, http.client.HTTPException))


def _cause_in_words(root: BaseException) -> str:
    if isinstance(root, ssl.SSLCertVerificationError):
        return str(
            _(
                "the certificate of the server is not trusted (%(cause)s); set swift_store_cacert "
                "to the file with the authority's certificate"
            )
            % {"cause": root.verify_message}
        )
    if isinstance(root, (TimeoutError, requests.Timeout, urllib3.exceptions.TimeoutError)):
        return str(_("no answer within swift_store_connect_timeout or swift_store_read_timeout"))
    if isinstance(root, urllib3.exceptions.IncompleteRead):
        return str(_("the connection was closed before the end"))
    return _network.in_words(root) or type(root).__name__
