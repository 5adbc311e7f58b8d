# SPDX-License-Identifier: Apache-2.0
"""Objects that Swift refuses to remove (409): to its storage server they come from the future."""

from __future__ import annotations

import configparser
import hashlib
import http.client
import time
import urllib.parse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.services.swift import Swift

_YEAR = 365 * 24 * 3600


def _send(swift: Swift, method: str, url: str, when: float, body: bytes | None) -> int:
    """Send a request to the storage server itself, past the proxy."""
    assert swift.folder is not None
    conf = configparser.RawConfigParser()
    conf.read(swift.folder / "object.conf")
    path = urllib.parse.unquote(urllib.parse.urlsplit(url).path).removeprefix("/v1")
    # As the hash of the tests' swift.conf and the ring of four partitions have it.
    partition = hashlib.md5(f"tests{path}tests".encode()).digest()[0] >> 6
    connection = http.client.HTTPConnection("127.0.0.1", int(conf["DEFAULT"]["bind_port"]))
    headers = {"X-Timestamp": f"{when:016.5f}", "Content-Type": "application/octet-stream"}
    connection.request(method, f"/disk/{partition}{urllib.parse.quote(path)}", body, headers)
    status = connection.getresponse().status
    connection.close()
    return status


def keep(swift: Swift, url: str, body: bytes) -> None:
    """Make an object undeletable.

    :param url: of the object
    :param body: its bytes
    """
    assert _send(swift, "PUT", url, time.time() + _YEAR, body) == 201


def release(swift: Swift, url: str) -> None:
    """Remove such an object."""
    assert _send(swift, "DELETE", url, time.time() + 2 * _YEAR, None) in (204, 404)
