# SPDX-License-Identifier: Apache-2.0
"""The commands ls, du and gc, which go through everything in a store."""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from glance_store import exceptions, location
from glance_store.cli.errors import FAILED, OK, describe, printable
from glance_store.cli.output import Output, human_size, short_size
from glance_store.cli.stores import Stores
from glance_store.inventory import Leftover, StoredImage

_T = TypeVar("_T")

# A driver from outside may fail in any way; the command then goes on with the others.
STORE_ERRORS = (Exception,)


class SurveyedStores:
    """Goes through stores; one that fails does not hide the others."""

    def __init__(self, args: argparse.Namespace, opened: Stores, output: Output) -> None:
        self._output = output
        self._stores = opened.each(args.store)
        self.code = OK

    def each(self) -> Iterator[tuple[str, Any]]:
        """Yield names and stores."""
        for name, store, problem in self._stores:
            if problem is None:
                yield name, store
            else:
                self.failed(name, problem)

    def failed(self, name: str, problem: str) -> None:
        """Report what is wrong with a store, and go on."""
        self.code = FAILED
        self._output.warn(f"store {name}: {problem}")

    def found(self, name: str, find: Callable[[], Iterator[_T]]) -> Iterator[_T]:
        """Yield what is found in a store, as far as it gets."""
        try:
            yield from find()
        except exceptions.UnsupportedBackend as exc:
            self._output.warn(str(exc))
        except STORE_ERRORS as exc:
            self.failed(name, describe(exc))


def list_images(args: argparse.Namespace, opened: Stores, output: Output) -> int:
    """List what the stores hold, one line each."""
    stores = SurveyedStores(args, opened, output)
    for name, store in stores.each():
        for image in stores.found(name, store.images):
            if args.state in (None, image.state):
                output.write(_image_line(name, image, output.as_json))
    return stores.code


def _image_line(name: str, image: StoredImage, as_json: bool) -> str:
    uri = None if image.uri is None else location.redact(image.uri)
    if as_json:
        return json.dumps({"store": name, **image._asdict(), "uri": uri})
    size = "?" if image.size is None else str(image.size)
    fields = [f"{name:<12}", f"{image.state:<10}", f"{size:>14}", _moment(image.modified)]
    return printable("  ".join([*fields, image.image_id, *([uri] if uri else [])]))


def _moment(seconds: float | None) -> str:
    if seconds is not None:
        # Wrong clocks leave times in years that Python does not know.
        with contextlib.suppress(ValueError, OverflowError, OSError):
            moment = datetime.datetime.fromtimestamp(seconds, tz=datetime.timezone.utc)
            return f"{moment:%Y-%m-%d %H:%M}"
    return f"{'?':<16}"


def usage(args: argparse.Namespace, opened: Stores, output: Output) -> int:
    """Sum up what the stores hold."""
    stores = SurveyedStores(args, opened, output)
    rows: list[dict[str, Any]] = []
    for name, store in stores.each():
        row: dict[str, Any] = {"store": name, "images": 0, "bytes": 0, "used": 0}
        row.update(incomplete=0, foreign=0, total=None, free=None)
        for image in stores.found(name, store.images):
            row["images" if image.state == "complete" else image.state] += 1
            row["bytes"] += (image.size or 0) if image.state == "complete" else 0
            row["used"] += image.used or 0
        for room in stores.found(name, lambda: iter([store.capacity()])):  # noqa: B023
            if room is not None:
                row.update(total=room.total, free=room.free)
        rows.append(row)
    if output.as_json:
        output.write(json.dumps(rows, indent=2))
    else:
        sizes = ("bytes", "used", "total", "free")
        shown = [
            {
                column: short_size(value) if column in sizes and value is not None else value
                for column, value in row.items()
            }
            for row in rows
        ]
        output.table(shown, list(rows[0]) if rows else ["store"])
    return stores.code


def collect(args: argparse.Namespace, opened: Stores, output: Output) -> int:
    """List or remove what interrupted uploads left behind."""
    stores = SurveyedStores(args, opened, output)
    count, total = 0, 0
    for name, store in stores.each():

        def find(store: Any = store) -> Iterator[Leftover]:
            found: Iterator[Leftover] = store.leftovers(args.older_than)
            return found

        for left in stores.found(name, find):
            removed = False
            if args.yes:
                try:
                    left.remove()
                    removed = True
                except exceptions.InUseByStore as exc:
                    output.warn(f"store {name}: {describe(exc)}")
                    continue
                except STORE_ERRORS as exc:
                    stores.failed(name, describe(exc))
                    continue
            count, total = count + 1, total + (left.size or 0)
            output.write(_left_line(name, left, removed, output.as_json))
    if not count:
        output.note("Nothing was left behind")
    elif args.yes:
        output.note(f"{count} removed, {human_size(total)}")
    else:
        output.note(f"{count} found, {human_size(total)}; --yes removes them")
    return stores.code


def _left_line(name: str, left: Leftover, removed: bool, as_json: bool) -> str:
    if as_json:
        values = {key: value for key, value in left._asdict().items() if key != "remove"}
        return json.dumps({"store": name, **values, "removed": removed})
    size = "?" if left.size is None else str(left.size)
    word = "removed" if removed else "left"
    fields = [f"{name:<12}", f"{word:<7}", f"{size:>14}", _moment(left.modified)]
    return printable("  ".join([*fields, f"{left.name}: {left.proof}"]))
