# SPDX-License-Identifier: Apache-2.0
"""Copies one image to a store: verified, all or nothing, and never over another image."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Callable, Collection, Iterator
from typing import Any, NamedTuple

from glance_store import exceptions, location
from glance_store.cli.errors import describe
from glance_store.cli.expected import Expected
from glance_store.cli.holdings import STORE_ERRORS
from glance_store.cli.output import Progress
from glance_store.cli.stopping import Counted, Stop
from glance_store.cli.stores import Stored, Stores
from glance_store.cli.verification import (
    DEFAULT_HASH,
    StateFile,
    delivered,
    differences,
    read_digests,
)
from glance_store.inventory import COMPLETE, StoredImage
from glance_store.transfer.upload import UploadResult

COPIED, PRESENT, FAILED, PLANNED = "copied", "present", "failed", "planned"
# What was compared: the digests of the record or of the source, or only the size.
BY_HASH, BY_SIZE = "hash", "size"


class DifferentError(exceptions.GlanceStoreException):
    """The image is not what it should be."""


class Outcome(NamedTuple):
    """What became of one image; texts are empty where nothing is known."""

    state: str
    id: str
    location: str
    new_location: str
    size: int | None
    checksum: str = ""
    hash_algo: str = ""
    hash_value: str = ""
    verified: str = ""
    metadata: dict[str, Any] | None = None
    text: str = ""


class Target:
    """The store that images are copied to, and what it held at the beginning."""

    def __init__(self, opened: Stores, name: str, ids: Collection[str]) -> None:
        self._opened = opened
        self.name = name
        self._ids = ids
        self._lock = threading.Lock()
        self._images: dict[str, StoredImage] | None = None

    def look(self) -> None:
        """List the store, unless that was done before."""
        with self._lock:
            if self._images is None:
                self._images = dict(self._list())

    def find(self, image_id: str) -> StoredImage | None:
        """Return a complete image, None if there is none or the store was not listed."""
        return (self._images or {}).get(image_id)

    def _list(self) -> Iterator[tuple[str, StoredImage]]:
        # A driver that cannot list leaves it to the upload to find out that the id is taken. A
        # bucket or a container may not exist before its first image.
        with contextlib.suppress(exceptions.UnsupportedBackend, exceptions.NotFound):
            for image in self._opened.images(self.name):
                if (
                    image.image_id in self._ids
                    and image.state == COMPLETE
                    and image.uri is not None
                ):
                    yield image.image_id, image


class _Verdict:
    """Compares an image with its record before anybody can see the copy.

    If the record has no digests, the bytes from the source are counted and hashed instead.
    """

    def __init__(self, record: Expected, stop: Stop) -> None:
        self._record = record
        self._stop = stop
        self._read = None if _has_digests(record) else hashlib.md5(usedforsecurity=False)
        self._size = 0
        self.given = False

    def counted(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """Count and hash chunks on their way from the source."""
        for chunk in chunks:
            self._size += len(chunk)
            if self._read is not None:
                self._read.update(chunk)
            yield chunk
        # A source that was closed looks like one that has ended.
        self._stop.check()

    def update(self, data: Any) -> None:
        """Do nothing: the digests come with `approve`."""

    def approve(self, size: int, checksum: str, multihash: str) -> None:
        """Raise DifferentError if what was stored is not what it should be."""
        self.given = True
        expected = self._record
        if expected.size is None:
            expected = expected._replace(size=self._size)
        if self._read is not None:
            expected = expected._replace(checksum=self._read.hexdigest())
        check(expected, UploadResult(size, checksum, multihash))


def _has_digests(record: Expected) -> bool:
    return bool(record.checksum or record.hash_value)


def check(record: Expected, actual: UploadResult) -> None:
    """Raise DifferentError if an image does not match its record."""
    wrong = differences(record, actual)
    if wrong:
        raise DifferentError(wrong)


class Copier:
    """Copies images, in any number of threads.

    `verify` reads each copy back; `read` keeps the backend from copying by itself.
    """

    def __init__(
        self,
        opened: Stores,
        source: str | None,
        target: Target,
        state: StateFile,
        verify: bool,
        read: bool,
    ) -> None:
        self._opened = opened
        self._source = source
        self._target = target
        self._state = state
        self._verify = verify
        self._reads = read
        self._stop = Stop()

    def stop(self) -> None:
        """Stop the running transfers soon, and leave nothing behind."""
        self._stop.set()

    def plan(self, record: Expected) -> Outcome:
        """Return what `copy` would do, as far as that shows without reading data."""
        return self._guarded(record, lambda: self._plan(record))

    def copy(self, record: Expected, progress: Progress) -> Outcome:
        """Copy an image; a failure is an outcome, not an exception."""
        counted = Counted(progress, self._stop)
        return self._guarded(record, lambda: self._copy(record, counted))

    def _guarded(self, record: Expected, operation: Callable[[], Outcome]) -> Outcome:
        try:
            return operation()
        except Exception as exc:  # noqa: BLE001 - a driver from outside may fail in any way, and
            # the other images are copied all the same.
            text = describe(exc)
            return Outcome(FAILED, record.id, record.location, "", record.size, text=text)

    def _plan(self, record: Expected) -> Outcome:
        self._target.look()
        found = self._target.find(record.id)
        if found is not None:
            return _present(record, found, self._check_size(record, found), "")
        size = record.size if record.size is not None else self._size_of(record)
        return Outcome(PLANNED, record.id, record.location, "", size)

    def _copy(self, record: Expected, progress: Progress) -> Outcome:
        outcome = self._there_already(record, progress)
        if outcome is None:
            try:
                outcome = self._transfer(record, progress)
            except exceptions.Duplicate:
                self._target.look()
                outcome = self._there_already(record, progress)
                if outcome is None:
                    raise
        mark = self._mark(record)
        if outcome.verified == BY_HASH and mark not in self._state:
            self._state.add(mark)
        return outcome

    def _mark(self, record: Expected) -> str:
        return "\n".join([self._target.name, *map(str, record)])

    # -- images that the target already has

    def _there_already(self, record: Expected, progress: Progress) -> Outcome | None:
        found = self._target.find(record.id)
        if found is None:
            return None
        size = self._check_size(record, found)
        known = self._mark(record) in self._state
        if known or not (_has_digests(record) or self._verify):
            progress.add(size)
            return _present(record, found, size, BY_HASH if known else BY_SIZE)
        if not _has_digests(record):
            record = self._with_digests(record)
        actual = self._read(str(found.uri), self._target.name, record, progress)
        try:
            check(record, actual)
        except DifferentError as exc:
            raise DifferentError(f"{self._of_this_id()}: {exc}") from exc
        return _present(record, found, size, BY_HASH)

    def _with_digests(self, record: Expected) -> Expected:
        """Read the source, and return its record with the digests."""
        progress = Counted(Progress(), self._stop)
        read = self._read(record.location, self._source, record, progress)
        algorithm = record.hash_algo or DEFAULT_HASH
        return record._replace(
            checksum=read.checksum, hash_algo=algorithm, hash_value=read.multihash
        )

    def _check_size(self, record: Expected, found: StoredImage) -> int:
        """Return the size of an image in the target; raise if its source has another size."""
        there = found.size
        if there is None:
            there = int(self._opened.size(str(found.uri), self._target.name).value)
        size = record.size if record.size is not None else self._size_of(record)
        if there != size:
            raise DifferentError(f"{self._of_this_id()}, with {there} bytes instead of {size}")
        return there

    def _of_this_id(self) -> str:
        return f"the store {self._target.name} has a different image with this id"

    def _size_of(self, record: Expected) -> int:
        size: int = self._opened.size(record.location, self._source).value
        return size

    def _read(
        self, uri: str, store: str | None, record: Expected, progress: Progress
    ) -> UploadResult:
        found = self._opened.open(uri, store, 0, None)
        with self._stop.reading(found.value[0]):
            result = read_digests(found, record.hash_algo, progress)
            self._stop.check()
            return result

    # -- images that it does not have

    def _transfer(self, record: Expected, progress: Progress) -> Outcome:
        stored = None if self._reads else self._within(record, progress)
        if stored is None:
            stored = self._through_here(record, progress)
        if self._verify:
            with self._removed_on_error(stored.location):
                stored = self._verified(record, stored)
        return Outcome(
            COPIED,
            record.id,
            record.location,
            stored.location,
            stored.size,
            stored.checksum,
            record.hash_algo or DEFAULT_HASH if stored.multihash else "",
            stored.multihash,
            BY_HASH if stored.multihash else BY_SIZE,
            stored.metadata,
        )

    def _within(self, record: Expected, progress: Progress) -> Stored | None:
        """Have the backend copy an image by itself; None if it cannot."""
        stored = self._opened.copy_within(
            record.location, self._source, record.id, self._target.name, progress.add
        )
        if stored is not None and record.size not in (None, stored.size):
            with self._removed_on_error(stored.location):
                raise DifferentError(f"{stored.size} bytes instead of {record.size}")
        return stored

    def _through_here(self, record: Expected, progress: Progress) -> Stored:
        """Copy by reading and writing; digests are compared before the copy is visible."""
        chunks, size = self._opened.open(record.location, self._source, 0, None).value
        verdict = _Verdict(record, self._stop)
        with self._stop.reading(chunks):
            if size and record.size is not None and size != record.size:
                raise DifferentError(f"{size} bytes instead of {record.size}")
            stored = self._opened.put(
                record.id,
                verdict.counted(delivered(chunks, size, progress)),
                size or record.size or 0,
                record.hash_algo or DEFAULT_HASH,
                self._target.name,
                verdict,
            )
        if not verdict.given:
            # An outside driver stored the image in its own way, without asking for the verdict.
            with self._removed_on_error(stored.location):
                verdict.approve(stored.size, stored.checksum, stored.multihash)
        return stored

    def _verified(self, record: Expected, stored: Stored) -> Stored:
        """Read a copy back, and return it with its digests; raise if they are wrong."""
        if not _has_digests(record):
            if stored.multihash:
                record = record._replace(checksum=stored.checksum, hash_value=stored.multihash)
            else:
                record = self._with_digests(record)
        progress = Counted(Progress(), self._stop)
        actual = self._read(stored.location, self._target.name, record, progress)
        check(record._replace(size=stored.size), actual)
        return stored._replace(checksum=actual.checksum, multihash=actual.multihash)

    @contextlib.contextmanager
    def _removed_on_error(self, uri: str) -> Iterator[None]:
        """Remove a new copy that turns out to be bad."""
        try:
            yield
        except BaseException as exc:
            try:
                self._opened.delete(uri, self._target.name)
            except STORE_ERRORS as failure:
                raise DifferentError(
                    f"{describe(exc)}; its copy {location.redact(uri)} cannot be removed: "
                    f"{describe(failure)}"
                ) from exc
            raise


def _present(record: Expected, found: StoredImage, size: int | None, verified: str) -> Outcome:
    return Outcome(
        PRESENT,
        record.id,
        record.location,
        str(found.uri),
        size,
        record.checksum,
        record.hash_algo,
        record.hash_value,
        verified,
    )
