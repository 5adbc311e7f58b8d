# SPDX-License-Identifier: Apache-2.0
"""The command bench: how fast a store is from here, and where this machine is the limit."""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import functools
import os
import re
import secrets
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from glance_store.cli import arguments
from glance_store.cli.errors import OK, UsageError, describe
from glance_store.cli.holdings import STORE_ERRORS
from glance_store.cli.output import Output, Progress, human_size
from glance_store.cli.stopping import StoppedError
from glance_store.cli.stores import Stores
from glance_store.cli.verification import NullWriter, delivered
from glance_store.location import redact
from glance_store.transfer.digest import Digests
from glance_store.transfer.load import cores
from glance_store.transfer.threads import Workers
from glance_store.transfer.upload import upload

# Identifies the images of a benchmark, in case the command is killed.
PREFIX = "glance-store-bench-"

_MIB, _GIB = 1 << 20, 1 << 30
# Defaults for --count: images of so many bytes together, and no more than so many images.
_BYTES, _MOST = 256 * _MIB, 20
# How long to measure a limit of this machine, and how much to write to its disk.
_SECONDS, _DISK_BYTES = 0.25, 1 * _GIB
_BLOCK = 4 * _MIB


class _Size(NamedTuple):
    text: str
    bytes: int


def _sizes(text: str) -> list[_Size]:
    """Parse sizes of images, such as 64K,1G."""
    return [_Size(word, arguments.length(word.upper())) for word in re.split(" *, *", text.strip())]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command to its parser."""
    arguments.add_storing(parser)
    parser.add_argument(
        "--size",
        type=_sizes,
        default="64K,64M,1G",
        metavar="BYTES,...",
        help="sizes of the images (default: 64K,64M,1G)",
    )
    parser.add_argument(
        "--parallel",
        type=arguments.count,
        default=1,
        metavar="N",
        help="images to transfer at a time (default: 1)",
    )
    parser.add_argument(
        "--count",
        type=arguments.count,
        metavar="N",
        help="images of each size (default: as many as make 256 MiB, at most 20, at least "
        "--parallel)",
    )
    parser.add_argument(
        "--disk",
        metavar="DIR",
        help="also measure the disk under this directory (default: that of a file store)",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="show what would be stored, and store nothing"
    )


def bench(args: argparse.Namespace, opened: Stores, output: Output) -> int:
    """Put, get and remove images, and print how long that took."""
    name = opened.chosen(args.store)
    store = next(found for _name, found, _problem in opened.each(name))
    counts = [(size, _count(args, size)) for size in args.size]
    largest = max(size.bytes * count for size, count in counts)
    plan = (
        f"{sum(count for _size, count in counts)} images into the store {name}, at most "
        f"{human_size(largest)} at a time"
    )
    free = _free(store)
    if free is not None and free < largest:
        raise UsageError(f"{plan}: it has only {human_size(free)} free")
    if args.dry_run:
        output.note(f"Would put {plan}, and remove them")
        return OK
    prefix = f"{PREFIX}{secrets.token_hex(4)}-"
    limits = _limits(args, store)
    total = sum(size.bytes * count for size, count in counts) * len(("put", "get"))
    with output.progress("bench", total) as progress:
        run = _Run(args, opened, name, prefix, progress)
        rows = run.all(counts, output)
    if output.as_json:
        result = {"store": name, "prefix": prefix, "parallel": args.parallel, "hash": args.hash}
        output.fields({**result, "limits": limits, "results": rows})
    else:
        shown = [_shown(row) for row in rows]
        output.table(shown, list(shown[0]))
        _print_limits(limits, args, output)
    return OK


def _free(store: Any) -> int | None:
    room = None
    # Using the store shows what is wrong with it.
    with contextlib.suppress(*STORE_ERRORS):
        room = store.capacity()
    return None if room is None else room.free


def _count(args: argparse.Namespace, size: _Size) -> int:
    default = max(args.parallel, min(_MOST, max(1, _BYTES // size.bytes)))
    return int(args.count or default)


class _Sample(NamedTuple):
    """Seconds until one image was complete, and until its first byte."""

    seconds: float
    first_byte: float | None = None


class _Run:
    """Puts, gets and removes images, several at a time; always removes all of them."""

    def __init__(
        self,
        args: argparse.Namespace,
        opened: Stores,
        store: str,
        prefix: str,
        progress: Progress,
    ) -> None:
        self._opened = opened
        self._store = store
        self._hash = args.hash
        self._prefix = prefix
        self._progress = progress
        self._parallel = args.parallel
        self._workers = Workers(args.parallel, "glance_store-bench")
        self._stop = threading.Event()
        # The stored images: location by id. Each thread changes only its own entries.
        self._stored: dict[str, str] = {}
        self._bytes = os.urandom(2 * _BLOCK)

    def all(self, counts: Sequence[tuple[_Size, int]], output: Output) -> list[dict[str, Any]]:
        """Run all sizes, and return the figures."""
        rows: list[dict[str, Any]] = []
        try:
            # The first images do not count: they include logins and new connections.
            self._round(_Size("first", 1), self._parallel)
            for size, count in counts:
                rows += self._round(size, count)
        finally:
            self._clean(output)
        return rows

    def _round(self, size: _Size, count: int) -> list[dict[str, Any]]:
        names = [f"{self._prefix}{size.text}-{number}" for number in range(count)]
        return [
            self._timed(operation, size, names)
            for operation in (self._put, self._get, self._remove)
        ]

    def _timed(
        self, operation: Callable[[str, int], _Sample], size: _Size, names: Sequence[str]
    ) -> dict[str, Any]:
        begun, computed = time.monotonic(), _cpu()
        tasks = [self._workers.submit(self._run, operation, name, size.bytes) for name in names]
        samples = [task.result() for task in concurrent.futures.as_completed(tasks)]
        seconds, computed = time.monotonic() - begun, _cpu() - computed
        moved = size.bytes * len(names) if operation != self._remove else 0
        first = [one.first_byte for one in samples if one.first_byte is not None]
        return {
            "operation": operation.__name__.strip("_"),
            "size": size.text,
            "bytes": size.bytes,
            "images": len(names),
            "seconds": round(seconds, 4),
            "bytes_per_second": round(moved / seconds) if moved else None,
            "images_per_second": round(len(names) / seconds, 2),
            "cpu_seconds": round(computed, 4),
            "cpu_seconds_per_gib": round(computed / moved * _GIB, 2) if moved else None,
            "cores_busy": round(computed / seconds, 2),
            "median_seconds": round(statistics.median(one.seconds for one in samples), 4),
            "slowest_seconds": round(max(one.seconds for one in samples), 4),
            "first_byte_seconds": round(statistics.median(first), 4) if first else None,
        }

    def _run(self, operation: Callable[[str, int], _Sample], name: str, size: int) -> _Sample:
        if self._stop.is_set():
            raise StoppedError
        return operation(name, size)

    def _put(self, name: str, size: int) -> _Sample:
        source = _Source(self._bytes, size, self._stop, self._progress)
        begun = time.monotonic()
        stored = self._opened.put(name, source, size, self._hash, self._store)
        self._stored[name] = stored.location
        return _Sample(time.monotonic() - begun)

    def _get(self, name: str, _size: int) -> _Sample:
        begun = time.monotonic()
        first = None
        chunks, size = self._opened.open(self._stored[name], self._store, 0, None).value
        for _chunk in delivered(chunks, size, self._progress):
            first = first or time.monotonic() - begun
            if self._stop.is_set():
                raise StoppedError
        return _Sample(time.monotonic() - begun, first)

    def _remove(self, name: str, _size: int) -> _Sample:
        begun = time.monotonic()
        self._opened.delete(self._stored[name], self._store)
        del self._stored[name]
        return _Sample(time.monotonic() - begun)

    def _clean(self, output: Output) -> None:
        """Remove the stored images; name those that a second interrupt leaves behind."""
        # Start nothing more, and wait for what is running.
        self._stop.set()
        try:
            self._workers.close(wait=True)
            for name in list(self._stored):
                try:
                    self._remove(name, 0)
                except STORE_ERRORS as exc:
                    output.warn(f"{name} cannot be removed: {describe(exc)}")
        finally:
            for name, uri in self._stored.items():
                output.warn(f"{name} is left: remove {redact(uri)}")


class _Source:
    """Bytes that no backend can compress, in a different order for each image."""

    def __init__(
        self, data: bytes, size: int, stop: threading.Event, progress: Progress | None = None
    ) -> None:
        self._data = memoryview(data)
        self._left = size
        self._stop = stop
        self._progress = progress or Progress()
        self._position = secrets.randbelow(len(data) // 2)

    def read(self, length: int) -> bytes:
        """Return the next bytes."""
        if self._stop.is_set():
            raise StoppedError
        length = min(length, self._left, len(self._data) // 2)
        start = self._position
        self._position = (start + length // 2 + 1) % (len(self._data) // 2)
        self._left -= length
        self._progress.add(length)
        return bytes(self._data[start : start + length])


def _cpu() -> float:
    """Return the CPU seconds of this process and its children."""
    times = os.times()
    return time.process_time() + times.children_user + times.children_system


# -- the limits of this machine


def _limits(args: argparse.Namespace, store: Any) -> dict[str, Any]:
    """Return the limits of this machine in bytes per second: hashes and disk."""
    # Read before this command adds to it.
    load = os.getloadavg()[0]
    limits: dict[str, Any] = {
        "cores": cores(),
        "load": round(load, 2),
        "hashes_of_one_upload": round(_hashes(args.hash, 1)),
        "hashes_of_all_uploads": round(_hashes(args.hash, args.parallel)),
    }
    prefix = store.url_prefix or ""
    own = prefix.removeprefix("file://") if prefix.startswith("file://") else None
    folder = args.disk or own
    if folder is None:
        return limits
    try:
        write, read = _disk(folder)
    except OSError as exc:
        if args.disk:
            raise UsageError(f"--disk: {folder} cannot be measured: {exc.strerror}") from exc
        # Using the store shows what is wrong with it.
        return limits
    return {**limits, "disk": folder, "disk_writes": round(write), "disk_reads": round(read)}


def _hashes(algorithm: str, parallel: int) -> float:
    """Return how many bytes a second this machine can hash for uploads."""
    stop = threading.Event()
    data = os.urandom(2 * _BLOCK)
    workers = Workers(parallel, "glance_store-bench-hashes")

    def run() -> int:
        return upload(_endless(data, stop), NullWriter(), Digests(algorithm)).size

    begun = time.monotonic()
    tasks = [workers.submit(run) for _number in range(parallel)]
    try:
        stop.wait(_SECONDS)
    finally:
        stop.set()
        workers.close()
    return sum(task.result() for task in tasks) / (time.monotonic() - begun)


def _endless(data: bytes, stop: threading.Event) -> Iterator[bytes]:
    while not stop.is_set():
        yield data


def _disk(folder: str) -> tuple[float, float]:
    """Return how many bytes a second a disk writes and reads."""
    data = os.urandom(_BLOCK)
    status = os.statvfs(folder)
    most = min(_DISK_BYTES, status.f_bavail * status.f_frsize // 4)
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        written, begun = 0, time.monotonic()
        while written < max(most, _BLOCK) and time.monotonic() - begun < _SECONDS:
            written += file.write(data)
        os.fsync(file.fileno())
        write = written / (time.monotonic() - begun)
        # If the system keeps the file in memory, that is measured.
        with contextlib.suppress(OSError):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        file.seek(0)
        begun = time.monotonic()
        read = sum(map(len, iter(functools.partial(file.read, _BLOCK), b"")))
        return write, read / (time.monotonic() - begun)


# -- output for people


def _mib(rate: int | None) -> str:
    return "" if rate is None else f"{rate / _MIB:.1f}"


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "operation": row["operation"],
        "size": row["size"],
        "images": row["images"],
        "MiB/s": _mib(row["bytes_per_second"]),
        "images/s": row["images_per_second"],
        "CPU s/GiB": row["cpu_seconds_per_gib"],
        "cores busy": row["cores_busy"],
        "median s": row["median_seconds"],
        "slowest s": row["slowest_seconds"],
        "first byte s": row["first_byte_seconds"],
    }


def _print_limits(limits: dict[str, Any], args: argparse.Namespace, output: Output) -> None:
    names = "md5" if args.hash == "md5" else f"md5 and {args.hash}"
    output.note(
        f"This machine: {limits['cores']} cores, load {limits['load']}; {names} of one upload "
        f"{_mib(limits['hashes_of_one_upload'])} MiB/s, of {args.parallel} at a time "
        f"{_mib(limits['hashes_of_all_uploads'])} MiB/s"
    )
    if "disk" in limits:
        output.note(
            f"The disk under {limits['disk']}: writes {_mib(limits['disk_writes'])} MiB/s, reads "
            f"{_mib(limits['disk_reads'])} MiB/s"
        )
