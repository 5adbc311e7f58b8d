# SPDX-License-Identifier: Apache-2.0
"""Translates errors of requests, urllib3 and sockets into exceptions of this library.

The originals quote the URL, with passwords and tokens in it: only the words of the operating system
or the TLS library for the cause are kept. They are not chained either, since a chained exception is
logged with the new one.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import TypeVar

import requests
import urllib3.exceptions

from glance_store import exceptions
from glance_store._drivers import _network
from glance_store.i18n import _

_T = TypeVar("_T")

_LONGEST_CAUSE = 200

# UnicodeError: a host name that cannot be encoded.
_TRANSLATED = (*_network.FAILURES, UnicodeError)
# OpenSSL's codes for an unknown authority, as opposed to an expired certificate or another host's.
_UNTRUSTED = (18, 19, 20, 21)
_SILENT = (requests.ReadTimeout, urllib3.exceptions.ReadTimeoutError)
_UNCONNECTED = (requests.ConnectTimeout, urllib3.exceptions.ConnectTimeoutError)
_PROXY = (
    requests.exceptions.ProxyError,
    requests.exceptions.InvalidProxyURL,
    # Locations are http and https: only a proxy can have another scheme.
    requests.exceptions.InvalidSchema,
    urllib3.exceptions.ProxyError,
)
_MALFORMED = (
    requests.exceptions.InvalidURL,
    requests.exceptions.MissingSchema,
    urllib3.exceptions.LocationValueError,
    UnicodeError,
)


class TransferInterrupted(exceptions.RemoteServiceUnavailable):
    """A download broke off and can be resumed."""

    retry_after: float = 0.0  # seconds that the server asks clients to wait


class ServerInTrouble(TransferInterrupted, exceptions.BadStoreUri):
    """The web server answered that it cannot send the file now.

    A BadStoreUri too: 5.x raised that, and image services expect it when they ask for a size.
    """


class RedirectsTooOften(exceptions.MaxRedirectsExceeded, exceptions.BadStoreUri):
    """A BadStoreUri too: image services expect nothing else when they ask for a size."""


def guarded(
    call: Callable[[], _T],
    action: str,
    unreachable: type[exceptions.GlanceStoreException] = exceptions.RemoteServiceUnavailable,
) -> _T:
    """Call a function that uses the network, and translate its errors.

    `action` says what is being tried, without secrets, and begins the text of an error;
    `unreachable` is its class when the server cannot be reached or breaks off.
    """
    try:
        return call()
    except _TRANSLATED as exc:
        error = _translate(exc, action, unreachable)
    # Raised outside the handler, which would make the original its context.
    raise error


def broke_before_answer(exc: requests.ConnectionError) -> bool:
    """Tell whether an established connection ended before the response head was complete."""
    # A failed connect is wrapped differently; behind a proxy everything is wrapped the same way.
    broken = bool(exc.args) and isinstance(exc.args[0], urllib3.exceptions.ProtocolError)
    root = _network.root_of(exc)
    return (broken or isinstance(exc, requests.exceptions.ProxyError)) and (
        isinstance(root, ConnectionError) and not isinstance(root, ConnectionRefusedError)
    )


def _translate(
    exc: BaseException, action: str, unreachable: type[exceptions.GlanceStoreException]
) -> exceptions.GlanceStoreException:
    root = _network.root_of(exc)
    cause = _cause_in_words(root)
    if isinstance(exc, _PROXY):
        text = _("%(action)s: the proxy cannot be used: %(cause)s (option http_proxy_information)")
    elif isinstance(exc, _MALFORMED) or isinstance(root, UnicodeError):
        text, unreachable = _("%(action)s: the URL is not valid"), exceptions.BadStoreUri
    elif isinstance(root, ssl.SSLCertVerificationError) and root.verify_code in _UNTRUSTED:
        text = _(
            "%(action)s: TLS failed: %(cause)s. If a private authority signed the server's "
            "certificate, set https_ca_certificates_file to the file with that authority's "
            "certificate"
        )
    elif isinstance(root, ssl.SSLError):
        text = _("%(action)s: TLS failed: %(cause)s")
    elif isinstance(exc, _UNCONNECTED):
        text = _("%(action)s: no connection within http_store_connect_timeout")
    elif isinstance(exc, _SILENT):
        text = _("%(action)s: the server sent nothing within http_store_read_timeout")
    else:
        text = _("%(action)s: %(cause)s")
    return unreachable(text, action=action, cause=cause)


def _cause_in_words(root: BaseException) -> str:
    if isinstance(root, requests.exceptions.InvalidProxyURL):
        return str(_("its address is not valid"))
    if isinstance(root, requests.exceptions.InvalidSchema):
        return str(_("SOCKS needs the Python package PySocks"))
    cause = _network.in_words(root)
    if cause is None and type(root) is OSError:
        # A missing CA file (from requests), or the refusal of a proxy. Not the subclasses in
        # requests: they quote the URL.
        cause = "".join(char for char in str(root) if char.isprintable())[:_LONGEST_CAUSE]
    return cause or type(root).__name__
