# SPDX-License-Identifier: Apache-2.0
"""The command called as a function, and the parts that a process shows badly."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import signal
import stat
import sys
import threading
import time

import pytest
from oslo_config import cfg

from glance_store import exceptions
from glance_store._drivers.filesystem import Store
from glance_store._drivers.filesystem.store import NotThere
from glance_store._drivers.http.errors import ServerInTrouble
from glance_store.cli import commands, errors, files, output
from glance_store.cli import config as config_module
from glance_store.cli.main import main
from glance_store.health import Probe

from .command import terminal


@pytest.fixture
def base(config):
    """Arguments that name the configuration of two stores."""
    return [f"--config-file={config}"]


def test_it_is_a_function(base, small, tmp_path, capfd):
    assert main([*base, "put", str(small), "--id", "one", "--json"]) == 0
    location = json.loads(capfd.readouterr().out)["location"]
    assert main([*base, "verify", location]) == 0
    assert main([*base, "get", location, "-o", str(tmp_path / "copy")]) == 0
    assert main([*base, "stat", location]) == 0
    assert main([*base, "rm", location, "--yes"]) == 0
    assert main([*base, "stat", location]) == 3
    assert main([*base, "stores"]) == 0
    assert main(["--help"]) == 0
    assert (tmp_path / "copy").read_bytes() == small.read_bytes()


def test_it_leaves_the_process_as_it_was(base, capfd):
    def state():
        root = logging.getLogger()
        return (
            signal.getsignal(signal.SIGTERM),
            signal.getsignal(signal.SIGHUP),
            list(root.handlers),
            root.level,
            logging.getLogger("glance_store").level,
            hasattr(cfg.CONF, "enabled_backends"),
        )

    before = state()
    assert main([*base, "stores"]) == 0
    assert main([*base, "stat", "file:///none", "--debug"]) == 3
    assert state() == before


def test_it_runs_in_a_thread(base, capfd):
    codes = []
    thread = threading.Thread(target=lambda: codes.append(main([*base, "stores"])))
    thread.start()
    thread.join()
    assert codes == [0]


def test_an_ignored_signal_stays_ignored(base, capfd):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert main([*base, "stores"]) == 0
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_the_services_own_files_are_the_default(config, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(config_module, "DEFAULT_CONFIG_FILE", str(tmp_path / "none.conf"))
    assert main(["stores"]) == 2
    assert "--config-file" in capfd.readouterr().err
    folder = tmp_path / "glance-api.conf.d"
    folder.mkdir()
    (folder / "weight.conf").write_text("[cheap]\nweight = 3\n")
    monkeypatch.setattr(config_module, "DEFAULT_CONFIG_FILE", str(config))
    monkeypatch.setattr(config_module, "DEFAULT_CONFIG_DIR", str(folder))
    assert main(["stores", "--json"]) == 0
    assert [store["weight"] for store in json.loads(capfd.readouterr().out)] == [10, 3]


def test_standard_streams_that_are_closed(base, small, monkeypatch, tmp_path):
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    assert main([*base, "put", str(small), "--id", "one"]) == 0
    assert main([*base, "put", "-"]) == 2
    location = f"file://{tmp_path}/fast/one"
    assert main([*base, "get", location]) == 2
    assert main([*base, "rm", location]) == 2
    assert main([*base, "stores"]) == 0


# -- errors


def test_what_nobody_expected_is_still_one_line():
    text = errors.describe(ZeroDivisionError("division\nby zero"))
    assert text.startswith("ZeroDivisionError: division by zero")
    assert "--debug" in text
    assert errors.exit_code(ZeroDivisionError()) == 1


@pytest.mark.parametrize("kind", [NotThere, ServerInTrouble])
def test_an_outage_is_not_a_mistake_of_the_operator(kind):
    assert errors.exit_code(kind("503")) == errors.FAILED


def test_a_line_is_safe_for_a_terminal():
    assert errors.one_line("a\x1b[2Jb\r\nc\td") == "a?[2Jb c d"


def test_names_are_told_apart_on_a_terminal():
    assert errors.printable("a\x1b[2Jb\nc\udcff \u00e4") == "a\\x1b[2Jb\\nc\\udcff \u00e4"


def test_a_redirect_is_explained():
    exc = exceptions.RedirectException("https://user:hush@example.org/image")
    assert errors.exit_code(exc) == 1
    assert errors.describe(exc) == "fetch the image from https://***@example.org/image instead"


def test_errors_of_the_system_name_the_file():
    assert errors.describe(OSError(28, "No space", "/x")) == "/x: No space"
    assert errors.describe(OSError(28, "No space")) == "No space"
    assert errors.describe(OSError("odd")) == "odd"


# -- output


def test_progress_of_unknown_size_begins_when_it_lasts(monkeypatch):
    def shown(delay, line=None):
        monkeypatch.setattr(output, "_PROGRESS_DELAY", delay)
        master, slave = terminal()
        with open(slave, "w") as stream:
            monkeypatch.setattr(sys, "stderr", stream)
            with output.Output().progress("put", 0) as progress:
                progress.add(2048)
                if line:
                    output._stderr(line)
            stream.write("the end")
            stream.flush()
            text = ""
            while not text.endswith("the end"):
                text += os.read(master, 10000).decode()
        os.close(master)
        return text

    assert shown(delay=3600) == "the end"
    assert "put: 2.00k" in shown(delay=0)
    # A line steps over the bar.
    assert "\ra line\r\n" in shown(delay=0, line="a line")


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 bytes"),
        (1023, "1023 bytes"),
        (1024, "1024 bytes (1.0 KiB)"),
        (5 * 1024**4, "5497558138880 bytes (5.0 TiB)"),
        (5000 * 1024**4, "5497558138880000 bytes (5000.0 TiB)"),
    ],
)
def test_sizes_for_people(size, text):
    assert output.human_size(size) == text


def test_characters_that_the_terminal_does_not_have(monkeypatch, tmp_path):
    with (tmp_path / "out").open("w", encoding="ascii") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        output.Output().write("caf\xe9 \udcff")
    assert (tmp_path / "out").read_text() == "caf\\xe9 \\udcff\n"


def test_log_lines(capsys):
    with output.logging_to_stderr(debug=False):
        logging.getLogger("glance_store.x").warning("sorry:\n %s", "http://u:hush@host/")
        logging.getLogger("glance_store.x").warning("sorry:\n %s", "http://u:hush@host/")
        logging.getLogger("glance_store.x").info("not shown")
    assert capsys.readouterr().err == "glance-store: warning: sorry: http://***@host/\n"
    with output.logging_to_stderr(debug=True):
        logging.getLogger("glance_store.x").debug("http://u:hush@host/")
        logging.getLogger("client.library").debug("not shown")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("DEBUG glance_store.x: http://***@host/")


# -- files


def test_a_destination_that_is_given_up_leaves_nothing(tmp_path):
    with contextlib.ExitStack() as stack:
        destination = stack.enter_context(
            files.open_destination(str(tmp_path / "image"), force=False)
        )
        destination.write(b"data")
        (partial,) = os.listdir(tmp_path)
        assert partial.startswith(".glance-store-")
    assert os.listdir(tmp_path) == []


def test_a_file_that_appears_meanwhile_is_kept(tmp_path):
    path = tmp_path / "image"
    with files.open_destination(str(path), force=False) as destination:
        destination.write(b"data")
        path.write_bytes(b"somebody else's")
        with pytest.raises(FileExistsError) as caught:
            destination.commit()
    assert errors.describe(caught.value) == f"{path}: File exists"
    assert os.listdir(tmp_path) == ["image"]
    assert path.read_bytes() == b"somebody else's"


@contextlib.contextmanager
def answering(monkeypatch, name, code, does_it=False):
    """Make a call of the system fail, after it was done or instead."""
    real = getattr(os, name)

    def call(*args, **more):
        if does_it:
            real(*args, **more)
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, name, call)
        yield


@pytest.mark.parametrize("force", [False, True])
def test_the_name_of_a_file_is_on_the_disk_as_well(tmp_path, monkeypatch, force):
    """Whoever then removes the image relies on the file, also after a loss of power."""
    path, flushed = tmp_path / "image", []
    fsync = os.fsync

    def note(descriptor):
        flushed.append((os.readlink(f"/proc/self/fd/{descriptor}"), path.exists()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    with files.open_destination(str(path), force) as destination:
        destination.write(b"data")
        destination.commit()
    assert flushed[0][1] is False
    assert flushed[-1] == (str(tmp_path), True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_file_that_is_replaced_keeps_its_owner(tmp_path):
    path = tmp_path / "image"
    path.write_bytes(b"old")
    os.chown(path, 1234, 2345)
    path.chmod(0o4750)
    with files.open_destination(str(path), force=True) as destination:
        destination.write(b"new")
        destination.commit()
    status = path.stat()
    assert path.read_bytes() == b"new"
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (1234, 2345, 0o4750)


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("code", [errno.EEXIST, errno.EIO, errno.EPERM, errno.ENOENT])
def test_a_name_that_a_file_was_given_counts_whatever_the_answer(
    tmp_path, monkeypatch, force, code
):
    path = tmp_path / "image"
    with files.open_destination(str(path), force) as destination:
        destination.write(b"data")
        with answering(monkeypatch, "replace" if force else "link", code, does_it=True):
            destination.commit()
    assert path.read_bytes() == b"data"
    assert os.listdir(tmp_path) == ["image"]


@pytest.mark.parametrize("code", [errno.EPERM, errno.EACCES, errno.EINVAL, errno.ENOSYS])
def test_a_file_system_without_links(tmp_path, monkeypatch, code):
    for there in (False, True):
        with files.open_destination(str(tmp_path / f"image-{there}"), False) as destination:
            destination.write(b"data")
            if there:
                (tmp_path / "image-True").write_bytes(b"another's")
            with answering(monkeypatch, "link", code):
                context = pytest.raises(FileExistsError) if there else contextlib.nullcontext()
                with context:
                    destination.commit()
    assert (tmp_path / "image-False").read_bytes() == b"data"
    assert (tmp_path / "image-True").read_bytes() == b"another's"


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_that_cannot_flush_or_set_permissions(tmp_path, monkeypatch, code):
    path = tmp_path / "image"
    path.write_bytes(b"old")
    with (
        answering(monkeypatch, "fchmod", errno.EPERM),
        answering(monkeypatch, "fsync", code),
        files.open_destination(str(path), force=True) as destination,
    ):
        destination.write(b"data")
        destination.commit()
    assert path.read_bytes() == b"data"


def test_data_that_cannot_be_flushed_is_an_error(tmp_path, monkeypatch):
    with (
        answering(monkeypatch, "fsync", errno.EIO),
        files.open_destination(str(tmp_path / "image"), force=False) as destination,
    ):
        destination.write(b"data")
        with pytest.raises(OSError, match="Input/output"):
            destination.commit()
    assert os.listdir(tmp_path) == []


def test_a_name_with_a_slash_at_its_end_is_that_of_a_directory(tmp_path):
    (tmp_path / "file").write_bytes(b"data")
    for name, words in (("", "name a file in it"), ("none/", "not a dir"), ("file/", "not a dir")):
        with (
            pytest.raises(errors.UsageError, match=words),
            files.open_destination(f"{tmp_path}/{name}", force=True),
        ):
            pass
    assert os.listdir(tmp_path) == ["file"]


def test_a_named_pipe_is_written_in_place(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    received = []
    reader = threading.Thread(target=lambda: received.append(path.read_bytes()))
    reader.start()
    data = bytes(200_000) + b"end"
    with files.open_destination(str(path), force=False) as destination:
        destination.write(data)
        destination.commit()
    reader.join()
    assert received == [data]
    assert stat.S_ISFIFO(path.stat().st_mode)


# -- what a store delivers


def test_fewer_bytes_than_promised_are_an_error():
    closed = []

    class Chunks(list):
        def close(self):
            closed.append(True)

    nothing = output.Progress()
    assert list(commands.delivered(Chunks([b"ab", bytearray(b"c")]), 3, nothing)) == [b"ab", b"c"]
    with pytest.raises(exceptions.Invalid, match="int instead of bytes"):
        # Not as many zeros.
        list(commands.delivered(b"ab", 2, nothing))
    assert list(commands.delivered([b"ab"], 0, nothing)) == [b"ab"]
    with pytest.raises(exceptions.TruncatedImage):
        list(commands.delivered(Chunks([b"ab"]), 3, nothing))
    assert closed == [True, True]


def test_stores_that_do_not_answer(base, monkeypatch, capfd):
    """They are asked at the same time, and cost their limit once; the others are shown."""
    answer, asked = threading.Event(), []
    health = Store.check_health

    def silent(store):
        asked.append(store.backend_group)
        if len(asked) < 2:
            answer.wait(60)
        return health(store)

    monkeypatch.setattr(Store, "check_health", silent)
    try:
        assert main([*base, "stores", "--timeout", "0.3", "--json"]) == 0
    finally:
        answer.set()
    found = {one["id"]: one for one in json.loads(capfd.readouterr().out)}
    stuck, other = asked
    assert found[stuck]["health"] == "no answer in 0.3 s"
    assert found[stuck]["latency"] is None
    assert found[other]["healthy"] is True


def test_a_store_that_can_do_nothing():
    class Unusable:
        configuration_error = "no library"

        def is_capable(self, *_capabilities):
            return False

    health, room = Probe(Unusable()).result(time.monotonic() + 60, 60)
    assert health[:2] == (False, "unusable: no library")
    assert set(room) == {None}
