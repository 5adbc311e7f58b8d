# SPDX-License-Identifier: Apache-2.0
"""First downloads of an image, many at the same moment, through a Glance of four processes.

With ``GLANCE_STORE_SHARED_READS_MIB=1024`` in the environment the image has so many MiB, and the
test prints what the same takes with and without shared reads: see ``bench/README.rst``.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from glance_store.transfer.shared_folder import Folder

from .client import GlanceClient
from .images import MIB, image_bytes
from .scenes import Scene, kinds

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .conftest import StartGlance
    from .server import GlanceServer

pytestmark = pytest.mark.glance

READERS = 16
MEASURED = int(os.environ.get("GLANCE_STORE_SHARED_READS_MIB", "0"))
DATA = image_bytes("shared", 25 * MIB + 4711)


@pytest.fixture
def sharing(
    scene: Scene, start_glance: StartGlance, tmp_path: Path
) -> tuple[GlanceServer, Folder, str]:
    """A Glance whose stores share reads, the directory, and an image that nobody has read."""
    folder = Folder(str(tmp_path / "shared"), 4096 * MIB)
    name = scene.default.name
    changed = {
        "DEFAULT": {"image_size_cap": str(1 << 40)},
        name: {
            "store_shared_reads_dir": folder.path,
            "store_shared_reads_size": str(folder.limit // MIB),
        },
    }
    arguments = scene.kind.arguments(changed)
    return start_glance(f"sharing-{scene.kind.name}", **arguments, processes=4), folder, name


def uploaded(glance: GlanceServer, store: str, data: object) -> str:
    with GlanceClient(glance.url) as client:
        image_id = client.create("shared")
        client.upload(image_id, data, store=store)  # type: ignore[arg-type]
        return image_id


@kinds("s3", "swift", "rbd")
def test_many_first_downloads(sharing: tuple[GlanceServer, Folder, str]) -> None:
    glance, folder, store = sharing
    image_id = uploaded(glance, store, DATA)

    def download(_number: int) -> bytes:
        with GlanceClient(glance.url) as client:
            return client.download(image_id).content

    with concurrent.futures.ThreadPoolExecutor(READERS) as pool:
        assert all(data == DATA for data in pool.map(download, range(READERS)))
    # Of sixteen images one came from the backend, and a tenth at most.
    assert folder.usage().saved >= (READERS - 1.1) * len(DATA)
    with GlanceClient(glance.url) as client:
        client.delete(image_id)
    assert not list(Path(folder.path).glob("*.image"))


# -- measured by hand


def _received() -> int:
    """Return the bytes that came in over the loopback device."""
    for line in Path("/proc/net/dev").read_text().splitlines():
        name, _colon, figures = line.partition(":")
        if name.strip() == "lo":
            return int(figures.split()[0])
    raise AssertionError("there is no loopback device")


@contextlib.contextmanager
def _measured(label: str, delivered: int) -> Iterator[None]:
    before, begun = _received(), time.monotonic()
    yield
    seconds, moved = time.monotonic() - begun, _received() - before
    print(f"\n{label}: {seconds:.2f} s, {(moved - delivered) / MIB:.0f} MiB beside the answers")


def _fetch(glance: GlanceServer, image_id: str, readers: int) -> None:
    with GlanceClient(glance.url) as client:
        headers = [f"-H{name}: {value}" for name, value in client.identity.items()]
    command = [
        "curl",
        "-sSf",
        "-o",
        "/dev/null",
        *headers,
        f"{glance.url}/v2/images/{image_id}/file",
    ]
    running = [subprocess.Popen(command) for _number in range(readers)]
    assert [process.wait() for process in running] == [0] * readers


@pytest.mark.timeout(1800)
@kinds("s3", "swift", "rbd")
def figures(
    sharing: tuple[GlanceServer, Folder, str], scene: Scene, start_glance: StartGlance
) -> None:
    glance, folder, store = sharing
    # No more in a chunk than uwsgi takes.
    block, size = os.urandom(MIB // 16), MEASURED * MIB
    image_id = uploaded(glance, store, (block for _number in range(16 * MEASURED)))
    off = scene.kind.arguments({"DEFAULT": {"image_size_cap": str(1 << 40)}})
    plain = start_glance(f"plain-{scene.kind.name}", **off, processes=4)
    same = uploaded(plain, store, (block for _number in range(16 * MEASURED)))
    for server, name in ((plain, same), (glance, image_id)):
        _fetch(server, name, 1)
    for readers in (1, 1, 1, 1, 1, READERS, READERS):
        for server, name in ((plain, same), (glance, image_id)):
            way = "shared" if server is glance else "plain"
            for path in Path(folder.path).glob("*.image"):
                path.unlink()
            with _measured(f"{scene.kind.name} {way}, {readers} at once", readers * size):
                _fetch(server, name, readers)


if MEASURED:
    test_figures = figures
