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
from glance_store._drivers._network import ignore_netrc

# Idle connections to keep per server: enough for the threads of a busy service.
_POOL_SIZE = 64
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


def with_connections(pool: Any, mixin: type) -> Any:
    """Return a subclass of a urllib3 pool whose connections have a mixin."""
    base = pool.ConnectionCls
    if issubclass(base, mixin):
        return pool
    connection = type(base.__name__, (mixin, base), {})
    return type(pool.__name__, (pool,), {"ConnectionCls": connection})


class Adapter(requests.adapters.HTTPAdapter):
    """A requests adapter whose connections have a mixin, with or without a proxy."""

    def __init__(self, mixin: type) -> None:
        self._mixin = mixin
        super().__init__(pool_maxsize=_POOL_SIZE)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self._adapt(self.poolmanager)

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        return self._adapt(super().proxy_manager_for(*args, **kwargs))

    def _adapt(self, manager: Any) -> Any:
        manager.pool_classes_by_scheme = {
            scheme: with_connections(pool, self._mixin)
            for scheme, pool in manager.pool_classes_by_scheme.items()
        }
        return manager


def patient(seconds: float) -> type:
    """Return a mixin for connections that allow so many seconds of silence while sending."""
    return type("Patient", (_SendTimeoutConnection,), {"send_timeout": seconds})


def prepare(session: requests.Session, seconds: float) -> None:
    """Make the connections of a session patient, and keep .netrc out of its requests."""
    for scheme in ("http://", "https://"):
        session.mount(scheme, Adapter(patient(seconds)))
    ignore_netrc(session)
