# SPDX-License-Identifier: Apache-2.0
"""What a killed process leaves is no image, and says so."""

from __future__ import annotations

import contextlib
import io
import json
import signal
import subprocess
import sys
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from glance_store import exceptions
from glance_store.testing import image
from tests.drivers.cinder.stores import GROUP, Listing, location, make_store
from tests.services.cinder import POOL
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.services.ceph import Ceph
    from tests.services.cinder import Cinder

pytestmark = pytest.mark.services

UPLOAD = """
import json, sys, time
from tests.drivers.cinder.stores import make_store
wanted = json.load(sys.stdin)
store = make_store(wanted["options"])
class Source:
    position = 0
    def read(self, length):
        self.position += length
        if self.position > wanted["bytes"]:
            print("at work", flush=True)
            time.sleep(600)
        return b"x" * length
store.add(wanted["image"], Source(), wanted["size"], "sha256")
"""
DOWNLOAD = """
import json, sys, time
from tests.drivers.cinder.stores import location, make_store
wanted = json.load(sys.stdin)
store = make_store(wanted["options"])
next(store.get(location(store, wanted["uri"]))[0])
print("at work", flush=True)
time.sleep(600)
"""
SIZE = 50_000_000


def test_killed_uploads(cinder: Cinder, ceph: Ceph, listing: Listing) -> None:
    """Their volumes say that they are incomplete, cannot be read, and are in nobody's way."""
    options = cinder.store_options("multi")
    sizes = {str(uuid.uuid4()): size for size in (SIZE, 0)}
    for image_id, size in sizes.items():
        wanted = {"options": options, "image": image_id, "size": size, "bytes": SIZE // 2}
        _kill_an_upload(cinder, wanted)
    left = {volume["metadata"]["glance_image_id"]: volume for volume in listing.volumes()}
    assert left.keys() == sizes.keys()
    store = make_store(options)
    for volume in left.values():
        assert volume["metadata"]["glance_upload_state"] == "uploading"
        assert "image_size" not in volume["metadata"]
        assert volume["metadata"].get("readonly") != "True"
        for uri in (f"cinder://{volume['id']}", f"cinder://{GROUP}/{volume['id']}"):
            place = location(store, uri)
            for use in (store.get, store.get_size, store.open_reader):
                with pytest.raises(exceptions.NotFound, match="part of an image"):
                    use(place)
    # The next upload of the same image does not care.
    data = image(1000)
    uri = store.add(next(iter(sizes)), io.BytesIO(data), len(data), "sha256")[0]
    assert b"".join(store.get(location(store, uri))[0]) == data
    dead = {volume["id"] for volume in left.values()}
    ceph.shut_out(POOL, dead)
    _collect(store, lambda: not dead & {volume["id"] for volume in listing.volumes()})
    assert b"".join(store.get(location(store, uri))[0]) == data
    listing.remove_all()


def test_killed_downloads(cinder: Cinder, listing: Listing) -> None:
    """Their attachments are found and removed, those of living ones are not."""
    options = cinder.store_options("multi")
    store = make_store(options)
    data = image(1_000_000)
    uri = store.add(str(uuid.uuid4()), io.BytesIO(data), len(data), "sha256")[0]
    place = location(store, uri)
    wanted = {"options": options, "uri": uri}
    living = store.get(place)[0]
    assert next(living)
    _kill(cinder, DOWNLOAD, wanted)
    assert len(listing.attachments()) == 2
    _collect(store, lambda: len(listing.attachments()) == 1)
    assert b"".join(living) == data[store.READ_CHUNKSIZE :]
    assert listing.attachments() == []
    store.delete(place)
    listing.wait_until_empty()


def _collect(store: Any, is_gone: Callable[[], bool]) -> None:
    """Remove what is left, until it is gone."""

    def collected() -> bool:
        for left in store.leftovers(-60.0):
            # Cinder deletes in its own time.
            with contextlib.suppress(exceptions.InUseByStore):
                left.remove()
        return is_gone()

    until(collected, lambda: f"it goes: {list(store.leftovers(-60.0))}", seconds=120, pause=1.0)


def _kill_an_upload(cinder: Cinder, wanted: dict[str, object]) -> None:
    _kill(cinder, UPLOAD, wanted)


def _kill(cinder: Cinder, code: str, wanted: dict[str, object]) -> None:
    program = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=cinder.client_environment(),
    )
    assert program.stdin is not None
    assert program.stdout is not None
    with program, program.stdin, program.stdout:
        json.dump(wanted, program.stdin, default=str)
        program.stdin.close()
        assert program.stdout.readline() == "at work\n"
        program.send_signal(signal.SIGKILL)
