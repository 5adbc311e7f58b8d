# SPDX-License-Identifier: Apache-2.0
"""Why a connection failed, in words that quote no address and no secret."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
from typing import Any

import requests
import urllib3.exceptions

from glance_store.i18n import _

_DEEPEST_CAUSE = 12


_Kinds = tuple[type[BaseException], ...]


def root_of(
    exc: BaseException,
    wrappers: _Kinds = (requests.RequestException, urllib3.exceptions.HTTPError),
    ends: _Kinds = (),
) -> BaseException:
    """Return the innermost exception that others are wrapped around.

    :param exc: what the client library has raised
    :param wrappers: classes of those that are looked into
    :param ends: classes of those that are not
    """
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
    """Return what went wrong on a connection, in the words of the system or the TLS library.

    :param root: the innermost exception: of the standard library, not one of a client around it
    :returns: the cause; None for an exception of another kind
    """
    if isinstance(root, ssl.SSLCertVerificationError):
        return root.verify_message
    if isinstance(root, ssl.SSLError):
        return root.reason or type(root).__name__
    if isinstance(root, http.client.RemoteDisconnected):
        return str(_("the server closed the connection without an answer"))
    if isinstance(root, http.client.IncompleteRead):
        return str(_("the connection was closed before the end"))
    if isinstance(root, http.client.HTTPException):
        return str(_("the answer is not valid HTTP"))
    if isinstance(root, socket.timeout):
        return str(_("the time limit has passed"))
    if isinstance(root, OSError) and root.strerror:
        return root.strerror
    return None


def break_off(response: Any) -> None:
    """End the reading of an answer in another thread: it sees the end of the connection.

    :param response: of urllib3
    """
    connection = getattr(response, "connection", None)
    sock = getattr(connection, "sock", None)
    if not isinstance(sock, socket.socket):
        return
    with contextlib.suppress(OSError):
        # Not that of a TLS socket, which would go on to read what is encrypted as it comes.
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
