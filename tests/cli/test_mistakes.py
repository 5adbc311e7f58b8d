# SPDX-License-Identifier: Apache-2.0
"""A mistake of the operator is one line, with an exit code, and does nothing."""

from __future__ import annotations

import json
import os
import resource
import subprocess

import pytest

from .command import MIB, Command, one_line_error


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "COMMAND"),
        (["destroy"], "destroy"),
        (["stores", "--what"], "--what"),
        (["put"], "FILE"),
        (["put", "/nowhere/image"], "/nowhere/image cannot be read: No such file or directory"),
        (["put", "/"], "/ cannot be read: Is a directory"),
        (["put", "DISK", "--id", "a/b"], "'a/b' is not a valid image id"),
        (["put", "DISK", "--id", ".."], "'..' is not a valid image id"),
        (["put", "DISK", "--id", ""], "'' is not a valid image id"),
        (["put", "DISK", "--size", "-1"], "--size"),
        (["put", "DISK", "--size", "many"], "'many' is not a number of bytes"),
        (["put", "DISK", "--size", "inf"], "'inf' is not a number of bytes"),
        (["put", "DISK", "--size", "9" * 5000], "is not a number of bytes"),
        (["put", "DISK", "--hash", "md6"], "md6"),
        (["put", "DISK", "--hash", "shake_128"], "shake_128"),
        (["put", "DISK", "--store", "slow"], "The store 'slow' is not in enabled_backends"),
        (["get"], "URI"),
        (["get", "image"], "'image' is not a location"),
        (["get", "://image"], "is not a location"),
        (["get", "gopher://image"], "'gopher'"),
        (["get", "file://"], "malformed"),
        (["get", "file:///x", "--store", "slow"], "'slow'"),
        (["get", "file:///x", "--length", "0"], "at least 1 byte"),
        (["get", "file:///x", "--offset", "1.5"], "1.5"),
        (["get", "file:///x", "--offset", "inf"], "'inf' is not a number of bytes"),
        (["get", "file:///x", "--length", "nan"], "'nan' is not a number of bytes"),
        (["get", "file:///x", "-o", "/dev/fd/999"], "/dev/fd/999 cannot be written: Bad file"),
        (["put", "/dev/fd/999"], "/dev/fd/999 cannot be read: Bad file descriptor"),
        (["get", "file:///x", "-o", "/nowhere/image"], "/nowhere/image cannot be written"),
        (["get", "file:///x", "-o", "/"], "/ is a directory"),
        (["stat", "image"], "'image' is not a location"),
        (["verify", "file:///x", "--hash", "md6"], "md6"),
        (["rm", "gopher://image", "--yes"], "'gopher'"),
    ],
)
def test_usage(command, small, tmp_path, words, says):
    result = command(*[str(small) if word == "DISK" else word for word in words])
    assert result.code == 2
    assert result.data == b""
    assert says in one_line_error(result)
    stores = (tmp_path / "fast", tmp_path / "cheap")
    assert not any(os.listdir(store) for store in stores if store.exists())


@pytest.mark.parametrize("words", [["stat"], ["get"], ["verify"], ["rm", "--yes"]])
@pytest.mark.parametrize("store", [[], ["--store", "cheap"]])
def test_what_is_not_there(command, tmp_path, words, store):
    result = command(words[0], f"file://{tmp_path}/fast/none", *words[1:], *store)
    assert result.code == 3
    assert f"{tmp_path}/fast/none" in one_line_error(result)


def test_nothing_is_left_of_a_file_that_cannot_be_fetched(command, tmp_path):
    before = set(os.listdir(tmp_path)) | {"fast", "cheap"}
    assert command("get", f"file://{tmp_path}/none", "-o", tmp_path / "new").code == 3
    assert set(os.listdir(tmp_path)) == before


def test_errors_in_json(command):
    for words, kind in (
        (["stat", "file:///none", "--json"], "NotFound"),
        (["--json", "stat", "image"], "UsageError"),
        (["--json", "nonsense"], "UsageError"),
    ):
        result = command(*words)
        assert result.data == b""
        (line,) = result.err.splitlines()
        report = json.loads(line)
        assert report["kind"] == kind
        assert report["error"]


def test_no_store_for_new_images(tmp_path, small):
    config = tmp_path / "nodefault.conf"
    config.write_text(
        "[DEFAULT]\nenabled_backends = one:file\n"
        f"[one]\nfilesystem_store_datadir = {tmp_path}/one\n"
    )
    result = Command(config)("put", small)
    assert result.code == 2
    assert "--store" in one_line_error(result)


def test_debug_shows_where_it_comes_from(command):
    result = command("stat", "file:///none", "--debug")
    assert result.code == 3
    assert "Traceback" in result.err
    assert result.err.splitlines()[-1].startswith("glance-store: error: ")


SECRET_URI = "swift+https://tenant%3Auser:hush-hush@example.org/v1/images/x?sig=hush-hush"


@pytest.mark.parametrize(
    "words",
    [
        ["stat", SECRET_URI],
        ["stat", SECRET_URI, "--debug"],
        ["stat", SECRET_URI, "--json"],
        ["stat", SECRET_URI, SECRET_URI],
        [SECRET_URI],
        ["rm", "--yes", SECRET_URI, "--store", "fast"],
        ["put", SECRET_URI],
        ["put", "/nowhere", "--id", SECRET_URI],
        ["get", "file:///x", "--offset", SECRET_URI],
        ["verify", "file:///x", "--checksum", SECRET_URI],
    ],
)
def test_no_secret_is_printed(command, words):
    result = command(*words)
    assert result.code == 2
    assert b"hush" not in result.data
    assert "hush" not in result.err


def test_a_full_disk_below_the_output_leaves_nothing(command, disk, tmp_path):
    location = command("put", disk, "--json").json["location"]
    target = tmp_path / "target"
    target.mkdir()

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (MIB // 2, MIB // 2))

    result = command("get", location, "-o", target / "disk", preexec_fn=limit)
    assert result.code == 1
    assert one_line_error(result) == f"{target}/disk: File too large"
    assert os.listdir(target) == []


def test_a_source_that_cannot_be_read_is_named(command, tmp_path):
    result = command("put", "/proc/self/mem")
    assert result.code == 1
    assert one_line_error(result) == "/proc/self/mem: Input/output error"
    assert os.listdir(tmp_path / "fast") == []


def test_results_that_cannot_be_written(command, small):
    with open("/dev/full", "wb") as full:
        process = command.start("put", small, stdout=full, stderr=subprocess.PIPE)
        _out, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err == b"glance-store: error: standard output: No space left on device\n"


def test_image_data_that_cannot_be_written(command, small):
    location = command("put", small, "--json").json["location"]
    with open("/dev/full", "wb") as full:
        process = command.start("get", location, stdout=full, stderr=subprocess.PIPE)
        _out, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err == b"glance-store: error: standard output: No space left on device\n"


def test_help_and_version(command):
    text = command("--help")
    assert text.code == 0
    for code in ("0 ", "1 ", "2 ", "3 ", "130 "):
        assert f"\n  {code}" in text.out
    for name in ("stores", "put", "get", "stat", "verify", "rm"):
        assert f"\n    {name} " in text.out
        assert command(name, "--help").code == 0
    version = command("--version")
    assert version.code == 0
    assert version.out.startswith("glance-store 6")
