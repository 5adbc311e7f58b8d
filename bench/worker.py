# SPDX-License-Identifier: Apache-2.0
"""One measurement in one fresh process, through the public API of whatever glance_store it finds.

The parent starts this file as a script in isolated mode (``python -I worker.py TASK``), so that the
``glance_store`` imported is the one installed in that interpreter's environment and never the one
in the current directory. For the same reason it imports nothing of ``bench``.
"""

from __future__ import annotations

import dataclasses
import functools
import gc
import hashlib
import io
import json
import os
import random
import resource
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

KIB = 1024
MIB = 1024 * KIB
BACKEND = "bench"
NETWORK_READ = 64 * KIB  # what a WSGI server hands over at most


@dataclasses.dataclass(frozen=True)
class Task:
    """What one worker does.

    ``operation`` is "add" or "get"; ``size`` is in bytes and for each of ``count`` images, which
    ``threads`` threads share. ``repeat``: all is done so many times, and the median counts.
    ``declared``: whether ``add`` is told the size. ``source`` is "file"
    (a plain open file), "network" (the same, at most 64 KiB a read), "memory" (a BytesIO) or
    "generated" (made up while it is read, needs neither memory nor disk). ``options`` are driver
    options that differ from their defaults.
    """

    operation: str
    size: int
    count: int = 1
    threads: int = 1
    repeat: int = 1
    declared: bool = True
    source: str = "file"
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    datadir: str = ""
    path: str = ""


@dataclasses.dataclass(frozen=True)
class Measurement:
    """What one worker saw: wall and CPU seconds, bytes moved, peak resident bytes, a digest of all
    results, by which the parent makes sure that both sides did the same work, and how many cores
    ``others`` kept busy meanwhile: near 0 on a quiet machine.
    """

    seconds: float
    cpu_seconds: float
    bytes: int
    peak_rss: int = 0
    digest: str = ""
    others: float = 0.0


class NetworkSource:
    """A readable that never gives more than 64 KiB at once, as a WSGI input does."""

    def __init__(self, wrapped: BinaryIO) -> None:
        self._wrapped = wrapped

    def read(self, size: int = -1) -> bytes:
        return self._wrapped.read(NETWORK_READ if size < 0 else min(size, NETWORK_READ))


class GeneratedSource:
    """``size`` bytes of one random MiB again and again, the number of the repetition in front.

    The number makes each MiB differ from all others; the content depends on ``seed`` and the offset
    alone, not on how it is read.
    """

    def __init__(self, size: int, seed: int) -> None:
        self._block = memoryview(random_bytes(MIB, seed))
        self._size = size
        self._offset = 0

    def read(self, size: int = -1) -> bytes:
        left = self._size - self._offset
        wanted = left if size < 0 else min(size, left)
        pieces: list[bytes | memoryview] = []
        while wanted:
            index, start = divmod(self._offset, MIB)
            length = min(wanted, MIB - start)
            pieces.append(index.to_bytes(8, "little")[start : start + length])
            pieces.append(self._block[max(start, 8) : start + length])
            self._offset += length
            wanted -= length
        return b"".join(pieces)


@functools.cache
def random_bytes(size: int, seed: int) -> bytes:
    return random.Random(seed).randbytes(size)


def open_source(task: Task, index: int) -> Any:
    """Return the readable for image number ``index`` of ``task``."""
    if task.source == "generated":
        return GeneratedSource(task.size, seed=index)
    if task.source == "memory":
        return io.BytesIO(random_bytes(task.size, index % 16))
    plain = Path(task.path).open("rb")  # noqa: SIM115 - open until the process ends
    return NetworkSource(plain) if task.source == "network" else plain


class Store:
    """The public multi-store API, configured as an image service does it: one ``file`` store."""

    def __init__(self, datadir: str, options: dict[str, Any]) -> None:
        from oslo_config import cfg

        import glance_store

        self._api: Any = glance_store
        self._conf = cfg.CONF
        self._conf.register_opt(cfg.DictOpt("enabled_backends"))
        self._conf.set_override("enabled_backends", {BACKEND: "file"})
        self._api.register_store_opts(self._conf)
        self._conf.set_override("default_backend", BACKEND, group="glance_store")
        for name, value in {"filesystem_store_datadir": datadir, **options}.items():
            self._conf.set_override(name, value, group=BACKEND)
        self._conf([], project="bench", default_config_files=[], default_config_dirs=[])
        self._api.create_multi_stores(self._conf)
        self._api.verify_store()

    def add(self, image_id: str, source: Any, size: int) -> tuple[str, int, str]:
        """Return location, size, and both digests of the image added (``size`` 0: unknown)."""
        location, stored, checksum, multihash, _ = self._api.add_with_multihash(
            self._conf, image_id, source, size, BACKEND, "sha512"
        )
        return location, stored, f"{checksum}:{multihash}"

    def get(self, location: str) -> int:
        """Read the whole image and return how many bytes came."""
        chunks, _ = self._api.get(location, BACKEND)
        return sum(len(chunk) for chunk in chunks)

    def delete_all(self, locations: Sequence[str]) -> None:
        for location in locations:
            self._api.delete(location, BACKEND)


def add_images(store: Store, task: Task) -> tuple[Measurement, list[str]]:
    """Add the images of ``task``; return the measurement and their locations."""
    sources = [open_source(task, index) for index in range(task.count)]
    declared = task.size if task.declared else 0

    def add(index: int) -> tuple[str, int, str]:
        return store.add(f"image-{index:06d}", sources[index], declared)

    measured, results = timed(add, task)
    digest = hashlib.sha256("\n".join(both for _, _, both in results).encode()).hexdigest()
    moved = sum(stored for _, stored, _ in results)
    measured = dataclasses.replace(measured, bytes=moved, digest=digest)
    return measured, [location for location, _, _ in results]


def get_images(store: Store, task: Task, locations: Sequence[str]) -> Measurement:
    """Read the images at ``locations``."""
    measured, sizes = timed(lambda index: store.get(locations[index]), task)
    return dataclasses.replace(measured, bytes=sum(sizes))


def busy_seconds() -> float:
    """Return the CPU seconds that all of the machine has spent working, 0.0 if untold."""
    try:
        user, nice, system, _, _, irq, softirq, steal = map(
            int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
        )
    except (OSError, ValueError):
        return 0.0
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def timed(action: Callable[[int], Any], task: Task) -> tuple[Measurement, Sequence[Any]]:
    """Run ``action`` for each image; return the times, and the results in order."""
    gc.collect()
    busy = busy_seconds()
    cpu, wall = time.process_time(), time.perf_counter()
    if task.threads == 1:
        results = [action(index) for index in range(task.count)]
    else:
        with ThreadPoolExecutor(task.threads) as pool:
            results = list(pool.map(action, range(task.count)))
    seconds, own = time.perf_counter() - wall, time.process_time() - cpu
    others = max(0.0, busy_seconds() - busy - own) / seconds
    return Measurement(seconds, own, 0, others=others), results


def run(task: Task) -> Measurement:
    """Warm up, measure, remove the images; return the repetition that took the median time.

    Raises RuntimeError when fewer or more bytes were moved than the task has.
    """
    store = Store(task.datadir, task.options)
    warm_up, _, _ = store.add("warm-up", GeneratedSource(MIB, seed=0), MIB)
    store.get(warm_up)
    store.delete_all([warm_up])

    added, locations = add_images(store, task)
    measurements = []
    for repetition in range(task.repeat):
        if task.operation == "get":
            measured = dataclasses.replace(get_images(store, task, locations), digest=added.digest)
        elif repetition:
            store.delete_all(locations)
            measured, locations = add_images(store, task)
        else:
            measured = added
        if measured.bytes != task.size * task.count:
            raise RuntimeError(f"{measured.bytes} bytes moved, not {task.size * task.count}")
        measurements.append(measured)
    store.delete_all(locations)
    measurements.sort(key=lambda each: each.seconds)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KIB
    return dataclasses.replace(measurements[len(measurements) // 2], peak_rss=peak)


if __name__ == "__main__":
    print(json.dumps(dataclasses.asdict(run(Task(**json.loads(sys.argv[1]))))))
