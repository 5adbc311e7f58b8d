# SPDX-License-Identifier: Apache-2.0
"""Connections of urllib3 that bear servers: slow ones, and those that say more than one expects."""

from __future__ import annotations

import errno
import http.client
import os
import ssl
from typing import Any

import requests.adapters
import urllib3.connection

_MOST_INTERIM = 100
# Idle connections kept for each server, enough for the threads of a busy service.
_POOL_SIZE = 64


class _Answer(http.client.HTTPResponse):
    """An answer for which interim answers (1xx) are passed over; the base class knows 100 alone.

    Taken for the answer, one would leave the real answer behind, to be read by the next request.
    """

    def _read_status(self) -> tuple[str, int, str]:
        for _number in range(_MOST_INTERIM):
            found: tuple[str, int, str] = super()._read_status()  # type: ignore[misc]
            if not 100 < found[1] < 200:
                return found
            http.client.parse_headers(self.fp)
        raise http.client.HTTPException("too many interim answers")


class _Patient(urllib3.connection.HTTPConnection):
    """A connection on which a request is sent with the time limit for reading.

    urllib3 leaves the limit for connecting in force until all of a request is sent: a server that
    takes no data for some seconds, because its disks are busy, would lose the upload.
    """

    response_class = _Answer
    patience: float  # seconds of silence

    def connect(self) -> None:
        """Connect; from then on the other limit holds."""
        super().connect()
        self._bear()

    def putrequest(self, *args: Any, **kwargs: Any) -> None:
        """Begin a request, on a connection that may have served others."""
        self._bear()
        super().putrequest(*args, **kwargs)

    def send(self, data: Any) -> None:
        """Send data; where the server has answered early and closed, urllib3 reads the answer."""
        try:
            super().send(data)
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError) as exc:
            # urllib3 looks for an answer after this error alone, the one without TLS.
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE)) from exc

    def _bear(self) -> None:
        # None before the first request that is not encrypted: that one connects later.
        if self.sock is not None:
            self.sock.settimeout(self.patience)


def patient(pool: Any, seconds: float) -> Any:
    """Return a class of pools whose connections are patient while they send.

    :param pool: a class of pools of urllib3, or one that is derived from it
    :param seconds: of silence that the connections bear
    """
    connection = type(
        f"Patient{pool.ConnectionCls.__name__}",
        (_Patient, pool.ConnectionCls),
        {"patience": seconds},
    )
    return type(f"Patient{pool.__name__}", (pool,), {"ConnectionCls": connection})


class PatientAdapter(requests.adapters.HTTPAdapter):
    """What is under a session of requests: patient connections, in a pool for many threads.

    :param seconds: of silence that the connections bear
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        super().__init__(pool_connections=4, pool_maxsize=_POOL_SIZE)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Make the pools."""
        super().init_poolmanager(*args, **kwargs)
        self._make_patient(self.poolmanager)

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        """Make the pools behind a proxy."""
        manager = super().proxy_manager_for(*args, **kwargs)
        self._make_patient(manager)
        return manager

    def _make_patient(self, manager: Any) -> None:
        manager.pool_classes_by_scheme = {
            scheme: patient(pool, self._seconds)
            if not hasattr(pool.ConnectionCls, "patience")
            else pool
            for scheme, pool in manager.pool_classes_by_scheme.items()
        }
