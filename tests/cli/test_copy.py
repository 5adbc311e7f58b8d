# SPDX-License-Identifier: Apache-2.0
"""`glance-store copy`: images in another store, each verified, none overwritten or half."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess

import pytest

from glance_store.cli.main import main
from tests.services.http_server import File, WebServer, cutting
from tests.waiting import until

from .command import MIB, Result, one_line_error
from .test_check import as_lines, record


@pytest.fixture
def stocked(small, tmp_path):
    """Return records of five images in the store fast; each has bytes of its own."""
    folder = tmp_path / "fast"
    folder.mkdir()
    made = []
    for number in range(5):
        data = small.read_bytes() + bytes([number])
        (folder / f"image-{number}").write_bytes(data)
        made.append(record(f"file://{folder}/image-{number}", f"image-{number}", data))
    return made


@pytest.fixture
def inside(config, capfd, tmp_path):
    """The command within this process, which takes no time to begin; records go to --expect."""

    def run(*words, records=None):
        if records is not None:
            (tmp_path / "records").write_bytes(as_lines(records))
            words = (*words, f"--expect={tmp_path}/records")
        capfd.readouterr()
        code = main([f"--config-file={config}", *map(str, words)])
        out, err = capfd.readouterr()
        return Result(code, out.encode(), err)

    return run


def copied(result):
    return {one["id"]: one for one in map(json.loads, result.out.splitlines())}


def states(result):
    return {name: one["state"] for name, one in copied(result).items()}


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.exists() else {}


def test_locations(command, stocked, tmp_path):
    """Old and new location are printed, and both stores have the image."""
    uris = [one["location"] for one in stocked[:2]]
    result = command("copy", *uris, "--to", "cheap")
    assert (result.code, result.err) == (0, "")
    lines = result.out.splitlines()
    assert sorted(lines[:2]) == [
        f"copied    image-{number}  {uris[number]} -> file://{tmp_path}/cheap/image-{number}"
        for number in range(2)
    ]
    assert lines[2] == "2 copied, 20002 bytes (19.5 KiB); 0 already there, 0 failed"
    data = (tmp_path / "fast" / "image-2").read_bytes()
    words = ("copy", stocked[2]["location"], "--to=cheap", "--json")
    (line,) = copied(command(*words, "--read")).values()
    assert line == {
        "state": "copied",
        "id": "image-2",
        "location": stocked[2]["location"],
        "new_location": f"file://{tmp_path}/cheap/image-2",
        "size": len(data),
        "checksum": hashlib.md5(data).hexdigest(),
        "hash_algo": "sha512",
        "hash_value": hashlib.sha512(data).hexdigest(),
        "verified": "hash",
        "metadata": {"store": "cheap"},
        "text": "",
    }
    words = ("copy", stocked[3]["location"], "--to=cheap", "--json")
    (line,) = copied(command(*words)).values()
    # Nobody has read it.
    assert (line["size"], line["verified"]) == (10_001, "size")
    assert line["checksum"] == line["hash_algo"] == line["hash_value"] == ""
    cheap = content(tmp_path / "cheap")
    assert len(cheap) == 4
    assert cheap.items() <= content(tmp_path / "fast").items()


def test_a_whole_store(inside, stocked, tmp_path):
    """What is there already is not copied again, and a dry run copies nothing."""
    words = ("copy", "--from-store=fast", "--to=cheap", "--json", "--parallel=3")
    (tmp_path / "fast" / ".glance_store-0123456789abcdef.partial").write_bytes(b"half")
    planned = inside(*words, "--dry-run")
    assert set(states(planned).values()) == {"planned"}
    assert content(tmp_path / "cheap") == {}
    assert inside("copy", stocked[0]["location"], "--to=cheap").code == 0
    wanted = {one["id"]: "copied" for one in stocked}
    result = inside(*words)
    assert result.code == 0
    assert states(result) == {**wanted, "image-0": "present"}
    again = inside(*words)
    assert (again.code, set(states(again).values())) == (0, {"present"})
    assert copied(again)["image-1"]["new_location"] == f"file://{tmp_path}/cheap/image-1"
    assert len(content(tmp_path / "cheap")) == 5


def test_a_name_that_a_terminal_must_not_get(inside, tmp_path):
    (tmp_path / "fast").mkdir()
    (tmp_path / "fast" / "odd\x1b[31m\nname").write_bytes(b"data")
    result = inside("copy", "--from-store=fast", "--to=cheap")
    assert result.code == 0
    assert "\x1b" not in result.out
    assert len(result.out.splitlines()) == 2
    assert content(tmp_path / "cheap") == {"odd\x1b[31m\nname": b"data"}


def test_without_identifiers(single, small, tmp_path):
    """A store is copied to itself by no way."""
    location = single("put", small, "--id=one", "--json").json["location"]
    result = single("copy", location, "--to=file", "--json")
    assert (result.code, states(result)) == (0, {"one": "present"})
    assert "to itself" in one_line_error(single("copy", "--from-store=file", "--to=file"))


@pytest.mark.parametrize("way", ["--read", "--verify"])
def test_records(inside, stocked, tmp_path, way):
    """What has none is not copied; one that is not right stops none of the others."""
    damaged = tmp_path / "fast" / "image-1"
    damaged.write_bytes(b"x" * damaged.stat().st_size)
    (tmp_path / "fast" / "image-2").unlink()
    (tmp_path / "fast" / "image-3").write_bytes(b"short")
    foreign = [record("rbd://pool/none", "a", b""), record("enc0ded", "b", b"")]
    foreign.append(record(f"file://{tmp_path}/cheap/other", "c", b""))
    data = [*stocked[:4], *foreign]
    words = ("copy", "--from-store=fast", "--to=cheap", "--json", way)
    result = inside(*words, records=data)
    assert result.code == 1
    lines = copied(result)
    assert {name: one["state"] for name, one in lines.items()} == {
        "image-0": "copied",
        "image-1": "failed",
        "image-2": "failed",
        "image-3": "failed",
    }
    assert lines["image-0"]["hash_value"] == stocked[0]["hash_value"]
    assert "md5 is" in lines["image-1"]["text"]
    assert "5 bytes instead of" in lines["image-3"]["text"]
    assert list(content(tmp_path / "cheap")) == ["image-0"]
    # Under the form of an early release.
    old = dict(stocked[4], location=stocked[4]["location"].replace("file:", "filesystem:"))
    assert states(inside(*words, records=[old])) == {"image-4": "copied"}
    missing = inside("copy", old["location"], "--to=cheap", records=data)
    assert "has no record of" in one_line_error(missing)


def test_nothing_is_overwritten(inside, stocked, tmp_path):
    """Another image of the id stays as it is; whether it is another, size and digests tell."""
    (tmp_path / "cheap").mkdir()
    shorter, other = (tmp_path / "cheap" / f"image-{number}" for number in (0, 1))
    shorter.write_bytes(b"other")
    other.write_bytes(b"x" * stocked[1]["size"])
    shutil.copy(tmp_path / "fast" / "image-2", tmp_path / "cheap" / "image-2")
    uris = [one["location"] for one in stocked[:3]]
    words = ("copy", *uris, "--to=cheap", "--json")
    by_size = {"image-0": "failed", "image-1": "present", "image-2": "present"}
    by_hash = {**by_size, "image-1": "failed"}
    assert states(inside(*words)) == by_size
    assert states(inside(*words, "--dry-run")) == by_size
    assert states(inside(*words, "--verify")) == by_hash
    result = inside(*words, records=stocked)
    assert (result.code, states(result)) == (1, by_hash)
    assert copied(result)["image-2"]["verified"] == "hash"
    text = "the store cheap has a different image with this id"
    assert copied(result)["image-0"]["text"] == f"{text}, with 5 bytes instead of 10001"
    assert text in copied(result)["image-1"]["text"]
    assert shorter.read_bytes() == b"other"
    assert set(other.read_bytes()) == {ord("x")}


def test_what_is_noted_is_not_read_again(inside, stocked, tmp_path):
    state = tmp_path / "state"
    words = ("copy", "--from-store=fast", "--to=cheap", f"--state-file={state}")
    assert inside(*words, records=stocked).code == 0
    # The kernel has copied them; now they are read.
    assert not state.exists()
    assert inside(*words, records=stocked).code == 0
    assert len(state.read_text().splitlines()) == 5
    (tmp_path / "cheap" / "image-0").write_bytes(b"x" * stocked[0]["size"])
    assert inside(*words, records=stocked).code == 0
    assert len(state.read_text().splitlines()) == 5
    # A record that says something else is another matter.
    changed = dict(stocked[0], checksum="0" * 32)
    assert inside(*words, records=[changed]).code == 1
    assert "file:" not in state.read_text()


@pytest.mark.parametrize("folder", ["missing", "small.raw"])
def test_notes_for_which_there_is_no_place(inside, stocked, small, tmp_path, folder):
    """It is said before anything is copied."""
    words = ("copy", "--from-store=fast", "--to=cheap", f"--state-file={tmp_path}/{folder}/state")
    result = inside(*words)
    assert result.code == 2
    assert "--state-file: " in result.err
    assert content(tmp_path / "cheap") == {}


def test_notes_in_a_file_that_is_something_else(inside, stocked, small, tmp_path):
    data = small.read_bytes()
    result = inside("copy", "--from-store=fast", "--to=cheap", f"--state-file={small}")
    assert result.code == 2
    assert result.err.endswith(f"{small} cannot be used: it is not a state file\n")
    assert small.read_bytes() == data


def test_notes_that_cannot_be_written_any_more(inside, stocked, tmp_path):
    """The copies are reported all the same: nothing else says where they are."""
    state = tmp_path / "state"
    state.symlink_to(tmp_path / "gone" / "state")
    words = ("copy", "--from-store=fast", "--to=cheap", "--verify", f"--state-file={state}")
    result = inside(*words, "--json")
    assert result.code == 0
    assert set(states(result).values()) == {"copied"}
    problem = f"--state-file: {state} cannot be written: No such file or directory"
    assert result.err == f"glance-store: warning: {problem}\n"


def test_a_name_that_is_not_utf8(inside, stocked, tmp_path):
    name = b"image-\xff"
    path = tmp_path / "fast" / os.fsdecode(name)
    path.write_bytes(b"data")
    words = ("copy", "--from-store=fast", "--to=cheap", "--verify", "--json")
    result = inside(*words, f"--state-file={tmp_path}/state")
    assert result.code == 0
    assert set(states(result).values()) == {"copied"}
    assert (tmp_path / "cheap" / path.name).read_bytes() == b"data"
    assert len((tmp_path / "state").read_text().splitlines()) == 6


@pytest.mark.parametrize("way", ["--read", "--verify"])
def test_holes_are_kept(command, tmp_path, way):
    (tmp_path / "cheap").mkdir()
    source = tmp_path / "cheap" / "image"
    with source.open("wb") as file:
        file.write(b"data")
        file.truncate(64 * MIB)
    assert command("copy", f"file://{source}", "--to=fast", way).code == 0
    copy = (tmp_path / "fast" / "image").stat()
    assert copy.st_size == 64 * MIB
    assert copy.st_blocks * 512 < 2 * MIB


def test_lines_stand_beside_the_bar(command, disk, tmp_path):
    location = command("put", disk, "--id=disk", "--json").json["location"]
    result = command.on_terminal("copy", location, "--to=cheap")
    assert result.code == 0
    assert "copy: " in result.out
    assert "100%|" in result.out
    parts = re.split(r"[\r\n]+", result.out)
    assert f"copied    disk  {location} -> file://{tmp_path}/cheap/disk" in parts


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--to=cheap"], "--from-store"),
        (["file:///a", "file:///b", "--id=x", "--to=cheap"], "--id needs exactly one location"),
        (["file:///a"], "--to"),
        (["file:///", "--to=cheap"], "does not contain the id"),
        (["file:///a", "--to=nowhere"], "nowhere"),
        (["--from-store=nowhere", "--to=cheap"], "nowhere"),
        (["http://host/image", "--to=cheap"], "No loaded store serves"),
    ],
)
def test_arguments_that_are_refused(inside, words, says):
    result = inside("copy", *words)
    assert says in one_line_error(result)
    assert result.code == 2


def test_a_target_that_takes_nothing(inside, stocked, config):
    """Each image is reported."""
    config.write_text(config.read_text().replace("cheap:file", "cheap:http"))
    result = inside("copy", "--from-store=fast", "--to=cheap", "--json")
    assert result.code == 1
    assert set(states(result).values()) == {"failed"}
    assert len(states(result)) == 5


@pytest.fixture
def web(config):
    """A web server, and the configuration with a store for it."""
    text = config.read_text().replace("cheap:file", "cheap:file, web:http")
    config.write_text(text + "[web]\nhttps_insecure = false\n")
    with WebServer() as server:
        yield server


def test_from_the_web(command, web, tmp_path):
    uri = web.serve("/disk.raw", b"data")
    assert "give it with --id" in one_line_error(command("copy", uri, "--to=fast"))
    result = command("copy", uri, "--to=fast", "--id=x", "--json")
    assert states(result) == {"x": "copied"}
    assert content(tmp_path / "fast") == {"x": b"data"}


@pytest.mark.parametrize("framing", ["length", "close"])
def test_an_interrupt_leaves_nothing(command, stocked, web, tmp_path, framing):
    """Also while a server is silent; what is complete is reported."""
    answerer = File(bytes(8 * MIB), framing=framing, ranges=False)
    uri = web.serve("/disk.raw", cutting(answerer, 5 * MIB, "silence"))
    expect = tmp_path / "records"
    expect.write_bytes(as_lines([stocked[0], record(uri, "x", bytes(8 * MIB), size=None)]))
    process = command.start(
        *("copy", stocked[0]["location"], uri, "--to=cheap", "--json", f"--expect={expect}"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    until(lambda: "GET" in [one.method for one in web.requests], "the image is asked for")
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 143
    assert err == b'{"error": "ended by signal SIGTERM", "kind": "TerminatedError"}\n'
    done = {json.loads(line)["id"] for line in out.splitlines()}
    assert set(content(tmp_path / "cheap")) == done <= {"image-0"}


def test_a_kill_is_no_loss(command, stocked, tmp_path):
    """The next run goes on, and all is right in the end."""
    for number in range(40):
        shutil.copy(tmp_path / "fast" / "image-0", tmp_path / "fast" / f"more-{number}")
    words = ("copy", "--from-store=fast", "--to=cheap", "--json", "--parallel=2")
    process = command.start(*words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    until(lambda: content(tmp_path / "cheap"), "an image is copied")
    process.kill()
    process.communicate(timeout=60)
    before = content(tmp_path / "cheap")
    assert before.items() <= content(tmp_path / "fast").items()
    result = command(*words)
    assert result.code == 0
    present = {name for name, state in states(result).items() if state == "present"}
    assert present == set(before)
    assert content(tmp_path / "cheap") == content(tmp_path / "fast")


def test_a_driver_that_stores_in_its_own_way(outside, tmp_path, capfd, stocked):
    """Its result is compared all the same; what is not right is removed from it."""
    config, expect = tmp_path / "outside.conf", tmp_path / "records"
    config.write_text(
        "[DEFAULT]\nenabled_backends = fast:file, box:memory\n"
        f"[fast]\nfilesystem_store_datadir = {tmp_path}/fast\n"
    )
    expect.write_bytes(as_lines([dict(stocked[0], checksum="0" * 32), *stocked[1:]]))
    words = ["copy", "--from-store=fast", "--to=box", f"--expect={expect}", "--json"]
    words.append(f"--config-file={config}")
    assert main(words) == 1
    lines = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert {one["id"]: one["state"] for one in lines} == {
        "image-0": "failed",
        **{f"image-{number}": "copied" for number in range(1, 5)},
    }
    assert sorted(name for _shelf, name in outside.IMAGES) == [
        f"image-{number}" for number in range(1, 5)
    ]
    # It cannot list what it has: an image that is there already is an error, and stays.
    assert main(words) == 1
    assert len(outside.IMAGES) == 4
