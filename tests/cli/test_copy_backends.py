# SPDX-License-Identifier: Apache-2.0
"""`glance-store copy` between real backends: killed on each leg it goes on, and no byte is lost."""

from __future__ import annotations

import itertools
import json
import os
import random
import subprocess
import uuid

import pytest

from glance_store import registry
from glance_store.cli.main import main
from tests.waiting import until

from .command import MIB, Command
from .test_check import as_lines, record

pytestmark = pytest.mark.services

LEGS = ["first", "ceph", "s3", "swift", "last"]
CONF = """\
[DEFAULT]
enabled_backends = first:file, ceph:rbd, s3:s3, swift:swift, last:file
[glance_store]
default_backend = first
[first]
filesystem_store_datadir = {root}/first
[last]
filesystem_store_datadir = {root}/last
filesystem_thin_provisioning = true
"""
SMALL_PARTS = {
    "[s3]": "s3_store_large_object_size = 5\ns3_store_large_object_chunk_size = 5",
    "[swift]": "swift_store_large_object_size = 1\nswift_store_large_object_chunk_size = 1",
}


@pytest.fixture
def config(ceph, radosgw, swift, tmp_path):
    text = CONF.format(root=tmp_path)
    text += "".join(service.glance_conf() + "\n" for service in (ceph, radosgw, swift))
    for section, options in SMALL_PARTS.items():
        text = text.replace(f"{section}\n", f"{section}\n{options}\n")
    path = tmp_path / "glance-api.conf"
    path.write_text(text)
    return path


@pytest.fixture
def stocked(tmp_path):
    """Images in the first store: with and without holes, in one request and in parts."""
    folder = tmp_path / "first"
    folder.mkdir()
    made = []
    for size in (1, 5 * MIB + 1, 12 * MIB, 3 * MIB):
        path = folder / str(uuid.uuid4())
        with path.open("wb") as file:
            file.write(random.Random(size).randbytes(min(size, 2 * MIB)))
            file.truncate(size)
        made.append(record(f"file://{path}", path.name, path.read_bytes()))
    return made


@pytest.fixture
def run(config, capfd):
    """Run the command in this process; return its exit code and its lines."""

    def run(*words):
        code = main([f"--config-file={config}", *map(str, words), "--json"])
        out = capfd.readouterr().out
        return code, [json.loads(line) for line in out.splitlines() if line.startswith("{")]

    return run


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


def shut_out_the_dead(ceph, ids):
    """Have the cluster forget clients that were killed; by itself it takes half a minute."""
    import rados
    import rbd

    with (
        rados.Rados(conffile=str(ceph.conf), rados_id=ceph.user) as cluster,
        cluster.open_ioctx(ceph.pool) as pool,
    ):
        for name in rbd.RBD().list(pool):
            if any(image_id in name for image_id in ids):
                with rbd.Image(pool, name, read_only=True) as image:
                    for watcher in image.watchers_list():
                        ceph.command("osd blocklist", blocklistop="add", addr=watcher["addr"])


def test_from_store_to_store(config, run, clean, stocked, tmp_path, ceph):
    """File, RBD, S3, Swift, and back to a file."""
    modules = [os.environ.get("PYTHONPATH"), str(ceph.bindings())]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, modules))}
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
                shut_out_the_dead(ceph, originals)
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
