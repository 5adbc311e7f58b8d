# SPDX-License-Identifier: Apache-2.0
"""Errors of requests, urllib3 and the sockets below them, as exceptions of this library.

Their texts quote the URL, and with it passwords and the tokens in a query: nothing of them is
taken over but the operating system's or the TLS library's own words for the cause. They are not
chained either, since a chained exception is printed with the log line of the new one.
"""

from __future__ import annotations

import http.client
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

_TRANSLATED = (
    requests.RequestException,
    urllib3.exceptions.HTTPError,
    http.client.HTTPException,
    OSError,
    # A host name that cannot be encoded, from the depths of the codecs.
    UnicodeError,
)
# OpenSSL's numbers for certificates whose authority is not known, unlike expired ones and those of
# other hosts.
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
    """A download broke off at a place where it can be resumed.

    :ivar retry_after: seconds for which the server wants to be left alone
    """

    retry_after: float = 0.0


def guarded(
    call: Callable[[], _T],
    action: str,
    unreachable: type[exceptions.GlanceStoreException] = exceptions.RemoteServiceUnavailable,
) -> _T:
    """Call a function that uses the network, and translate its errors.

    :param call: the function
    :param action: what is tried, in words without secrets: the beginning of the error's text
    :param unreachable: class of the error when the server cannot be reached or breaks off
    :returns: what the function returns
    :raises BadStoreUri: the URL cannot be used
    """
    try:
        return call()
    except _TRANSLATED as exc:
        error = _translate(exc, action, unreachable)
    # Raised out here: inside, the original would be its context.
    raise error


def broke_before_answer(exc: requests.ConnectionError) -> bool:
    """Tell whether a connection, once made, ended before the head of the answer was complete."""
    # What cannot be connected to is wrapped otherwise; with a proxy all is wrapped alike.
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
            "%(action)s: TLS failed: %(cause)s. When the certificate of the server is signed by a "
            "private authority, name the file with the authority's certificate in the option "
            "https_ca_certificates_file"
        )
    elif isinstance(root, ssl.SSLError):
        text = _("%(action)s: TLS failed: %(cause)s")
    elif isinstance(exc, _UNCONNECTED):
        text = _("%(action)s: no connection in the time of the option http_store_connect_timeout")
    elif isinstance(exc, _SILENT):
        text = _("%(action)s: the server was silent for the time of http_store_read_timeout")
    else:
        text = _("%(action)s: %(cause)s")
    return unreachable(text, action=action, cause=cause)


def _cause_in_words(root: BaseException) -> str:
    if isinstance(root, requests.exceptions.InvalidProxyURL):
        return str(_("its address is not valid"))
    cause = _network.in_words(root)
    if cause is None and type(root) is OSError:
        # A missing file of certificates, from requests, or the refusal of a proxy. The subclasses
        # of requests are not meant: they quote the URL.
        cause = "".join(char for char in str(root) if char.isprintable())[:_LONGEST_CAUSE]
    return cause or type(root).__name__
