# SPDX-License-Identifier: Apache-2.0
"""urllib3 connections that apply the read timeout while sending and read malformed heads."""

from __future__ import annotations

import errno
import os
import socket
import ssl
from typing import Any

import requests.adapters
import urllib3.connection

from glance_store._drivers._head import Response

# Idle connections to keep per server: enough for the threads of a busy service.
_POOL_SIZE = 64
# Probe idle connections, as keystoneauth does: a firewall that has forgotten one drops its packets,
# and the next request on it would wait for the read timeout.
_KEEP_ALIVE = (
    *urllib3.connection.HTTPConnection.default_socket_options,
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    *(
        (socket.IPPROTO_TCP, getattr(socket, name), value)
        for name, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4))
        if hasattr(socket, name)
    ),
)


class _SendTimeoutConnection(urllib3.connection.HTTPConnection):
    """A connection that applies the read timeout while it sends a request.

    urllib3 keeps the connect timeout until a request is sent: a server whose busy disks accept no
    data for some seconds would lose the upload.
    """

    response_class = Response
    send_timeout: float  # seconds of silence

    def connect(self) -> None:
        """Connect, then switch to the other timeout."""
        super().connect()
        self._apply_timeout()

    def putrequest(self, *args: Any, **kwargs: Any) -> None:
        """Begin a request; a reused connection still has the timeout of its last one."""
        self._apply_timeout()
        super().putrequest(*args, **kwargs)

    def send(self, data: Any) -> None:
        """Send data; if the server responded early and closed, let urllib3 read the response."""
        try:
            super().send(data)
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError) as exc:
            # urllib3 reads an early response only after BrokenPipeError, which TLS does not raise.
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE)) from exc

    def _apply_timeout(self) -> None:
        # A plain connection has no socket before its first request: it connects later.
        if self.sock is not None:
            self.sock.settimeout(self.send_timeout)


def patient(pool: Any, seconds: float) -> Any:
    """Return a subclass of a urllib3 pool whose connections allow so much silence while sending."""
    connection = type(
        f"Patient{pool.ConnectionCls.__name__}",
        (_SendTimeoutConnection, pool.ConnectionCls),
        {"send_timeout": seconds},
    )
    return type(f"Patient{pool.__name__}", (pool,), {"ConnectionCls": connection})


class PatientAdapter(requests.adapters.HTTPAdapter):
    """A requests adapter whose connections allow so many seconds of silence while sending."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        super().__init__(pool_connections=4, pool_maxsize=_POOL_SIZE)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, socket_options=_KEEP_ALIVE, **kwargs)
        self._use_timeout(self.poolmanager)

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(*args, socket_options=_KEEP_ALIVE, **kwargs)
        self._use_timeout(manager)
        return manager

    def _use_timeout(self, manager: Any) -> None:
        manager.pool_classes_by_scheme = {
            scheme: patient(pool, self._seconds)
            if not hasattr(pool.ConnectionCls, "send_timeout")
            else pool
            for scheme, pool in manager.pool_classes_by_scheme.items()
        }
