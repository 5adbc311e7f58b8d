# SPDX-License-Identifier: Apache-2.0
"""Whatever ends the command in the middle, nothing unfinished stays."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest

from .command import MIB


@pytest.mark.parametrize(
    ("signum", "code", "says"),
    [
        (signal.SIGINT, 130, b"interrupted"),
        (signal.SIGTERM, 143, b"ended by signal SIGTERM"),
        (signal.SIGHUP, 129, b"ended by signal SIGHUP"),
    ],
)
def test_an_interrupted_put_leaves_nothing(command, tmp_path, signum, code, says):
    process = command.start(
        "put", "-", stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    # More than the pipe holds: when it is written, the upload is under way.
    process.stdin.write(os.urandom(8 * MIB))
    process.stdin.flush()
    process.send_signal(signum)
    out = process.stdout.read()
    err = process.stderr.read()
    process.stdin.close()
    assert process.wait(60) == code
    assert out == b""
    assert err == b"glance-store: error: " + says + b"\n"
    assert os.listdir(tmp_path / "fast") == []
    process.stdout.close()
    process.stderr.close()


def test_a_reader_that_goes_away_is_no_error(command, disk):
    location = command("put", disk, "--json").json["location"]
    process = command.start("get", location, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert len(process.stdout.read(10)) == 10
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(60) == 141
    process.stderr.close()


def test_a_list_whose_reader_has_gone(command):
    read_end, write_end = os.pipe()
    os.close(read_end)
    process = command.start("stores", stdout=write_end, stderr=subprocess.PIPE)
    os.close(write_end)
    assert process.stderr.read() == b""
    assert process.wait(60) == 141
    process.stderr.close()


def test_an_interrupted_get_leaves_nothing(command, disk, tmp_path):
    location = command("put", disk, "--json").json["location"]
    process = command.start("get", location, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    # The pipe is full and nobody reads on: the command waits in the middle of the image.
    assert len(process.stdout.read(10)) == 10
    process.send_signal(signal.SIGTERM)
    err = process.stderr.read()
    assert process.wait(60) == 143
    assert err == b"glance-store: error: ended by signal SIGTERM\n"
    process.stdout.close()
    process.stderr.close()
