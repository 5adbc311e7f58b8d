# SPDX-License-Identifier: Apache-2.0
"""What `put` reads and `get -o` writes: files that change, pipes, descriptors of the shell."""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import select
import subprocess
import sys
import termios

import pytest

from glance_store import exceptions
from glance_store.cli import commands, errors, files, output
from glance_store.cli.main import main

from .command import MIB, one_line_error


@pytest.fixture
def location(command, small):
    """An image in the default store."""
    return command("put", small, "--json").json["location"]


# -- a source that changes


def appended(path):
    with path.open("ab") as file:
        file.write(b"more")


def shortened(path):
    os.truncate(path, 5)


def overwritten(path):
    status = path.stat()
    with path.open("r+b") as file:
        file.write(b"other")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))


CHANGES = {
    appended: "from 10000 to 10004 bytes",
    shortened: "from 10000 to 5 bytes",
    overwritten: "somebody is writing to it",
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("options", [[], ["--size", "10000"]])
@pytest.mark.parametrize("standard_input", [False, True])
def test_a_file_that_changes_meanwhile_is_not_stored(
    config, small, tmp_path, monkeypatch, capfd, change, options, standard_input
):
    read = output.ProgressReader.read
    changes = iter([change])

    def read_and_change(self, length):
        data = read(self, min(length, 1000))
        for first in changes:
            first(small)
        return data

    monkeypatch.setattr(output.ProgressReader, "read", read_and_change)
    with small.open("rb") as file:
        if standard_input:
            monkeypatch.setattr(sys, "stdin", file)
        source = "-" if standard_input else str(small)
        assert main([f"--config-file={config}", "put", source, *options]) == 1
    name = "standard input" if standard_input else str(small)
    said = capfd.readouterr().err
    assert said == (
        f"glance-store: error: {name} changed while it was read, {CHANGES[change]}: nothing is "
        "stored\n"
    )
    assert os.listdir(tmp_path / "fast") == []


def test_an_empty_file_that_grows(tmp_path):
    path = tmp_path / "empty"
    path.touch()
    with files.open_source(str(path)) as source:
        assert source.size == 0
        appended(path)
        assert source.read(100) == b"more"
        with pytest.raises(errors.SourceChangedError, match="from 0 to 4 bytes"):
            source.read(100)


def test_a_file_that_says_nothing_of_its_size():
    with files.open_source("/proc/self/limits") as source:
        assert source.size == 0
        text = b"".join(iter(lambda: source.read(1000), b""))
    assert b"Max open files" in text


def test_a_file_that_ends_early(tmp_path, monkeypatch):
    path = tmp_path / "image"
    path.write_bytes(b"0123456789")
    ends = iter([b"01234", b""])
    monkeypatch.setattr(files.os, "read", lambda _descriptor, _length: next(ends))
    with files.open_source(str(path)) as source:
        assert (source.size, source.read(100)) == (10, b"01234")
        with pytest.raises(exceptions.Invalid) as caught:
            source.read(100)
    assert str(caught.value) == f"Size mismatch: expected 10 bytes, {path} has 5"


def test_a_size_that_the_file_does_not_have_is_seen_at_once(small):
    for size, says in ((9_999, "has more"), (10_001, "has 10000"), (0, "has more")):
        with (
            pytest.raises(exceptions.Invalid, match=f"expected {size} bytes, .*{says}"),
            files.open_source(str(small), size),
        ):
            pass


# -- descriptors that the shell has opened


def bash(command, line, **options):
    """Run a line of bash in which $G stands for the command."""
    words = " ".join(command.words)
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", line],
        check=False,
        env={**os.environ, "G": words},
        capture_output=True,
        timeout=60,
        **options,
    )


@pytest.mark.parametrize("path", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
@pytest.mark.parametrize("options", [[], ["--json"]])
def test_get_into_the_standard_output_by_its_name(command, location, small, path, options):
    result = command("get", location, "-o", path, *options)
    assert result.code == 0
    assert result.err == ""
    # The image and nothing else: no remark, no report.
    assert result.data == small.read_bytes()


def test_get_appends_to_what_the_shell_has_opened(command, location, small, tmp_path):
    target = tmp_path / "target"
    target.write_bytes(b"before")
    with target.open("ab") as file:
        process = command.start("get", location, "-o", "/dev/stdout", stdout=file)
        assert process.wait(60) == 0
    assert target.read_bytes() == b"before" + small.read_bytes()
    assert set(os.listdir(tmp_path)) == {"fast", "cheap", "glance-api.conf", "small.raw", "target"}


def test_get_into_a_symbolic_link_to_the_standard_output(command, location, small, tmp_path):
    (tmp_path / "link").symlink_to("link2")
    (tmp_path / "link2").symlink_to("/dev/stdout")
    assert command("get", location, "-o", "link", cwd=tmp_path).data == small.read_bytes()


def test_get_into_other_descriptors(command, location, small):
    into_a_process = bash(command, f"$G get '{location}' -o >(cat >&2)")
    assert into_a_process.returncode == 0
    assert b"10000 bytes" in into_a_process.stdout
    same = bash(command, f"$G get '{location}' -o /dev/fd/4 4>&1 | cat")
    assert (same.returncode, same.stdout) == (0, small.read_bytes())


def test_a_reader_of_a_descriptor_that_has_gone(command, location):
    read_end, write_end = os.pipe()
    os.close(read_end)
    result = command("get", location, "-o", f"/dev/fd/{write_end}", pass_fds=[write_end])
    os.close(write_end)
    assert result.code == 1
    assert one_line_error(result) == f"/dev/fd/{write_end}: Broken pipe"


def test_the_reader_of_the_standard_output_has_gone(command, disk):
    location = command("put", disk, "--json").json["location"]
    result = bash(command, f"$G get '{location}' -o /dev/stdout | head -c 10")
    assert result.returncode == 141
    assert result.stderr == b""
    assert len(result.stdout) == 10


def test_a_terminal_under_the_name_of_the_standard_output(command, location):
    result = command.on_terminal("get", location, "-o", "/dev/stdout")
    assert result.code == 2
    assert "not written to a terminal" in result.out


def test_put_of_what_the_shell_has_opened(command, small, disk, tmp_path):
    piped = command("put", "/dev/stdin", "--id", "piped", data=disk.read_bytes())
    assert piped.code == 0, piped.err
    assert (tmp_path / "fast" / "piped").read_bytes() == disk.read_bytes()
    with disk.open("rb") as file:
        file.seek(19 * MIB)
        shared = command("put", "/dev/fd/0", "--id", "shared", stdin=file)
    assert shared.code == 0
    assert (tmp_path / "fast" / "shared").read_bytes() == disk.read_bytes()[19 * MIB :]
    process = bash(command, f"$G put <(cat '{small}') --id process --size 10000")
    assert process.returncode == 0, process.stderr
    assert (tmp_path / "fast" / "process").read_bytes() == small.read_bytes()


def test_descriptors_of_the_command_itself_are_not_meant(tmp_path):
    with open(tmp_path / "ours", "w+b") as file:
        path = f"/dev/fd/{file.fileno()}"
        for opened in (files.open_source(path), files.open_destination(path, force=True)):
            with pytest.raises(errors.UsageError, match="Bad file descriptor"), opened:
                pass


def test_links_that_lead_in_a_circle(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    path = str(tmp_path / "a")
    for opened in (files.open_source(path), files.open_destination(path, force=False)):
        with pytest.raises(errors.UsageError, match="Too many levels of symbolic links"), opened:
            pass


def test_nothing_stays_open(small, tmp_path):
    before = os.listdir("/proc/self/fd")
    for path in (str(small), "/proc/self/limits", "/", "/dev/fd/999"):
        with contextlib.suppress(errors.UsageError), files.open_source(path):
            pass
    for path in (str(tmp_path / "new"), "/dev/null", "/", "/dev/fd/999"):
        with contextlib.suppress(errors.UsageError), files.open_destination(path, force=False):
            pass
    assert os.listdir("/proc/self/fd") == before


# -- streams that somebody else has made non-blocking, as ssh and node do


def test_a_slow_reader_of_a_stream_that_does_not_block(command, disk):
    location = command("put", disk, "--json").json["location"]
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    process = command.start("get", location, stdout=write_end, stderr=subprocess.PIPE)
    os.close(write_end)
    # Nobody reads until the pipe is full.
    while select.select([read_end], [], [], 60)[0] and process.poll() is None:
        queued = array.array("i", [0])
        fcntl.ioctl(read_end, termios.FIONREAD, queued)
        if queued[0] == fcntl.fcntl(read_end, fcntl.F_GETPIPE_SZ):
            break
    with open(read_end, "rb") as reader:
        assert reader.read() == disk.read_bytes()
    assert process.stderr.read() == b""
    assert process.wait(60) == 0
    process.stderr.close()


def test_streams_are_given_back_as_they_were(config, monkeypatch):
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    seen = []

    def stores(*_arguments):
        seen.append(os.get_blocking(write_end))
        return 0

    monkeypatch.setattr(commands, "stores", stores)
    with open(write_end, "w") as stream, open(read_end):
        monkeypatch.setattr(sys, "stdout", stream)
        assert main([f"--config-file={config}", "stores"]) == 0
        assert seen == [True]
        assert not os.get_blocking(write_end)
