# SPDX-License-Identifier: Apache-2.0
"""`glance-store copy` between real backends: killed on each leg it goes on, and no byte is lost.

``GLANCE_STORE_COPIED_IMAGES=50`` in the environment copies so many.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import subprocess
import uuid

import pytest

from glance_store import registry
from tests.waiting import until

from .backends import configuration, with_bindings
from .command import MIB, Command
from .test_check import as_lines, record

pytestmark = pytest.mark.services

STORES = "first:file, ceph:rbd, s3:s3, swift:swift, cinder:cinder, vmware:vmware, last:file"
LEGS = [store.partition(":")[0] for store in STORES.split(", ")]
IMAGES = int(os.environ.get("GLANCE_STORE_COPIED_IMAGES", "4"))


@pytest.fixture
def config(ceph, radosgw, swift, cinder, vcenter, tmp_path):
    return configuration(tmp_path, (ceph, radosgw, swift, cinder, vcenter), STORES)


@pytest.fixture
def stocked(tmp_path):
    """Images in the first store: with and without holes, in one request and in parts."""
    folder = tmp_path / "first"
    folder.mkdir()
    made = []
    sizes = itertools.cycle((1, 5 * MIB + 1, 12 * MIB, 3 * MIB))
    for number, size in enumerate(itertools.islice(sizes, IMAGES)):
        path = folder / str(uuid.uuid4())
        with path.open("wb") as file:
            file.write(random.Random(number).randbytes(min(size, 2 * MIB)))
            file.truncate(size)
        made.append(record(f"file://{path}", path.name, path.read_bytes()))
    return made


@pytest.fixture
def clean(stocked, run):
    """Remove what the test has put into servers that others use as well."""
    yield
    ids = [one["id"] for one in stocked]
    # With that all stores are loaded.
    run("stores")
    for name, _driver, store in registry.stores():
        if name in LEGS[1:-1]:
            for one in store.images():
                if one.image_id in ids and one.uri is not None:
                    store.delete(registry.located(one.uri, name)[1])
            for left in store.leftovers(-60):
                if any(image_id in left.name for image_id in ids):
                    left.remove()


def test_from_store_to_store(config, run, clean, stocked, tmp_path, ceph, cinder):
    """File, RBD, S3, Swift, Cinder, VMware, and back to a file."""
    environment = with_bindings(ceph, cinder.client_environment())
    originals = {one["id"]: tmp_path / "first" / one["id"] for one in stocked}
    records, expect = stocked, tmp_path / "records"
    for source, target in itertools.pairwise(LEGS):
        expect.write_bytes(as_lines(records))
        words = ("copy", f"--from-store={source}", f"--to={target}", f"--expect={expect}")
        process = Command(config).start(
            *words, "--json", "--parallel=1", stdout=subprocess.PIPE, env=environment
        )
        first = json.loads(process.stdout.readline())
        process.kill()
        process.communicate(timeout=60)
        assert (first["state"], first["verified"]) == ("copied", "hash")
        lines: list[dict] = []

        def completed(words=words, lines=lines):
            code, lines[:] = run(*words)
            if code:
                ceph.shut_out(ceph.pool, originals)
            return code == 0

        until(completed, lambda lines=lines: f"all images are copied: {lines}")
        made = {one["id"]: one for one in lines}
        assert made.keys() == originals.keys()
        assert {one["verified"] for one in lines} == {"hash"}
        assert made[first["id"]]["state"] == "present"
        assert made[first["id"]]["new_location"] == first["new_location"]
        records = [dict(one, location=made[one["id"]]["new_location"]) for one in records]
    for image_id, original in originals.items():
        copy = tmp_path / "last" / image_id
        assert copy.read_bytes() == original.read_bytes()
        assert copy.stat().st_blocks * 512 <= 2 * MIB + 64 * 1024
