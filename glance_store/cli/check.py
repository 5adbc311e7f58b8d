# SPDX-License-Identifier: Apache-2.0
"""The command check: compares the stores with the image service's records. It changes nothing."""

from __future__ import annotations

import argparse
import concurrent.futures
import itertools
import json
import zlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from glance_store import exceptions, location
from glance_store.cli import expected
from glance_store.cli.errors import FAILED, OK, UsageError, describe, printable
from glance_store.cli.expected import Expected
from glance_store.cli.holdings import STORE_ERRORS, SurveyedStores
from glance_store.cli.output import Output, Progress, counted
from glance_store.cli.stores import Stores
from glance_store.cli.verification import StateFile, differences, read_digests
from glance_store.inventory import COMPLETE, INCOMPLETE
from glance_store.transfer.threads import Workers


class Finding(NamedTuple):
    """Something that is wrong with an image or a record."""

    problem: str
    store: str
    id: str
    location: str
    text: str


class _Copy(NamedTuple):
    """A complete image in a store, at a location that no record names."""

    store: str
    id: str
    uri: str
    size: int | None


def check(args: argparse.Namespace, opened: Stores, output: Output) -> int:
    """Compare the stores with the records of the image service."""
    records = expected.read(args.expect) if args.expect else []
    if args.data and not records:
        raise UsageError("--data needs records with digests: give them with --expect")
    stores = SurveyedStores(args, opened, output)
    survey = _Survey(opened, args.store, records, bool(args.expect))
    count = 0
    for finding in itertools.chain(survey.run(stores), _verify(args, opened, survey, output)):
        count += 1
        output.write(_line(finding, output.as_json))
    figures = {"image": survey.images, "record": len(records), "problem": count}
    output.note(", ".join(counted(number, noun) for noun, number in figures.items()))
    return FAILED if count or stores.code else OK


def _line(finding: Finding, as_json: bool) -> str:
    shown = finding._replace(location=location.redact(finding.location) if finding.location else "")
    if as_json:
        return json.dumps(shown._asdict())
    where = f"{shown.id}  {shown.location}".rstrip()
    return printable(f"{shown.problem:<10}  {shown.store:<12}  {where}: {shown.text}")


class _Survey:
    """Compares what is in the stores with the records."""

    def __init__(
        self, opened: Stores, only: str | None, records: list[Expected], has_records: bool
    ) -> None:
        self._opened = opened
        self._only = only
        self._has_records = has_records  # without records, nothing is missing or orphaned
        # Several images may have one location, such as a file on a web server.
        self._by_uri: dict[str, list[Expected]] = {}
        for record in records:
            self._by_uri.setdefault(record.location, []).append(record)
        self._ids = {record.id for record in records}
        self._found_at: dict[str, list[str]] = {}
        self._prefixes: list[str] = []
        self.present: list[Expected] = []
        self.images = 0

    def run(self, stores: SurveyedStores) -> Iterator[Finding]:
        """Yield what is wrong."""
        unknown: list[_Copy] = []
        for name, store in stores.each():
            self._prefixes += [store.url_prefix] if store.url_prefix else []
            for image in stores.found(name, store.images):
                if image.state == INCOMPLETE:
                    yield Finding(
                        "incomplete",
                        name,
                        image.image_id,
                        "",
                        "an unfinished upload: it is still running, or glance-store gc finds it",
                    )
                elif image.state == COMPLETE and image.uri is not None:
                    self.images += 1
                    self._found_at.setdefault(image.image_id, []).append(name)
                    named = self._by_uri.pop(image.uri, [])
                    if not named:
                        unknown.append(_Copy(name, image.image_id, image.uri, image.size))
                    for record in named:
                        self.present.append(record)
                        yield from _size_of(record, name, image.size)
        if self._has_records:
            listed = {record.id for record in self.present}
            yield from self._absent()
            yield from self._unknown(unknown, listed)
        yield from self._twice()

    def _absent(self) -> Iterator[Finding]:
        """Yield records whose images are missing, also under other forms of their locations."""
        for record in itertools.chain.from_iterable(self._by_uri.values()):
            if self._only and not record.location.startswith(tuple(self._prefixes)):
                # Belongs to another store, as far as its location shows.
                continue
            try:
                found = self._opened.size(record.location, self._only)
            except exceptions.NotFound:
                yield Finding("missing", self._only or "", record.id, record.location, "not found")
            except STORE_ERRORS as exc:
                # The location itself may be invalid, for example encrypted.
                yield _failed(record, self._only or "", exc)
            else:
                self.present.append(record)
                # 0 also stands for a size that the server does not tell.
                yield from _size_of(record, found.store, found.value or None)

    def _unknown(self, unknown: Iterable[_Copy], listed: set[str]) -> Iterator[Finding]:
        """Yield images whose locations no record names; `listed`: ids that were found."""
        there = {record.id for record in self.present}
        for copy in unknown:
            if copy.id not in self._ids:
                text = "no record of the image service names it"
                yield Finding("orphan", copy.store, copy.id, copy.uri, text)
            elif copy.id not in there:
                text = "the image is here, but its record names another location"
                yield Finding("elsewhere", copy.store, copy.id, copy.uri, text)
            elif copy.id in listed and self._found_at[copy.id].count(copy.store) == 1:
                text = "the image is also here, where no record names it"
                yield Finding("twice", copy.store, copy.id, copy.uri, text)

    def _twice(self) -> Iterator[Finding]:
        """Yield images that one store has more than once; several stores may each have one."""
        for image_id, names in self._found_at.items():
            for name in sorted({name for name in names if names.count(name) > 1}):
                text = "the store has more than one image with this id"
                yield Finding("twice", name, image_id, "", text)


def _size_of(record: Expected, store: str, size: int | None) -> Iterator[Finding]:
    if size is not None and record.size is not None and size != record.size:
        text = f"{size} bytes instead of {record.size}"
        yield Finding("size", store, record.id, record.location, text)


def _failed(record: Expected, store: str, exc: BaseException) -> Finding:
    return Finding("failed", store, record.id, record.location, describe(exc))


def _verify(
    args: argparse.Namespace, opened: Stores, survey: _Survey, output: Output
) -> Iterator[Finding]:
    """Read images, several at a time, and compare their digests."""
    if not args.data:
        return
    part, whole = args.sample
    done = StateFile(args.state_file)
    wanted = [
        record
        for record in survey.present
        if zlib.crc32(record.id.encode(errors="surrogatepass")) % whole < part
        and _mark(record) not in done
    ]
    size = sum(record.size or 0 for record in wanted)
    workers = Workers(args.parallel, "glance_store-check")
    with output.progress("check", size) as progress:
        tasks = {workers.submit(_digest, opened, args.store, one, progress): one for one in wanted}
        try:
            for task in concurrent.futures.as_completed(tasks):
                record = tasks[task]
                finding = task.result()
                if finding is None:
                    done.add(_mark(record))
                else:
                    yield finding
        finally:
            for task in tasks:
                task.cancel()
            workers.close()


def _mark(record: Expected) -> str:
    # All of it: another image may have the same location, and other digests.
    return "\n".join(map(str, record))


def _digest(
    opened: Stores, store: str | None, record: Expected, progress: Progress
) -> Finding | None:
    """Return what is wrong with the data of an image, None if nothing is."""
    try:
        found = opened.open(record.location, store, 0, None)
        result = read_digests(found, record.hash_algo, progress)
    except STORE_ERRORS as exc:
        return _failed(record, store or "", exc)
    wrong = differences(record, result)
    return Finding("damaged", found.store, record.id, record.location, wrong) if wrong else None
