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
POOL_SIZE = 64
# The library runs on Linux, which has all of these; seconds and a number of probes.
_KEEP_ALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4),
)


class ProbedConnection:
    """Mixin for urllib3's connections: the system probes them when idle, as with keystoneauth.

    A firewall that has forgotten one drops its packets: the next request would wait for the read
    timeout. By default the system probes after two hours.
    """

    def _new_conn(self) -> Any:
        sock = super()._new_conn()  # type: ignore[misc]
        for option in _KEEP_ALIVE:
            sock.setsockopt(*option)
        return sock


class _SendTimeoutConnection(ProbedConnection, urllib3.connection.HTTPConnection):
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
        super().__init__(pool_connections=4, pool_maxsize=POOL_SIZE)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self._use_timeout(self.poolmanager)

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(*args, **kwargs)
        self._use_timeout(manager)
        return manager

    def _use_timeout(self, manager: Any) -> None:
        manager.pool_classes_by_scheme = {
            scheme: patient(pool, self._seconds)
            if not hasattr(pool.ConnectionCls, "send_timeout")
            else pool
            for scheme, pool in manager.pool_classes_by_scheme.items()
        }
