# SPDX-License-Identifier: Apache-2.0
"""`put`, `get`, `stat`, `verify` and `rm` on real stores."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import uuid

import pytest

from .command import MIB, one_line_error


@pytest.fixture
def stored(command, disk):
    """An image in the default store: what `put` says about it."""
    result = command("put", disk, "--json")
    assert result.code == 0, result.err
    return result.json


def digest(path, name):
    return hashlib.new(name, path.read_bytes()).hexdigest()


# -- put


def test_put_says_what_it_has_stored(stored, disk, tmp_path):
    assert str(uuid.UUID(stored["id"])) == stored["id"]
    assert stored == {
        "id": stored["id"],
        "location": f"file://{tmp_path}/fast/{stored['id']}",
        "size": 20 * MIB,
        "checksum": digest(disk, "md5"),
        "multihash": digest(disk, "sha512"),
        "hash": "sha512",
        "metadata": {"store": "fast"},
    }
    assert (tmp_path / "fast" / stored["id"]).read_bytes() == disk.read_bytes()


def test_put_with_all_choices(command, small, tmp_path):
    result = command(
        "put", small, "--id", "my image", "--store", "cheap", "--hash", "sha256", "--size", "10000"
    )
    assert result.code == 0
    lines = dict(line.split(":", 1) for line in result.out.splitlines())
    assert {name: value.strip() for name, value in lines.items()} == {
        "id": "my image",
        "location": f"file://{tmp_path}/cheap/my image",
        "size": "10000 bytes (9.8 KiB)",
        "checksum": digest(small, "md5"),
        "multihash": digest(small, "sha256"),
        "hash": "sha256",
        "metadata": "store=cheap",
    }


def test_put_from_a_pipe_and_from_a_redirected_file(command, disk, tmp_path):
    piped = command("put", "-", "--id", "piped", data=disk.read_bytes())
    assert piped.code == 0
    with disk.open("rb") as file:
        file.seek(5 * MIB)
        redirected = command("put", "-", "--id", "redirected", stdin=file)
    assert redirected.code == 0
    data = disk.read_bytes()
    assert (tmp_path / "fast" / "piped").read_bytes() == data
    assert (tmp_path / "fast" / "redirected").read_bytes() == data[5 * MIB :]


def test_put_of_nothing(command, tmp_path):
    (tmp_path / "empty").touch()
    result = command("put", tmp_path / "empty", "--json")
    assert result.code == 0
    assert result.json["size"] == 0
    assert result.json["checksum"] == hashlib.md5(b"").hexdigest()


def test_put_never_replaces(command, small, tmp_path):
    assert command("put", small, "--id", "one").code == 0
    again = command("put", small, "--id", "one")
    assert again.code == 1
    assert "already exists" in one_line_error(again)


@pytest.mark.parametrize("size", [9_999, 10_001, "2M"])
def test_put_of_a_wrong_size_leaves_nothing(command, small, tmp_path, size):
    result = command("put", small, "--size", size)
    assert result.code == 1
    assert "expected" in one_line_error(result)
    assert os.listdir(tmp_path / "fast") == []


def test_names_of_hashes_in_any_case(command, small):
    put = command("put", small, "--hash", "SHA256", "--json")
    assert put.code == 0, put.err
    assert put.json["hash"] == "sha256"
    words = ["--multihash", digest(small, "sha256"), "--hash", "Sha256"]
    verified = command("verify", put.json["location"], *words, "--json").json
    assert (verified["hash"], verified["verified"]) == ("sha256", True)


def test_a_size_of_0_means_no_byte(command, small, tmp_path):
    (tmp_path / "empty").touch()
    empty = command("put", tmp_path / "empty", "--size", "0", "--id", "empty")
    assert empty.code == 0, empty.err
    for words, options in (
        ([small], {}),
        (["-"], {"data": b"x"}),
        (["-"], {"data": bytes(10 * MIB)}),
        (["/dev/zero"], {}),
    ):
        result = command("put", *words, "--size", "0", **options)
        assert result.code == 1
        name = "standard input" if words == ["-"] else str(words[0])
        assert one_line_error(result) == f"Size exceeds: expected 0 bytes, {name} has more"
    assert os.listdir(tmp_path / "fast") == ["empty"]


# -- get


def test_get_restores_bytes_and_holes(command, stored, disk, tmp_path):
    target = tmp_path / "restored.raw"
    result = command("get", stored["location"], "-o", target)
    assert result.code == 0, result.err
    assert "20.0 MiB" in result.out
    assert "fast" in result.out
    assert target.read_bytes() == disk.read_bytes()
    # 2 MiB of data; the file system may count in larger units than ours.
    assert target.stat().st_blocks * 512 < 4 * MIB
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(target.stat().st_mode) == 0o666 & ~umask


def test_get_of_an_image_that_ends_in_zeros(command, tmp_path):
    source = tmp_path / "zeros.raw"
    source.write_bytes(b"head" + bytes(3 * MIB))
    location = command("put", source, "--json").json["location"]
    assert command("get", location, "-o", tmp_path / "back", "-q").out == ""
    assert (tmp_path / "back").read_bytes() == source.read_bytes()


def test_get_to_standard_output(command, stored, disk):
    result = command("get", stored["location"])
    assert result.code == 0
    assert result.err == ""
    assert result.data == disk.read_bytes()


def test_get_of_ranges(command, stored, disk):
    data = disk.read_bytes()
    cases = {
        ("--offset", "1000", "--length", "64K"): data[1000 : 1000 + 65536],
        ("--offset", "19M"): data[19 * MIB :],
        ("--length", "10"): data[:10],
        ("--offset", "20971519", "--length", "1G"): data[-1:],
        ("--offset", "21M"): b"",
    }
    for words, expected in cases.items():
        result = command("get", stored["location"], *words)
        assert (result.code, result.data) == (0, expected), words


def test_get_reports_in_json(command, stored, tmp_path):
    target = tmp_path / "part"
    result = command("get", stored["location"], "-o", target, "--length", "5", "--json")
    assert result.json == {"store": "fast", "file": str(target), "size": 5}


def test_get_replaces_only_when_told(command, stored, disk, tmp_path):
    target = tmp_path / "precious"
    target.write_text("precious")
    target.chmod(0o640)
    refused = command("get", stored["location"], "-o", target)
    assert refused.code == 2
    assert "--force" in one_line_error(refused)
    assert target.read_text() == "precious"
    link = tmp_path / "link"
    link.symlink_to(target)
    assert command("get", stored["location"], "-o", link, "--force").code == 0
    assert link.is_symlink()
    assert target.read_bytes() == disk.read_bytes()
    assert stat.S_IMODE(target.stat().st_mode) == 0o640


def test_get_never_replaces_a_device(command, stored):
    assert command("get", stored["location"], "-o", os.devnull).code == 0
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)
    full = command("get", stored["location"], "-o", "/dev/full")
    assert full.code == 1
    assert one_line_error(full) == "/dev/full: No space left on device"


@pytest.fixture
def block_device(tmp_path):
    """A block device of 20 MiB with old data on it."""
    backing = tmp_path / "device.raw"
    backing.write_bytes(b"\xaa" * 20 * MIB)
    try:
        attached = subprocess.run(
            ["losetup", "--find", "--show", backing], check=True, capture_output=True, text=True
        )
    except (OSError, subprocess.CalledProcessError) as exc:
        pytest.skip(f"no loop device can be set up here: {exc}")
    device = attached.stdout.strip()
    yield device
    subprocess.run(["losetup", "--detach", device], check=True)


def test_a_block_device_gets_every_zero_and_is_read_whole(command, stored, disk, block_device):
    refused = command("get", stored["location"], "-o", block_device)
    assert refused.code == 2
    assert "--force" in one_line_error(refused)
    assert command("get", stored["location"], "-o", block_device, "--force").code == 0
    again = command("put", block_device, "--json")
    assert again.json["size"] == 20 * MIB
    assert again.json["multihash"] == stored["multihash"]


# -- stat


def test_a_scheme_in_capitals(command, single, stored, small):
    shouted = stored["location"].replace("file://", "FILE://")
    assert command("stat", shouted, "--json").json["size"] == stored["size"]
    assert command("stat", shouted, "--store", "fast", "--json").json["scheme"] == "file"
    assert command("rm", shouted, "--yes").code == 0
    location = single("put", small, "--json").json["location"].replace("file://", "FileSystem://")
    assert single("get", location).data == small.read_bytes()


def test_stat(command, stored):
    assert command("stat", stored["location"], "--json").json == {
        "location": stored["location"],
        "size": 20 * MIB,
        "store": "fast",
        "driver": "file",
        "scheme": "file",
    }
    assert "20971520 bytes (20.0 MiB)" in command("stat", stored["location"]).out


# -- verify


def test_verify_without_expectations_computes(command, stored):
    result = command("verify", stored["location"], "--json")
    assert result.code == 0
    assert result.json == {
        "location": stored["location"],
        "store": "fast",
        "size": 20 * MIB,
        "checksum": stored["checksum"],
        "multihash": stored["multihash"],
        "hash": "sha512",
        "expected": {},
        "verified": None,
    }


def test_verify_of_a_good_image(command, stored, disk):
    result = command(
        "verify",
        stored["location"],
        "--checksum",
        stored["checksum"].upper(),
        "--multihash",
        digest(disk, "sha256"),
        "--hash",
        "sha256",
    )
    assert result.code == 0
    assert "yes (checksum and multihash)" in result.out


def test_verify_finds_one_changed_byte(command, stored, tmp_path):
    with open(stored["location"].removeprefix("file://"), "r+b") as file:
        file.seek(10 * MIB)
        file.write(b"!")
    words = ["verify", stored["location"], "--multihash", stored["multihash"]]
    result = command(*words)
    assert result.code == 1
    assert f"NO: multihash should be {stored['multihash']}" in result.out
    as_json = command(*words, "--json")
    assert as_json.code == 1
    assert as_json.json["verified"] is False
    assert as_json.json["expected"] == {"multihash": stored["multihash"]}


@pytest.mark.parametrize(
    "words",
    [["--checksum", "abc"], ["--checksum", "g" * 32], ["--multihash", "0" * 64]],
)
def test_verify_refuses_what_is_no_digest(command, stored, words):
    result = command("verify", stored["location"], *words)
    assert result.code == 2
    assert "hexadecimal digits" in one_line_error(result)


# -- rm


def test_rm(command, stored, tmp_path):
    result = command("rm", stored["location"], "--yes")
    assert result.code == 0
    assert "fast" in result.out
    assert os.listdir(tmp_path / "fast") == []
    again = command("rm", stored["location"], "--yes")
    assert again.code == 3
    one_line_error(again)


def test_rm_in_json(command, stored):
    result = command("rm", stored["location"], "--yes", "--json", "--store", "fast")
    assert result.json == {"location": stored["location"], "store": "fast", "removed": True}


def test_rm_without_anybody_to_ask(command, stored, tmp_path):
    result = command("rm", stored["location"])
    assert result.code == 2
    assert "--yes" in one_line_error(result)
    assert os.listdir(tmp_path / "fast") == [stored["id"]]


# -- a configuration without identifiers


def test_single_mode_does_the_same(single, small, tmp_path):
    put = single("put", small, "--json", "--store", "file")
    assert put.code == 0
    location = put.json["location"]
    assert location == f"file://{tmp_path}/single/{put.json['id']}"
    assert put.json["metadata"] == {}
    assert single("put", small, "--store", "filesystem").code == 0
    assert single("put", small).code == 0
    assert single("get", location).data == small.read_bytes()
    assert single("stat", location, "--store", "file", "--json").json["store"] == "file"
    assert single("verify", location, "--checksum", put.json["checksum"]).code == 0
    assert single("rm", location, "--yes").code == 0
    assert single("stat", location).code == 3
    other = single("stat", location, "--store", "rbd")
    assert other.code == 2
    assert "belong to the store 'file'" in one_line_error(other)
    assert single("put", small, "--store", "rbd").code == 2
    assert single("stat", "rbd://x").code == 2
