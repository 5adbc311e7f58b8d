# SPDX-License-Identifier: Apache-2.0
"""An upload ends as what is in the directory says, not as the calls answered.

Answers that get lost and interrupts between two calls cannot be had from a file system at hand:
the calls are made to answer so, after they have been carried out.
"""

from __future__ import annotations

import errno
import io
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from glance_store import exceptions
from glance_store._drivers.filesystem import Store, claim, draft, syscalls, writer
from tests.drivers.file.conftest import MakeStore, listing, put

MIB = 1024 * 1024
LOST = [errno.EEXIST, errno.EIO, errno.ENOENT, errno.ESTALE, errno.EPERM, errno.EOPNOTSUPP]
DATA = os.urandom(MIB - 7)


@pytest.fixture(params=["unnamed", "named", "renamed", "renamed under a lock", "several"])
def store(
    request: pytest.FixtureRequest,
    make_store: MakeStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Store:
    """A store that publishes in each of the ways that there are."""
    way: str = request.param
    if way == "several":
        return make_store(datadirs=[f"{tmp_path}/images:2", f"{tmp_path}/more:1"])
    store = make_store()
    assert store._datadirs is not None
    store._datadirs.all[0].unnamed_files = way == "unnamed"
    if way.startswith("renamed"):
        monkeypatch.setattr(os, "link", refuse)
    if way == "renamed under a lock":
        monkeypatch.setattr(syscalls, "rename_exclusive", refuse)
    return store


def refuse(*_args: object, **_more: object) -> None:
    raise PermissionError(errno.EPERM, "Operation not permitted")


def answered(function: Callable[..., Any], code: int) -> Callable[..., Any]:
    """Return a function that does its work, and says that it has failed."""

    def call(*args: Any, **more: Any) -> None:
        function(*args, **more)
        raise OSError(code, os.strerror(code))

    return call


@pytest.mark.parametrize("code", LOST)
def test_a_name_that_was_given_is_a_success_whatever_the_answer(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    if os.link is not refuse:
        monkeypatch.setattr(os, "link", answered(os.link, code))
    monkeypatch.setattr(os, "rename", answered(os.rename, code))
    if syscalls.rename_exclusive is not refuse:
        rename = answered(syscalls.rename_exclusive, code)
        monkeypatch.setattr(syscalls, "rename_exclusive", rename)
    put(store, "image", DATA)
    assert (tmp_path / "images" / "image").read_bytes() == DATA
    assert listing(tmp_path / "images") == ["image"]


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE, errno.ENOSPC])
def test_a_name_that_was_not_given_is_an_error(
    make_store: MakeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def fail(*_args: object, **_more: object) -> None:
        raise OSError(code, os.strerror(code))

    store = make_store()
    with monkeypatch.context() as patched:
        patched.setattr(os, "link", fail)
        with pytest.raises((OSError, exceptions.GlanceStoreException), match=os.strerror(code)):
            put(store, "image", DATA)
    assert listing(tmp_path / "images") == []
    put(store, "image", DATA)


@pytest.mark.parametrize("code", LOST)
def test_the_file_of_another_is_never_taken_for_ours(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """Somebody else's file is there, and the answer does not even say so."""
    image = tmp_path / "images" / "image"
    if os.link is not refuse:

        def link(*args: Any, **more: Any) -> None:
            image.write_bytes(b"other")
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(os, "link", link)
    else:
        # The last moment before the name is given.
        stat = os.fstat

        def fstat(fd: int) -> os.stat_result:
            image.write_bytes(b"other")
            return stat(fd)

        monkeypatch.setattr(os, "fstat", fstat)
    with pytest.raises((OSError, exceptions.GlanceStoreException)):
        store.add("image", io.BytesIO(DATA), 0, "md5")
    assert image.read_bytes() == b"other"
    assert listing(tmp_path / "images") == ["image"]


def test_a_temporary_name_that_stays_does_not_fail_the_upload(
    make_store: MakeStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = make_store()
    assert store._datadirs is not None
    store._datadirs.all[0].unnamed_files = False
    monkeypatch.setattr(os, "unlink", refuse)
    put(store, "image", DATA)
    partial, image = listing(tmp_path / "images")
    assert (image, partial.endswith(claim.PARTIAL_SUFFIX)) == ("image", True)
    assert "Operation not permitted" in caplog.text


class Campaign:
    """Breaks the call of a number into the operating system, and perhaps the one after it."""

    CALLS = (
        "open",
        "close",
        "fstat",
        "stat",
        "access",
        "pwrite",
        "ftruncate",
        "fsync",
        "link",
        "unlink",
        "rename",
    )

    def __init__(self, at: int, error: BaseException, twice: bool) -> None:
        self.at, self.error, self.twice = at, error, twice
        self.calls = 0

    def start(self, patched: pytest.MonkeyPatch) -> None:
        for name in self.CALLS:
            patched.setattr(os, name, self._broken(name, getattr(os, name)))

    def _broken(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **more: Any) -> Any:
            self.calls += 1
            number = self.calls
            result = function(*args, **more)
            if number == self.at or (self.twice and number == self.at + 1):
                if name == "open":
                    close(result)
                raise self.error
            return result

        close = os.close
        return call


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def images(top: Path) -> list[Path]:
    return [path for path in top.rglob("*") if path.is_file()]


def whole_or_nothing(store: Store, top: Path, broken: Callable[[], object], where: str) -> None:
    """An upload that is broken somewhere has succeeded, or has left nothing."""
    before = descriptors()
    try:
        broken()
    except (OSError, KeyboardInterrupt, exceptions.GlanceStoreException):
        assert images(top) == [], where
    else:
        [image] = images(top)
        assert (image.name, image.read_bytes()) == ("image", DATA), where
        image.unlink()
    assert descriptors() == before, where
    put(store, "image", DATA)
    [image] = images(top)
    image.unlink()


@pytest.mark.parametrize(
    ("error", "twice"),
    [
        (KeyboardInterrupt(), False),
        (KeyboardInterrupt(), True),
        (OSError(errno.EIO, os.strerror(errno.EIO)), False),
        (OSError(errno.EEXIST, os.strerror(errno.EEXIST)), False),
    ],
)
def test_an_upload_that_any_call_breaks_is_whole_or_gone(
    store: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    twice: bool,
) -> None:
    at = 0
    while True:
        at += 1
        campaign = Campaign(at, error, twice)

        def upload(campaign: Campaign = campaign) -> None:
            with monkeypatch.context() as patched:
                campaign.start(patched)
                # One block: the engine starts no thread, so that all happens in this one.
                store.add("image", io.BytesIO(DATA), 0, "md5")

        whole_or_nothing(store, tmp_path, upload, f"call {at}")
        if campaign.calls < at:
            break
    assert at > 8


def interrupted_line(at: int, action: Callable[[], object]) -> str:
    """Run an action, and interrupt a line of the driver, by its number in time.

    It runs in a thread of its own: CPython can forget to leave the exception that is being handled
    when a trace function raises another, and every later error of that thread would have it as its
    context.

    :returns: which line it was; nothing when the action came to its end before
    """
    files = {module.__file__ for module in (claim, syscalls)}
    files |= {sys.modules[Store.__module__].__file__}
    files |= {module.__file__ for module in (draft, writer)}
    # The location is asked for when the upload has succeeded. What __del__ raises goes nowhere.
    over = ("uri", "__del__")
    seen = 0
    interrupted_at: list[str] = []

    def trace(frame: FrameType, event: str, _argument: object) -> Any:
        nonlocal seen
        if frame.f_code.co_filename not in files or frame.f_code.co_name in over:
            return None
        if event == "line":
            seen += 1
            if seen == at:
                sys.settrace(None)
                raise KeyboardInterrupt(f"{frame.f_code.co_name}:{frame.f_lineno}")
        return trace

    def run() -> None:
        sys.settrace(trace)
        try:
            action()
        except KeyboardInterrupt as exc:
            interrupted_at.append(str(exc))
        finally:
            sys.settrace(None)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return "".join(interrupted_at)


def test_an_upload_that_is_interrupted_at_any_line_is_whole_or_gone(
    store: Store, tmp_path: Path
) -> None:
    directory = tmp_path / "images"
    at = 0
    interrupted_at = "nowhere"
    while interrupted_at:
        at += 1
        interrupted_at = interrupted_line(
            at, lambda: store.add("image", io.BytesIO(b"data"), 0, "md5")
        )
        assert listing(directory) == ([] if interrupted_at else ["image"]), interrupted_at
    assert at > 40
