# SPDX-License-Identifier: Apache-2.0
"""What every upload must do, as functions of the upload function.

The tests of the engine apply them to the engine, and the mutation check to broken copies of it.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from typing import Any

import pytest

from glance_store import exceptions
from glance_store.transfer.digest import Digests

from .memory import BLOCK, CallerBlocks, MemoryWriter, Source, Verifier, pattern, wait

Upload = Callable[..., Any]

SIZES = (0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK - 1, 2 * BLOCK, 2 * BLOCK + 1, 20 * BLOCK + 7)


class SourceError(Exception):
    """What a broken source raises."""


class BackendError(Exception):
    """What a broken backend raises."""


def check_content(
    upload: Upload, size: int, declared: bool, concurrency: int, holes: bool = False
) -> None:
    """All bytes are stored and committed, and every digest and the verifier saw them."""
    data = pattern(size)
    writer = MemoryWriter(concurrency=concurrency, holes=holes)
    verifier = Verifier()
    result = upload(io.BytesIO(data), writer, Digests("sha256", verifier), size if declared else 0)
    assert result.size == size
    assert result.checksum == hashlib.md5(data).hexdigest()
    assert result.multihash == hashlib.sha256(data).hexdigest()
    assert verifier.data == data
    writer.check_stored(data)


def check_contents(upload: Upload) -> None:
    for size in SIZES:
        check_content(upload, size, declared=False, concurrency=1)
        check_content(upload, size, declared=True, concurrency=3)


def check_commit_after_writes(upload: Upload) -> None:
    """While a write runs, nothing is committed: the last one waits until the caller does."""
    blocks = 6
    data = pattern(blocks * BLOCK)
    caller = CallerBlocks()

    def on_write(number: int) -> None:
        if number == blocks - 1:
            wait(caller.blocked)

    # Should commit() come first, it lets the last write go on, and finds that it is running.
    writer = MemoryWriter(on_write=on_write, on_commit=caller.blocked.set)
    with caller.watch():
        upload(io.BytesIO(data), writer, Digests("sha256"), budget=blocks + 1)
    writer.check_stored(data)


def check_size_exceeded(upload: Upload, declared: int, actual: int, concurrency: int = 1) -> None:
    """Too much data is refused, and hardly any of it is read."""
    source = Source(pattern(actual))
    writer = MemoryWriter(concurrency=concurrency)
    with pytest.raises(exceptions.Invalid, match=f"^Size exceeds: expected {declared} "):
        upload(source, writer, Digests("sha256"), declared)
    assert source.position == declared + 1
    writer.check_aborted()


def check_size_missed(upload: Upload, declared: int, actual: int, concurrency: int = 1) -> None:
    """Too little data is refused."""
    writer = MemoryWriter(concurrency=concurrency)
    with pytest.raises(
        exceptions.Invalid, match=f"^Size mismatch: expected {declared} .* has {actual}$"
    ):
        upload(io.BytesIO(pattern(actual)), writer, Digests("sha256"), declared)
    writer.check_aborted()


WRONG_SIZES = (1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK, 3 * BLOCK + 5)


def check_declared_sizes(upload: Upload) -> None:
    for declared in WRONG_SIZES:
        check_size_exceeded(upload, declared, declared + 1)
        check_size_exceeded(upload, declared, declared + 5 * BLOCK)
        check_size_missed(upload, declared, declared - 1)
        check_size_missed(upload, declared, 0)


def check_source_error(
    upload: Upload, number: int, error: BaseException, size: int, concurrency: int = 1
) -> None:
    """What read `number` of the source raises reaches the caller, and nothing is stored."""
    source = Source(pattern(size), failures={number: error})
    writer = MemoryWriter(concurrency=concurrency)
    with pytest.raises(type(error)) as caught:
        upload(source, writer, Digests("sha256"))
    assert caught.value is error
    assert len(source.lengths) == number + 1
    writer.check_aborted()


def check_source_errors(upload: Upload) -> None:
    # With five whole blocks the sixth read finds the end.
    for number in range(6):
        check_source_error(upload, number, SourceError("unplugged"), 5 * BLOCK)


def check_write_error(upload: Upload, number: int, blocks: int, concurrency: int = 1) -> None:
    """What write `number` raises reaches the caller, and nothing is stored."""
    error = BackendError("broken disk")
    writer = MemoryWriter(concurrency=concurrency, failures={number: error})
    with pytest.raises(BackendError) as caught:
        upload(io.BytesIO(pattern(blocks * BLOCK)), writer, Digests("sha256"))
    assert caught.value is error
    writer.check_aborted()


def check_write_errors(upload: Upload) -> None:
    for number in range(5):
        check_write_error(upload, number, 5)


ALL: dict[str, Callable[[Upload], None]] = {
    "contents": check_contents,
    "commit after writes": check_commit_after_writes,
    "declared sizes": check_declared_sizes,
    "source errors": check_source_errors,
    "write errors": check_write_errors,
}
