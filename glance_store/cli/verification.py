# SPDX-License-Identifier: Apache-2.0
"""Reads whole images to compare them with records, and remembers which ones are good."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import threading
from collections.abc import Iterable, Iterator
from typing import Any

from glance_store import exceptions
from glance_store.cli.errors import UsageError
from glance_store.cli.expected import Expected
from glance_store.cli.output import Progress
from glance_store.cli.stores import Found
from glance_store.transfer.digest import Digests
from glance_store.transfer.source import as_bytes
from glance_store.transfer.upload import UploadResult, upload

LOG = logging.getLogger(__name__)

DEFAULT_HASH = "sha512"


class NullWriter:
    """A writer that discards everything."""

    block_size = 4 * 1024 * 1024
    concurrency = 1
    holes = False

    def write(self, offset: int, block: memoryview) -> None:
        """Discard the block."""

    def commit(self, size: int) -> None:
        """Do nothing."""

    def abort(self) -> None:
        """Do nothing."""


def delivered(chunks: Iterable[Any], size: int, progress: Progress) -> Iterator[bytes]:
    """Yield the chunks of an image; raise TruncatedImage if bytes are missing at the end."""
    total = 0
    with closing(chunks):
        for chunk in chunks:
            data = as_bytes(chunk)
            total += len(data)
            progress.add(len(data))
            yield data
    if size and total < size:
        raise exceptions.TruncatedImage(position=total, expected=size)


def read_digests(found: Found, hash_algo: str, progress: Progress) -> UploadResult:
    """Read a whole image, and return what storing it would have returned."""
    chunks, size = found.value
    with closing(chunks):
        digests = Digests(hash_algo or DEFAULT_HASH)
        # Uploading to nowhere gives each digest its own thread.
        return upload(delivered(chunks, size, progress), NullWriter(), digests)


@contextlib.contextmanager
def closing(chunks: Any) -> Iterator[None]:
    """Close the chunks of an image at the end, if they can be closed."""
    try:
        yield
    finally:
        close = getattr(chunks, "close", None)
        if callable(close):
            close()


def differences(record: Expected, actual: UploadResult) -> str:
    """Say how an image differs from its record; empty if it does not."""
    wrong = []
    if record.size is not None and actual.size != record.size:
        wrong.append(f"{actual.size} bytes instead of {record.size}")
    if record.checksum and actual.checksum != record.checksum:
        wrong.append(f"md5 is {actual.checksum} instead of {record.checksum}")
    if record.hash_value and actual.multihash != record.hash_value:
        wrong.append(f"{record.hash_algo or DEFAULT_HASH} is {actual.multihash}")
    return "; ".join(wrong)


class StateFile:
    """Remembers across runs what was found good; without a name, nothing."""

    def __init__(self, name: str | None) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._known: set[str] = set()
        if name is None:
            return
        try:
            # A wrong directory is better known before the work than after it.
            os.stat(os.path.dirname(name) or ".")
            with contextlib.suppress(FileNotFoundError), open(name, encoding="utf-8") as file:
                self._known = {line.rstrip("\n") for line in file}
        except (OSError, UnicodeDecodeError) as exc:
            problem = getattr(exc, "strerror", None) or "it is not a state file"
            raise UsageError(f"--state-file: {name} cannot be used: {problem}") from exc

    def __contains__(self, text: str) -> bool:
        return self._mark(text) in self._known

    @staticmethod
    def _mark(text: str) -> str:
        # Locations may contain passwords, and bytes that are not UTF-8.
        return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()

    def add(self, text: str) -> None:
        """Remember something as good, such as the location of an image."""
        if self._name is None:
            return
        try:
            with self._lock, open(self._name, "a", encoding="utf-8") as file:
                file.write(self._mark(text) + "\n")
        except OSError as exc:
            # The image is good all the same.
            LOG.warning("--state-file: %s cannot be written: %s", self._name, exc.strerror)
