# SPDX-License-Identifier: Apache-2.0
"""The commands on the list of stores and on single images."""

from __future__ import annotations

import argparse
import hashlib
import sys
import uuid
from collections.abc import Callable, Sequence

from glance_store import location
from glance_store.cli import files
from glance_store.cli.errors import FAILED, OK, UsageError
from glance_store.cli.output import Output, ProgressReader, human_size, short_size
from glance_store.cli.stores import StoreInfo, Stores, scheme_of
from glance_store.cli.verification import delivered, read_digests
from glance_store.transfer.digest import Digests

_METRICS: dict[str, tuple[str, str, Callable[[StoreInfo], float | None]]] = {
    "glance_store_up": ("gauge", "Whether the store is healthy.", lambda info: int(info.healthy)),
    "glance_store_probe_seconds": (
        "gauge",
        "How long the health check took.",
        lambda info: info.latency,
    ),
    "glance_store_total_bytes": ("gauge", "Capacity of the backend.", lambda info: info.total),
    "glance_store_free_bytes": ("gauge", "Free space of the backend.", lambda info: info.free),
    "glance_store_used_bytes": ("gauge", "Used space of the backend.", lambda info: info.used),
    "glance_store_shared_used_bytes": (
        "gauge",
        "Space used by shared downloads.",
        lambda info: (info.shared or {}).get("used"),
    ),
    "glance_store_shared_downloads_total": (
        "counter",
        "Downloads that reused bytes read by other downloads.",
        lambda info: (info.shared or {}).get("downloads"),
    ),
    "glance_store_shared_saved_bytes_total": (
        "counter",
        "Bytes that the backends did not have to send.",
        lambda info: (info.shared or {}).get("saved"),
    ),
}
_STORE_COLUMNS = ("id", "driver", "capabilities", "default", "weight", "health")


def stores(args: argparse.Namespace, opened: Stores, output: Output) -> int:
    """List the stores."""
    listing = opened.listing(args.timeout)
    if args.prometheus:
        output.write(metrics(listing))
    else:
        columns: tuple[str, ...] = _STORE_COLUMNS
        rows = [info._asdict() for info in listing]
        if not output.as_json and any(info.shared for info in listing):
            columns = (*columns[:-1], "shared reads", columns[-1])
            for row in rows:
                row["shared reads"] = row["shared"] and _of_shared(**row["shared"])
        output.table(rows, columns)
    problem = opened.default_problem()
    if problem:
        output.warn(problem)
    if args.check and (problem or not all(info.healthy for info in listing)):
        return FAILED
    return OK


def _of_shared(used: int, limit: int, downloads: int, saved: int) -> str:
    room = f"{short_size(used)} of {short_size(limit)} used"
    return f"{short_size(saved)} saved, downloads: {downloads}, {room}"


def metrics(listing: Sequence[StoreInfo]) -> str:
    """Return the state of the stores as Prometheus metrics.

    The form is https://prometheus.io/docs/instrumenting/exposition_formats/ (text).
    """
    lines = []
    for name, (kind, text, value) in _METRICS.items():
        lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
        for info in listing:
            found = value(info)
            if found is not None:
                labels = f'store="{_label(info.id)}",driver="{_label(info.driver)}"'
                lines.append(f"{name}{{{labels}}} {found}")
    return "\n".join(lines)


def _label(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def put(args: argparse.Namespace, opened: Stores, output: Output) -> int:
    """Store an image."""
    image_id = args.id or str(uuid.uuid4())
    with (
        files.open_source(args.file, args.size) as source,
        output.progress("put", source.size) as progress,
    ):
        counted = ProgressReader(source, progress)
        stored = opened.put(image_id, counted, source.size, args.hash, args.store)
    output.fields(
        {
            "id": image_id,
            "location": stored.location,
            "size": stored.size,
            "checksum": stored.checksum,
            "multihash": stored.multihash,
            "hash": args.hash,
            "metadata": stored.metadata,
        },
        {"size": human_size(stored.size)},
    )
    return OK


def get(args: argparse.Namespace, opened: Stores, output: Output) -> int:
    """Read an image or a range of it."""
    with files.open_destination(args.output, args.force) as destination:
        found = opened.open(args.uri, args.store, args.offset, args.length)
        chunks, size = found.value
        written = 0
        with output.progress("get", size) as progress:
            for chunk in delivered(chunks, size, progress):
                destination.write(chunk)
                written += len(chunk)
            destination.commit()
    if destination.is_output:
        return OK
    if output.as_json:
        output.fields({"store": found.store, "file": args.output, "size": written})
    output.note(f"{args.output}: {human_size(written)} from the store {found.store}")
    return OK


def stat(args: argparse.Namespace, opened: Stores, output: Output) -> int:
    """Show where an image is and its size."""
    found = opened.size(args.uri, args.store)
    output.fields(
        {
            "location": args.uri,
            "size": found.value,
            "store": found.store,
            "driver": found.driver,
            "scheme": scheme_of(args.uri),
        },
        {"size": human_size(found.value)},
    )
    return OK


def verify(args: argparse.Namespace, opened: Stores, output: Output) -> int:
    """Read a whole image and compare its digests."""
    # An unknown hash is told before the image is opened.
    Digests(args.hash)
    expected = {
        "checksum": _expected("--checksum", args.checksum, "md5"),
        "multihash": _expected("--multihash", args.multihash, args.hash),
    }
    found = opened.open(args.uri, args.store, 0, None)
    _chunks, size = found.value
    with output.progress("verify", size) as progress:
        result = read_digests(found, args.hash, progress)
    actual = {"checksum": result.checksum, "multihash": result.multihash}
    wrong = [name for name, value in expected.items() if value and value != actual[name]]
    verified = not wrong if any(expected.values()) else None
    output.fields(
        {
            "location": args.uri,
            "store": found.store,
            "size": result.size,
            **actual,
            "hash": args.hash,
            "expected": {name: value for name, value in expected.items() if value},
            "verified": verified,
        },
        {
            "size": human_size(result.size),
            "expected": "",
            "verified": _verdict(expected, wrong),
        },
    )
    return FAILED if wrong else OK


def remove(args: argparse.Namespace, opened: Stores, output: Output) -> int:
    """Remove an image."""
    if args.dry_run:
        found = opened.size(args.uri, args.store)
        if output.as_json:
            output.fields({"location": args.uri, "store": found.store, "removed": False})
        output.note(f"Would remove {human_size(found.value)} from the store {found.store}.")
        return OK
    if not args.yes:
        if sys.stdin is None or not sys.stdin.isatty():
            raise UsageError("nobody is there to confirm: use --yes to remove the image")
        found = opened.size(args.uri, args.store)
        question = (
            f"Remove {location.redact(args.uri)}, {human_size(found.value)}, from the store "
            f"{found.store}? [y/N] "
        )
        if not output.confirm(question):
            output.note("Nothing was removed.")
            return FAILED
        args.store = found.store
    found = opened.delete(args.uri, args.store)
    if output.as_json:
        output.fields({"location": args.uri, "store": found.store, "removed": True})
    output.note(f"Removed from the store {found.store}.")
    return OK


def _expected(option: str, value: str | None, algorithm: str) -> str | None:
    """Return a digest from the command line in the form of `hexdigest`."""
    if value is None:
        return None
    digits = 2 * hashlib.new(algorithm, usedforsecurity=False).digest_size
    text = value.strip().lower()
    if len(text) != digits or set(text) - set("0123456789abcdef"):
        raise UsageError(f"{option}: {algorithm} has {digits} hexadecimal digits, not {value!r}")
    return text


def _verdict(expected: dict[str, str | None], wrong: list[str]) -> str:
    given = [name for name, value in expected.items() if value]
    if not given:
        return ""
    if not wrong:
        return f"yes ({' and '.join(given)})"
    return "NO: " + ", ".join(f"{name} should be {expected[name]}" for name in wrong)
