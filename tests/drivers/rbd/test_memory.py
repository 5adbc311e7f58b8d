# SPDX-License-Identifier: Apache-2.0
"""Memory: bounded by the options, whatever the size of the image."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.drivers.rbd.conftest import Bed, Program

pytestmark = pytest.mark.services

LIMIT_MIB = 320
TRANSFERS = """
store = bed.store(rbd_store_chunk_size=8)
block = os.urandom(1024 * 1024)
uri = store.add(new_id(), (block for _number in range(400)), 0, "sha512")[0]
assert sum(map(len, store.get(locate(store, uri))[0])) == 400 * len(block)
delete(store, uri)
# Not by getrusage(), which begins with the peak of the process that started this one.
with open("/proc/self/status") as status:
    print(*[int(line.split()[1]) // 1024 for line in status if line.startswith("VmHWM")])
"""


def test_peak_of_an_upload_and_a_download(bed: Bed, program: Callable[..., Program]) -> None:
    output, errors = program(TRANSFERS).end(timeout=200)
    assert errors == ""
    assert int(output) < LIMIT_MIB
    print(f"peak {output.strip()} MiB")
