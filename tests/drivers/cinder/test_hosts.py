# SPDX-License-Identifier: Apache-2.0
"""Two hosts with one multiattach image: what one loses, the other does not notice."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import subprocess
import sys
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from glance_store.testing import image
from tests.drivers.cinder.stores import Listing, location, make_store

if TYPE_CHECKING:
    from tests.services.cinder import Cinder

pytestmark = pytest.mark.services

ROUNDS = 3
SIZE = 4 * 1024 * 1024
# Reads the image again and again, adds one of its own and deletes it; says where it is.
HOST = """
import hashlib, io, json, socket, sys, uuid
from tests.drivers.cinder.stores import Context, location, make_store
wanted = json.loads(sys.stdin.readline())
socket.sethostname(wanted["name"])
store = make_store(wanted["options"])
while True:
    chunks, size = store.get(location(store, wanted["uri"]))
    digest = hashlib.sha256(next(chunks))
    print("open", flush=True)
    sys.stdin.readline()
    for chunk in chunks:
        digest.update(chunk)
    print(digest.hexdigest(), flush=True)
    own = store.add(str(uuid.uuid4()), io.BytesIO(b"own"), 3, "sha256")[0]
    store.delete(location(store, own))
    print("own", flush=True)
    sys.stdin.readline()
"""


class Host:
    """A process with a name and process ids of its own.

    :param cinder: the server
    :param name: of the host
    :param options: of the store
    :param uri: of the image
    """

    def __init__(self, cinder: Cinder, name: str, options: Any, uri: str) -> None:
        alone = ["unshare", "--pid", "--uts", "--fork", "--kill-child"]
        self._process = subprocess.Popen(
            [*alone, sys.executable, "-c", HOST],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=cinder.client_environment(),
        )
        self.go_on(json.dumps({"name": name, "options": options, "uri": uri}, default=str))

    def go_on(self, line: str = "") -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def says(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def kill(self) -> None:
        with self._process:
            self._process.kill()


def test_hosts_that_are_killed(cinder: Cinder, listing: Listing) -> None:
    """A download of the other host goes on, and each dead one has left one attachment."""
    if os.geteuid():
        pytest.skip("only root makes hosts")
    options = {**cinder.store_options("multi"), "cinder_attachment_retry_attempts": 10}
    store = make_store(options)
    data = image(SIZE)
    uri = store.add(str(uuid.uuid4()), io.BytesIO(data), SIZE, "sha256")[0]
    expected = hashlib.sha256(data).hexdigest()
    # Names that need no entry anywhere to have an address.
    names = ["127.0.0.1", "127.0.0.2"]
    hosts = [Host(cinder, name, options, uri) for name in names]
    dice = random.Random(3)
    try:
        for number in range(ROUNDS):
            for host in hosts:
                assert host.says() == "open"
            victim = dice.randrange(2)
            hosts[victim].kill()
            # In the middle of its download when the other one dies.
            survivor = hosts[1 - victim]
            survivor.go_on()
            assert survivor.says() == expected
            assert survivor.says() == "own"
            assert len(listing.attachments()) == number + 1
            survivor.go_on()
            hosts[victim] = Host(cinder, names[victim], options, uri)
        for host in hosts:
            assert host.says() == "open"
            host.go_on()
            assert host.says() == expected
            assert host.says() == "own"
        assert len(listing.attachments()) == ROUNDS
    finally:
        for host in hosts:
            host.kill()
    # As an operator does it with what killed processes have left.
    for attachment in listing.attachments():
        listing.call("DELETE", f"/attachments/{attachment}")
    assert b"".join(store.get(location(store, uri))[0]) == data
    store.delete(location(store, uri))
