# SPDX-License-Identifier: Apache-2.0
"""The command copy: copies images to another store. It changes no records and removes nothing."""

from __future__ import annotations

import argparse
import collections
import concurrent.futures
import contextlib
import json
from collections.abc import Iterator

from glance_store import exceptions, location
from glance_store.cli import arguments, copier, expected
from glance_store.cli.config import Needs
from glance_store.cli.copier import Copier, Outcome, Target
from glance_store.cli.errors import FAILED, OK, OutputClosedError, UsageError, printable
from glance_store.cli.expected import Expected
from glance_store.cli.holdings import STORE_ERRORS
from glance_store.cli.output import Output, human_size
from glance_store.cli.stores import Stores
from glance_store.cli.verification import StateFile
from glance_store.inventory import COMPLETE
from glance_store.transfer.threads import Workers


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command to its parser."""
    parser.add_argument("uris", metavar="URI", nargs="*", help="location of an image")
    parser.add_argument("--to", metavar="ID", required=True, help="store to copy the images to")
    parser.add_argument(
        "--from-store",
        metavar="ID",
        help="store to copy from (default: the one that has the image); without URI, copy "
        "all of its images",
    )
    parser.add_argument(
        "--expect",
        metavar="FILE",
        help="records of the image service, as for check: compare images with their digests, "
        "and copy only images of a store that have a record; - for stdin",
    )
    parser.add_argument(
        "--id", type=arguments.image_id, help="id of the image, if its URI does not contain it"
    )
    parser.add_argument(
        "--verify", action="store_true", help="read each copy back and compare its digests"
    )
    parser.add_argument(
        "--read",
        action="store_true",
        help="read each image and compare its digests on the way, even where the backend "
        "could copy it by itself",
    )
    parser.add_argument(
        "--parallel",
        type=arguments.count,
        default=2,
        metavar="N",
        help="images to copy at a time (default: 2)",
    )
    parser.add_argument(
        "--state-file",
        metavar="FILE",
        help="record good copies in FILE, and do not read those recorded there",
    )
    parser.add_argument(
        "-n",
        "--dry-run",
        action="store_true",
        help="show what would be copied, and copy nothing",
    )


def needs(args: argparse.Namespace) -> list[Needs]:
    """Return the stores that the command needs."""
    sources = [Needs(uri, args.from_store) for uri in args.uris]
    return [*(sources or [Needs(store=args.from_store)]), Needs(store=args.to, writes=True)]


def copy(args: argparse.Namespace, opened: Stores, output: Output) -> int:
    """Copy images to a store."""
    _check(args, opened)
    records = expected.read(args.expect) if args.expect else None
    found = _named(args, opened, records) if args.uris else _all(args, opened, records)
    # An image may have several locations, each with a record.
    wanted = {record.id: record for record in found}
    target = Target(opened, args.to, wanted.keys())
    state = StateFile(args.state_file)
    runner = Copier(opened, args.from_store, target, state, args.verify, args.read)
    report = _Report(output)
    if args.dry_run:
        for record in wanted.values():
            report.add(runner.plan(record))
    else:
        if not args.uris:
            target.look()
        _run(args, runner, list(wanted.values()), report, output)
    report.end()
    return FAILED if report.counts[copier.FAILED] else OK


def _check(args: argparse.Namespace, opened: Stores) -> None:
    if not args.uris and not args.from_store:
        raise UsageError("name the images by their locations, or a store with --from-store")
    if args.id and len(args.uris) != 1:
        raise UsageError("--id needs exactly one location")
    if args.from_store == args.to:
        raise UsageError(f"{args.to} cannot be copied to itself")
    for name in filter(None, (args.from_store, args.to)):
        # Report an unknown store once, not for each image.
        next(opened.each(name))


def _named(
    args: argparse.Namespace, opened: Stores, records: list[Expected] | None
) -> Iterator[Expected]:
    """Yield the images named on the command line."""
    by_uri = {record.location: record for record in records or []}
    for uri in args.uris:
        if records is not None and uri not in by_uri:
            raise UsageError(f"{args.expect} has no record of {location.redact(uri)}")
        record = by_uri.get(uri) or Expected(_id_of(args, opened, uri), uri, None, "", "", "")
        yield record if record.size is not None else _measured(args, opened, record)


def _measured(args: argparse.Namespace, opened: Stores, record: Expected) -> Expected:
    """Return a record with the size of its image, for the progress bar."""
    try:
        # The attempt to copy shows what is wrong.
        return record._replace(size=opened.size(record.location, args.from_store).value or None)
    except STORE_ERRORS:
        return record


def _id_of(args: argparse.Namespace, opened: Stores, uri: str) -> str:
    found = args.id or opened.image_id(uri, args.from_store)
    if found is None:
        raise UsageError(
            f"{location.redact(uri)} does not contain the id of the image: give it with --id"
        )
    try:
        return arguments.image_id(found)
    except argparse.ArgumentTypeError as exc:
        raise UsageError(f"{exc}: give another one with --id") from exc


def _all(
    args: argparse.Namespace, opened: Stores, records: list[Expected] | None
) -> Iterator[Expected]:
    """Yield the images of a store; with records, only those that have one."""
    left = None if records is None else {record.location: record for record in records}
    # With records, the store need not be able to list.
    unable = (exceptions.UnsupportedBackend,) if records is not None else ()
    with contextlib.suppress(*unable):
        for image in opened.images(args.from_store):
            if image.state != COMPLETE or image.uri is None:
                continue
            if left is None:
                yield Expected(image.image_id, image.uri, image.size, "", "", "")
            elif image.uri in left:
                yield left.pop(image.uri)
    # Stored under another form of the location, or gone: the attempt to copy shows which.
    for record in (left or {}).values():
        if _is_of(opened, record, args.from_store):
            yield record


def _is_of(opened: Stores, record: Expected, store: str) -> bool:
    """Tell whether a record belongs to a store, as far as its location shows."""
    try:
        return opened.is_of(record.location, store)
    except STORE_ERRORS:
        return False


def _run(
    args: argparse.Namespace,
    runner: Copier,
    wanted: list[Expected],
    report: _Report,
    output: Output,
) -> None:
    """Copy images, several at a time."""
    workers = Workers(args.parallel, "glance_store-copy")
    size = sum(record.size or 0 for record in wanted)
    with output.progress("copy", size) as progress:
        unreported: set[concurrent.futures.Future[Outcome]] = set()
        try:
            tasks = []
            for record in wanted:
                tasks.append(workers.submit(runner.copy, record, progress))
                unreported.add(tasks[-1])
            for task in concurrent.futures.as_completed(tasks):
                report.add(task.result())
                unreported.discard(task)
        except BaseException:
            runner.stop()
            running = [task for task in unreported if not task.cancel()]
            concurrent.futures.wait(running)
            # Only the report says where these copies are.
            with contextlib.suppress(OutputClosedError):
                for task in running:
                    if task.result().state == copier.COPIED:
                        report.add(task.result())
            raise
        finally:
            workers.close()


class _Report:
    """Prints what became of the images, and counts them."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self.counts: collections.Counter[str] = collections.Counter()
        self._bytes = 0

    def add(self, outcome: Outcome) -> None:
        """Print the outcome of one image."""
        self.counts[outcome.state] += 1
        if outcome.state in (copier.COPIED, copier.PLANNED):
            self._bytes += outcome.size or 0
        if self._output.as_json:
            self._write(json.dumps(outcome._asdict()))
            return
        line = f"{outcome.state:<8}  {outcome.id}  "
        if outcome.state == copier.FAILED:
            line += f"{location.redact(outcome.location)}: {outcome.text}"
        elif outcome.new_location:
            line += f"{outcome.location} -> {outcome.new_location}"
        else:
            line += outcome.location
        self._write(printable(line))

    def _write(self, line: str) -> None:
        self._output.write(line)
        # If the process is killed, what it has done is known.
        self._output.flush()

    def end(self) -> None:
        """Print the totals."""
        counts = self.counts
        done = (
            f"{counts[copier.PLANNED]} to copy"
            if counts[copier.PLANNED]
            else f"{counts[copier.COPIED]} copied"
        )
        self._output.note(
            f"{done}, {human_size(self._bytes)}; {counts[copier.PRESENT]} already there, "
            f"{counts[copier.FAILED]} failed"
        )
