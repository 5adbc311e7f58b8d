# SPDX-License-Identifier: Apache-2.0
"""Connections of urllib3 that bear a server which takes no data for a while."""

from __future__ import annotations

from typing import Any

import urllib3.connection


class _Patient(urllib3.connection.HTTPConnection):
    """A connection on which a request is sent with the time limit for reading.

    urllib3 leaves the limit for connecting in force until all of a request is sent: a server that
    takes no data for some seconds, because its disks are busy, would lose the upload.
    """

    patience: float  # seconds of silence

    def connect(self) -> None:
        """Connect; from then on the other limit holds."""
        super().connect()
        self._bear()

    def putrequest(self, *args: Any, **kwargs: Any) -> None:
        """Begin a request, on a connection that may have served others."""
        self._bear()
        super().putrequest(*args, **kwargs)

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
