# SPDX-License-Identifier: Apache-2.0
"""One measurement in one fresh process, through the public API of whatever glance_store it finds.

The parent starts this file as a script in isolated mode (``python -I worker.py``), so that the
``glance_store`` imported is the one installed in that interpreter's environment and never the one
in the current directory. For the same reason it imports nothing of the package ``bench``. The task
comes as JSON on the standard input: it may hold credentials.
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
    from types import TracebackType

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB
BACKEND = "bench"
# Of the drivers that the reference cannot use among several stores.
SCHEMES = {"vmware": "vsphere"}
NETWORK_READ = 64 * KIB  # what a WSGI server hands over at most


@dataclasses.dataclass(frozen=True)
class Task:
    """What one worker does.

    ``operation`` is "add" or "get"; or, when adding costs more than the measurement, "put" (add,
    and leave the images), "read" (get the images at ``locations``) and "remove" (these). Nothing is
    measured by "check" (tell size and digest of each) and "gone" (tell whether each is gone).
    ``size`` is in bytes and for each of ``count`` images, which ``threads`` threads share.
    ``repeat``: all is done so many times, and the median counts. ``declared``: whether ``add`` is
    told the size. ``source`` is "file" (a plain open file, at ``path``), "network" (the same, at
    most 64 KiB a read), "memory" (a BytesIO) or "generated" (made up while it is read, needs
    neither memory nor disk). ``driver`` is the type of the store, or the name of a program in
    ``rivals.py``; ``options`` are those that differ from their defaults; ``context`` has the
    attributes of the request's context, if any. Names of images begin with ``prefix``; ``modules``
    are folders to import from after all others.
    """

    operation: str
    size: int
    count: int = 1
    threads: int = 1
    repeat: int = 1
    declared: bool = True
    source: str = "file"
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    path: str = ""
    driver: str = "file"
    context: dict[str, Any] | None = None
    prefix: str = "image"
    locations: Sequence[str] = ()
    modules: Sequence[str] = ()


@dataclasses.dataclass(frozen=True)
class Measurement:
    """What one worker saw: wall and CPU seconds, bytes moved, peak resident bytes, a digest of all
    results, by which the parent makes sure that both sides did the same work, and how many cores
    ``others`` kept busy meanwhile: near 0 on a quiet machine without servers. ``figures`` are
    further ones by name.
    """

    seconds: float
    cpu_seconds: float
    bytes: int
    peak_rss: int = 0
    digest: str = ""
    others: float = 0.0
    figures: dict[str, float] = dataclasses.field(default_factory=dict)


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


class Context:
    """Who makes a request, as an image service tells its stores."""

    def __init__(self, attributes: dict[str, Any]) -> None:
        self._attributes = attributes
        vars(self).update(attributes)

    def to_dict(self) -> dict[str, Any]:
        return dict(self._attributes)


class Store:
    """The public multi-store API, configured as an image service does it: one store."""

    def __init__(self, task: Task) -> None:
        from oslo_config import cfg

        import glance_store

        self._api: Any = glance_store
        self._conf = cfg.CONF
        self._context = Context(task.context) if task.context else None
        self._conf.register_opt(cfg.DictOpt("enabled_backends"))
        self._conf.set_override("enabled_backends", {BACKEND: task.driver})
        self._api.register_store_opts(self._conf)
        self._conf.set_override("default_backend", BACKEND, group="glance_store")
        for name, value in task.options.items():
            self._conf.set_override(name, value, group=BACKEND)
        self._conf([], project="bench", default_config_files=[], default_config_dirs=[])
        if task.driver == "cinder":
            prepare_brick(task.options["cinder_mount_point_base"])
        self._api.create_multi_stores(self._conf)
        self._api.verify_store()

    def add(self, image_id: str, source: Any, size: int) -> tuple[str, int, str]:
        """Return location, size, and both digests of the image added (``size`` 0: unknown)."""
        location, stored, checksum, multihash, _ = self._api.add_with_multihash(
            self._conf, image_id, source, size, BACKEND, "sha512", context=self._context
        )
        return location, stored, f"{checksum}:{multihash}"

    def get(self, location: str) -> int:
        """Read the whole image and return how many bytes came."""
        chunks, _ = self._api.get(location, BACKEND, context=self._context)
        return sum(len(chunk) for chunk in chunks)

    def check(self, location: str) -> list[Any]:
        """Return the size that is told without reading, and the SHA-256 of what is read."""
        size = self._api.get_size_from_uri_and_backend(location, BACKEND, context=self._context)
        chunks, _ = self._api.get(location, BACKEND, context=self._context)
        digest = hashlib.sha256()
        for chunk in chunks:
            digest.update(chunk)
        return [size, digest.hexdigest()]

    def is_gone(self, location: str) -> bool:
        """Tell whether there is no image at a location."""
        try:
            self.get(location)
        except self._api.NotFound:
            return True
        return False

    def delete_all(self, locations: Sequence[str]) -> None:
        for location in locations:
            self._api.delete(location, BACKEND, context=self._context)


class SingleStore(Store):
    """The API of earlier years, for a driver of which the reference has no other that works."""

    def __init__(self, task: Task) -> None:
        from oslo_config import cfg

        import glance_store

        self._api: Any = glance_store
        self._conf = cfg.CONF
        self._api.register_opts(self._conf)
        own = {"stores": [task.driver], "default_store": SCHEMES[task.driver], **task.options}
        for name, value in own.items():
            self._conf.set_override(name, value, group="glance_store")
        self._conf([], project="bench", default_config_files=[], default_config_dirs=[])
        self._api.create_stores(self._conf)
        self._api.verify_default_store()

    def add(self, image_id: str, source: Any, size: int) -> tuple[str, int, str]:
        location, stored, checksum, multihash, _ = self._api.backend.add_to_backend_with_multihash(
            self._conf, image_id, source, size, "sha512"
        )
        return location, stored, f"{checksum}:{multihash}"

    def get(self, location: str) -> int:
        chunks, _ = self._api.get_from_backend(location)
        return sum(len(chunk) for chunk in chunks)

    def check(self, location: str) -> list[Any]:
        size = self._api.get_size_from_backend(location)
        chunks, _ = self._api.get_from_backend(location)
        digest = hashlib.sha256()
        for chunk in chunks:
            digest.update(chunk)
        return [size, digest.hexdigest()]

    def delete_all(self, locations: Sequence[str]) -> None:
        for location in locations:
            self._api.delete_from_backend(location)


def prepare_brick(locks: str) -> None:
    """Let os-brick attach volumes with the rights of this very process."""
    import os_brick
    import os_brick.privileged
    from oslo_concurrency import lockutils
    from oslo_config import cfg

    lockutils.set_defaults(locks)
    os_brick.setup(cfg.CONF)
    os_brick.privileged.default.set_client_mode(False)


def open_store(task: Task) -> Any:
    """Return what adds, gets and deletes images: a store of glance_store, or another program."""
    if task.driver in {"boto3", "swiftservice"}:
        sys.path.append(str(Path(__file__).resolve().parent))
        rivals: Any = __import__("rivals")
        return rivals.KINDS[task.driver](task.options)
    return (SingleStore if task.driver in SCHEMES else Store)(task)


def add_images(store: Any, task: Task) -> tuple[Measurement, list[str]]:
    """Add the images of ``task``; return the measurement and their locations."""
    sources = [open_source(task, index) for index in range(task.count)]
    declared = task.size if task.declared else 0

    def add(index: int) -> tuple[str, int, str]:
        added: tuple[str, int, str] = store.add(
            f"{task.prefix}-{index:06d}", sources[index], declared
        )
        return added

    measured, results = timed(add, task)
    text = "\n".join(both for _, _, both in results)
    digest = hashlib.sha256(text.encode()).hexdigest() if text.strip() else ""
    moved = sum(stored for _, stored, _ in results)
    measured = dataclasses.replace(measured, bytes=moved, digest=digest)
    return measured, [location for location, _, _ in results]


def get_images(store: Any, task: Task, locations: Sequence[str]) -> Measurement:
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


def peak_rss() -> int:
    """Return the largest resident size of this process, in bytes.

    What ``getrusage`` tells includes that of the parent, from the moment between fork and exec.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        (peak,) = (int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    except (OSError, ValueError):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * KIB


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


def measure(store: Any, task: Task) -> Measurement:
    """Measure, remove the images; return the repetition that took the median time.

    Raises RuntimeError when fewer or more bytes were moved than the task has.
    """
    locations: Sequence[str] = task.locations
    added = None
    if task.operation != "read":
        added, locations = add_images(store, task)
    measurements = []
    for repetition in range(task.repeat):
        if added is None:
            measured = get_images(store, task, locations)
        elif task.operation == "get":
            measured = dataclasses.replace(get_images(store, task, locations), digest=added.digest)
        elif repetition:
            store.delete_all(locations)
            measured, locations = add_images(store, task)
        else:
            measured = added
        check_moved(measured, task)
        measurements.append(measured)
    if added is not None:
        store.delete_all(locations)
    measurements.sort(key=lambda each: each.seconds)
    return dataclasses.replace(measurements[len(measurements) // 2], peak_rss=peak_rss())


def check_moved(measured: Measurement, task: Task) -> None:
    if measured.bytes != task.size * task.count:
        raise RuntimeError(f"{measured.bytes} bytes moved, not {task.size * task.count}")


def run(task: Task) -> Any:
    """Do the task; return what is to be printed."""
    store = open_store(task)
    if task.operation == "put":
        measured, locations = add_images(store, task)
        check_moved(measured, task)
        return locations
    if task.operation == "remove":
        return store.delete_all(task.locations)
    if task.operation == "check":
        return [store.check(location) for location in task.locations]
    if task.operation == "gone":
        return [store.is_gone(location) for location in task.locations]
    warm_up, _, _ = store.add(f"{task.prefix}-warm-up", GeneratedSource(MIB, seed=0), MIB)
    store.get(warm_up)
    store.delete_all([warm_up])
    return dataclasses.asdict(measure(store, task))


def tell_shortly(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    """Print an error that nobody caught, and at last all of its text in one line."""
    sys.__excepthook__(kind, error, traceback)
    print(" ".join(f"{kind.__name__}: {error}".split()), file=sys.stderr)


if __name__ == "__main__":
    sys.excepthook = tell_shortly
    received = Task(**json.load(sys.stdin))
    sys.path.extend(received.modules)
    print(json.dumps(run(received)))
