# SPDX-License-Identifier: Apache-2.0
"""What a killed process leaves is no image, and says so."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import uuid
from typing import TYPE_CHECKING

import pytest

from glance_store import exceptions
from glance_store.testing import image
from tests.drivers.cinder.stores import GROUP, Listing, location, make_store

if TYPE_CHECKING:
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
            print("written", flush=True)
            time.sleep(600)
        return b"x" * length
store.add(wanted["image"], Source(), wanted["size"], "sha256")
"""
SIZE = 50_000_000


def test_killed_uploads(cinder: Cinder, listing: Listing) -> None:
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
    listing.remove_all()


def _kill_an_upload(cinder: Cinder, wanted: dict[str, object]) -> None:
    program = subprocess.Popen(
        [sys.executable, "-c", UPLOAD],
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
        assert program.stdout.readline() == "written\n"
        program.send_signal(signal.SIGKILL)
