# SPDX-License-Identifier: Apache-2.0
"""A person at a terminal sees progress and is asked; a script is not bothered."""

from __future__ import annotations

import os

import pytest

BAR = "100%|"


@pytest.fixture
def location(command, disk):
    return command("put", disk, "--json").json["location"]


def test_long_transfers_show_a_bar(command, disk, location, tmp_path):
    put = command.on_terminal("put", disk)
    assert put.code == 0
    assert "put: " in put.out
    assert BAR in put.out
    assert "20.0M/20.0M" in put.out
    get = command.on_terminal("get", location, "-o", tmp_path / "back")
    assert "get: " in get.out
    assert BAR in get.out
    verify = command.on_terminal("verify", location)
    assert "verify: " in verify.out
    assert BAR in verify.out


def test_a_terminal_that_does_not_know_its_size(command, disk):
    assert BAR in command.on_terminal("put", disk, columns=0).out
    table = command.on_terminal("stores", columns=0).out
    assert len([line for line in table.splitlines() if line.startswith("|")]) == 3


def test_a_pipe_gets_no_bar(command, disk, location, tmp_path):
    for words in (["put", disk], ["get", location, "-o", tmp_path / "back"], ["verify", location]):
        result = command(*words)
        assert result.code == 0
        assert result.err == ""
        assert BAR not in result.out


def test_short_and_quiet_transfers_show_no_bar(command, disk, small):
    assert BAR not in command.on_terminal("put", small).out
    assert BAR not in command.on_terminal("put", disk, "--quiet").out


def test_an_error_comes_below_the_bar(command):
    result = command.on_terminal("put", "/dev/zero", "--size", "19M")
    assert result.code == 1
    assert "put: " in result.out
    last = result.out.splitlines()[-1]
    assert last.startswith("glance-store: error: Size exceeds")


def test_image_data_is_not_written_to_a_terminal(command, location):
    result = command.on_terminal("get", location)
    assert result.code == 2
    assert "-o" in result.out


def test_a_terminal_is_no_source_of_image_data(command):
    result = command.on_terminal("put", "-")
    assert result.code == 2
    assert "standard input" in result.out


@pytest.mark.parametrize(
    ("answer", "code", "left"), [("y", 0, 0), ("YES", 0, 0), ("n", 1, 1), ("whatever", 1, 1)]
)
def test_rm_asks(command, location, tmp_path, answer, code, left):
    result = command.on_terminal("rm", location, answer=answer)
    assert result.code == code
    assert f"Remove {location}, 20971520 bytes (20.0 MiB), from the store fast? [y/N]" in result.out
    assert len(os.listdir(tmp_path / "fast")) == left


def test_rm_of_what_is_not_there_does_not_ask(command, tmp_path):
    result = command.on_terminal("rm", f"file://{tmp_path}/fast/none")
    assert result.code == 3
    assert "[y/N]" not in result.out
