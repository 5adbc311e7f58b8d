# SPDX-License-Identifier: Apache-2.0
"""`glance-store ls`, `du` and `gc`: everything in the stores, and what uploads have left."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import time

import pytest

from glance_store._drivers.filesystem import Store
from glance_store.cli.main import main

from .command import Command, one_line_error

PARTIAL = ".glance_store-0123456789abcdef.partial"
DAYS = 86400


def leave(folder, name=PARTIAL, age=3 * DAYS, data=b"half"):
    path = folder / name
    path.write_bytes(data)
    os.utime(path, (time.time() - age,) * 2)
    return path


def lines(result):
    return [json.loads(line) for line in result.out.splitlines()]


def test_ls(command, small, tmp_path):
    command("put", small, "--id", "one")
    command("put", small, "--id", "two", "--store", "cheap")
    leave(tmp_path / "cheap")
    (tmp_path / "cheap" / "lost+found").mkdir()
    (tmp_path / "cheap" / "a\nb\x1b[31m").mkdir()
    result = command("ls")
    assert result.code == 0
    assert result.err == ""
    rows = [line.split() for line in result.out.splitlines()]
    assert sorted((row[0], row[1], row[-1]) for row in rows) == [
        ("cheap", "complete", f"file://{tmp_path}/cheap/two"),
        ("cheap", "foreign", "a\\nb\\x1b[31m"),
        ("cheap", "foreign", "lost+found"),
        ("cheap", "incomplete", PARTIAL),
        ("fast", "complete", f"file://{tmp_path}/fast/one"),
    ]
    (image,) = lines(command("ls", "cheap", "--state", "complete", "--json"))
    assert (image["store"], image["image_id"], image["size"]) == ("cheap", "two", 10_000)
    assert image["used"] >= 10_000
    assert abs(image["modified"] - time.time()) < DAYS
    assert command("stat", image["uri"]).code == 0


def test_ls_without_identifiers(single, small, tmp_path):
    single("put", small, "--id", "one")
    for words in (("ls",), ("ls", "file")):
        (image,) = lines(single(*words, "--json"))
        assert (image["store"], image["uri"]) == ("file", f"file://{tmp_path}/single/one")


def test_du(command, small, tmp_path):
    command("put", small, "--id", "one")
    leave(tmp_path / "fast", data=bytes(5000))
    fast, cheap = command("du", "--json").json
    assert (fast["images"], fast["bytes"], fast["incomplete"]) == (1, 10_000, 1)
    assert fast["used"] >= 15_000
    assert 0 < fast["free"] <= fast["total"]
    assert (cheap["images"], cheap["bytes"], cheap["used"]) == (0, 0, 0)
    result = command("du", "fast")
    assert "9.8 KiB" in result.out


def test_gc(command, small, tmp_path):
    """Old leftovers go, when they shall; young ones, living ones and images stay."""
    command("put", small, "--id", "one")
    old = leave(tmp_path / "fast")
    young = leave(tmp_path / "fast", PARTIAL.replace("0123", "4567"), age=600)
    alive = leave(tmp_path / "fast", PARTIAL.replace("0123", "89ab"))
    others = leave(tmp_path / "fast", ".other.partial")
    with alive.open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        (found,) = lines(command("gc", "--json"))
        assert (found["store"], found["name"], found["removed"]) == ("fast", str(old), False)
        assert found["proof"]
        assert old.exists()
        result = command("gc", "--yes")
        assert result.code == 0
        assert "  removed               4  " in result.out
        assert result.out.endswith("1 removed, 4 bytes\n")
        assert command("gc", "--yes").out == "Nothing was left behind\n"
    assert not old.exists()
    assert all(path.exists() for path in (young, alive, others, tmp_path / "fast" / "one"))
    assert len(lines(command("gc", "cheap", "--json"))) == 0
    assert len(lines(command("gc", "--older-than", "2d", "--json"))) == 1


@pytest.mark.parametrize("age", ["5m", "0h", "-1d", "1", "inf", "1w"])
def test_ages_that_are_refused(command, age):
    result = command("gc", f"--older-than={age}")
    assert "--older-than" in one_line_error(result)
    assert result.code == 2


@pytest.mark.parametrize("word", ["ls", "du", "gc"])
def test_stores_that_cannot_tell_or_fail(tmp_path, word):
    """The others are looked at all the same."""
    config = tmp_path / "glance-api.conf"
    config.write_text(
        f"""\
[DEFAULT]
enabled_backends = web:http, broken:nodriver, good:file
[glance_store]
default_backend = good
[good]
filesystem_store_datadir = {tmp_path}/good
[web]
https_ca_certificates_file = /etc/ssl/certs/ca-certificates.crt
"""
    )
    (tmp_path / "good").mkdir()
    leave(tmp_path / "good")
    result = Command(config)(word)
    assert result.code == 1
    assert "good" in result.out
    assert "store broken: not loaded" in result.err
    assert "Store web cannot" in result.err


@pytest.mark.parametrize("word", ["ls", "du", "gc", "check"])
def test_a_driver_from_outside_that_fails_in_its_own_way(
    outside, monkeypatch, tmp_path, capfd, word
):
    """The others are looked at all the same."""

    def fail(_store, *_arguments):
        raise KeyError("shelf")

    for name in ("images", "leftovers", "capacity"):
        monkeypatch.setattr(outside.Store, name, fail)
    config = tmp_path / "glance-api.conf"
    config.write_text(
        "[DEFAULT]\nenabled_backends = shelf:memory, good:file\n"
        "[glance_store]\ndefault_backend = good\n"
        f"[good]\nfilesystem_store_datadir = {tmp_path}/good\n"
    )
    (tmp_path / "good").mkdir()
    leave(tmp_path / "good")
    assert main([f"--config-file={config}", word]) == 1
    printed = capfd.readouterr()
    assert "store shelf: KeyError" in printed.err
    assert "good" in printed.out


def test_what_cannot_be_removed(config, tmp_path, monkeypatch, capfd):
    """The others are removed all the same."""
    (tmp_path / "fast").mkdir()
    stubborn = leave(tmp_path / "fast")
    other = leave(tmp_path / "fast", PARTIAL.replace("0123", "4567"))
    unlink = os.unlink

    def refuse(path, **options):
        if path == str(stubborn):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        unlink(path, **options)

    monkeypatch.setattr(os, "unlink", refuse)
    assert main([f"--config-file={config}", "gc", "--yes"]) == 1
    assert "Permission denied" in capfd.readouterr().err
    assert stubborn.exists()
    assert not other.exists()


def test_unknown_store(command):
    for word in ("ls", "du", "gc"):
        result = command(word, "nowhere")
        assert "nowhere" in one_line_error(result)
        assert result.code != 0


def test_times_that_no_calendar_has(config, small, monkeypatch, capfd):
    """What a wrong clock has left in the stores does not end the list."""
    assert main([f"--config-file={config}", "--quiet", "put", str(small), "--id=one"]) == 0
    capfd.readouterr()
    images = Store.images

    def with_odd_times(self):
        for moment in (4e9 * DAYS, 253402300800.0, -1e18, float("inf")):
            yield from (image._replace(modified=moment) for image in images(self))

    monkeypatch.setattr(Store, "images", with_odd_times)
    assert main([f"--config-file={config}", "ls", "fast"]) == 0
    rows = [line.split() for line in capfd.readouterr().out.splitlines()]
    assert [row[:5] for row in rows] == [["fast", "complete", "10000", "?", "one"]] * 4
