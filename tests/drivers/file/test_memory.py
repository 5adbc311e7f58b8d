# SPDX-License-Identifier: Apache-2.0
"""Memory is bounded by configuration, not by the image."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile

import pytest

from tests.drivers.file.conftest import unavailable

GIB = 1024**3
MIB = 1024**2

TRANSFER = """
import os, sys
from oslo_config import cfg
from glance_store import location
from glance_store._drivers.filesystem import Store

directory, size, announced = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])

class Source:
    # Random once, different in each block: nothing here compresses, and nothing is zeros.
    block = os.urandom(4 << 20)
    given = 0

    def read(self, length):
        length = min(length, size - self.given)
        start = self.given % (1 << 20)
        self.given += length
        return self.block[start : start + length]

conf = cfg.ConfigOpts()
store = Store(conf, "files")
conf.set_override("filesystem_store_datadir", directory, group="files")
store.configure(re_raise_bsc=True)
uri, stored, *_rest = store.add("image", Source(), announced, "sha512")
place = location.Location("file", store.get_store_location_class(), conf, uri=uri)
assert stored == size == sum(map(len, store.get(place)[0]))
# Not ru_maxrss: that of a new process begins with what its parent had at its peak.
with open("/proc/self/status") as status:
    [peak] = [line.split()[1] for line in status if line.startswith("VmHWM")]
sys.stdout.write(peak)
"""


@pytest.mark.slow
@pytest.mark.parametrize("known", [True, False])
def test_4_gib_need_less_than_160_mib(known: bool) -> None:
    size = 4 * GIB
    place = "/dev/shm"
    if not os.path.isdir(place) or shutil.disk_usage(place).free < size + GIB:
        unavailable(f"{place} has no room for an image of 4 GiB")
    with tempfile.TemporaryDirectory(dir=place) as directory:
        done = subprocess.run(
            [sys.executable, "-c", TRANSFER, directory, str(size), str(size if known else 0)],
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) * 1024 < 160 * MIB
