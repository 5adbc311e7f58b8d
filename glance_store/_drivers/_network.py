# SPDX-License-Identifier: Apache-2.0
"""The cause of a failed connection in plain words, without addresses or secrets."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import ssl
from typing import Any

import requests
import urllib3.exceptions

from glance_store import exceptions
from glance_store.i18n import _

# What a request may raise, from all layers of the client library.
FAILURES = (
    requests.RequestException,
    urllib3.exceptions.HTTPError,
    http.client.HTTPException,
    OSError,
)

_DEEPEST_CAUSE = 12


_Kinds = tuple[type[BaseException], ...]


def root_of(
    exc: BaseException,
    wrappers: _Kinds = (requests.RequestException, urllib3.exceptions.HTTPError),
    ends: _Kinds = (),
) -> BaseException:
    """Return the root cause of an exception: look into `wrappers`, but not into `ends`."""
    for _level in range(_DEEPEST_CAUSE):
        if not isinstance(exc, wrappers) or isinstance(exc, ends):
            break
        inner = [getattr(exc, "reason", None), *exc.args, exc.__cause__, exc.__context__]
        deeper = next((item for item in inner if isinstance(item, BaseException)), None)
        if deeper is None:
            break
        exc = deeper
    return exc


def in_words(root: BaseException) -> str | None:
    """Describe a standard-library exception in the system's or the TLS library's words.

    None for any other exception.
    """
    if isinstance(root, ssl.SSLCertVerificationError):
        return root.verify_message
    if isinstance(root, ssl.SSLError):
        return root.reason or type(root).__name__
    if isinstance(root, http.client.RemoteDisconnected):
        return str(_("the server closed the connection without a response"))
    if isinstance(root, http.client.IncompleteRead):
        return str(_("the connection was closed before the end"))
    if isinstance(root, http.client.HTTPException):
        return str(_("the response is not valid HTTP"))
    if isinstance(root, socket.timeout):
        return str(_("the connection timed out"))
    if isinstance(root, OSError) and root.strerror:
        return root.strerror
    return None


def check_authorities(path: str, directories: bool = True) -> None:
    """Load CA certificates from a file or directory; OSError if there are none to load."""
    kind = "capath" if directories and os.path.isdir(path) else "cafile"
    ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(**{kind: path})


def check_option(option: str, path: str, directories: bool = True) -> None:
    """Raise BadStoreConfiguration if an option names no CA certificates."""
    try:
        check_authorities(path, directories)
    except OSError as exc:
        raise exceptions.BadStoreConfiguration(
            _("%(option)s = %(path)s cannot be used, it must name certificates: %(cause)s")
            % {"option": option, "path": path, "cause": in_words(exc) or exc}
        ) from exc


def break_off(response: Any) -> None:
    """Shut a urllib3 response's connection down, so that a read in another thread ends."""
    connection = getattr(response, "connection", None)
    sock = getattr(connection, "sock", None)
    if not isinstance(sock, socket.socket):
        return
    with contextlib.suppress(OSError):
        # Not SSLSocket.shutdown(): it drops the TLS layer, and the reader would take ciphertext for
        # data.
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


def ignore_netrc(session: requests.Session) -> None:
    """Keep requests from sending what a .netrc file has for the server, or for all of them."""
    session.auth = lambda request: request
