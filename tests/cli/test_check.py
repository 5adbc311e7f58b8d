# SPDX-License-Identifier: Apache-2.0
"""`glance-store check`: what the stores have is held against what the image service knows."""

from __future__ import annotations

import hashlib
import json
import os
import shutil

import pytest

from .command import one_line_error


def record(location, image_id, data, **changed):
    values = {
        "id": image_id,
        "location": location,
        "size": len(data),
        "checksum": hashlib.md5(data).hexdigest(),
        "hash_algo": "sha256",
        "hash_value": hashlib.sha256(data).hexdigest(),
    }
    return {**values, **changed}


@pytest.fixture
def stocked(command, small, tmp_path):
    """Return records of twelve images."""
    folder = tmp_path / "fast"
    folder.mkdir()
    data = small.read_bytes()
    made = []
    for number in range(12):
        shutil.copy(small, folder / f"image-{number}")
        made.append(record(f"file://{folder}/image-{number}", f"image-{number}", data))
    return made


def expect(command, records, *words):
    return command("check", "--expect=-", "--json", *words, data=as_lines(records))


def as_lines(records):
    return "".join(json.dumps(one) + "\n" for one in records).encode()


def found(result):
    return {(one["problem"], one["id"]) for one in map(json.loads, result.out.splitlines())}


def test_all_is_well(command, stocked):
    for words in ((), ("--data",), ("fast",), ("--data", "--parallel", "3", "--sample", "1/3")):
        result = expect(command, stocked, *words)
        assert (result.code, result.out, result.err) == (0, "", "")
    result = command("check", "--expect=-", data=as_lines(stocked))
    assert result.out == "12 images, 12 records, 0 problems\n"


def test_five_kinds_of_damage(command, stocked, tmp_path):
    """Each is found, and nothing else is reported or changed."""
    folder = tmp_path / "fast"
    (folder / "image-1").unlink()
    (folder / "image-2").write_bytes(b"short")
    damaged = bytearray((folder / "image-3").read_bytes())
    damaged[5000] ^= 1
    (folder / "image-3").write_bytes(damaged)
    (folder / "image-4").rename(tmp_path / "cheap-4")
    (tmp_path / "cheap").mkdir()
    (tmp_path / "cheap-4").rename(tmp_path / "cheap" / "image-4")
    (folder / "forgotten").write_bytes(b"data")
    (folder / ".glance_store-0123456789abcdef.partial").write_bytes(b"half")
    before = sorted((str(path), path.stat().st_mtime_ns) for path in tmp_path.rglob("*"))
    apparent = {
        ("missing", "image-1"),
        ("size", "image-2"),
        ("missing", "image-4"),
        ("elsewhere", "image-4"),
        ("orphan", "forgotten"),
        ("incomplete", ".glance_store-0123456789abcdef.partial"),
    }
    result = expect(command, stocked)
    assert result.code == 1
    assert found(result) == apparent
    result = expect(command, stocked, "--data")
    assert found(result) == apparent | {("damaged", "image-2"), ("damaged", "image-3")}
    after = sorted((str(path), path.stat().st_mtime_ns) for path in tmp_path.rglob("*"))
    assert after == before


def test_an_image_that_has_become_empty(command, stocked, tmp_path):
    """As a crash of a machine leaves them: seen without reading anything."""
    (tmp_path / "fast" / "image-1").write_bytes(b"")
    assert found(expect(command, stocked)) == {("size", "image-1")}


def test_without_records(command, stocked, tmp_path):
    """Nothing can be missing then; what is not complete is seen all the same."""
    assert command("check").code == 0
    (tmp_path / "fast" / ".glance_store-0123456789abcdef.partial").touch()
    result = command("check")
    assert result.code == 1
    assert result.out.startswith("incomplete  fast")
    assert "--data needs records" in one_line_error(command("check", "--data"))


def test_other_forms_of_a_location(command, stocked):
    """A record with an older form of the location is right as well."""
    old = [dict(one, location=one["location"].replace("file:", "filesystem:")) for one in stocked]
    assert found(expect(command, old, "--data")) == set()


def test_one_store(command, stocked, tmp_path):
    """Records of other stores are none of its matter; those of its own are."""
    (tmp_path / "fast" / "image-1").unlink()
    foreign = [
        record("rbd://pool/none", "a", b""),
        record(f"file://{tmp_path}/cheap/none", "b", b""),
        record("enc0ded", "c", b""),
    ]
    assert found(expect(command, [*stocked, *foreign], "fast")) == {("missing", "image-1")}


def test_a_location_that_is_none(command, stocked):
    """It is reported, and the others are looked at."""
    records = [record("enc0ded", "a", b""), record("rbd://pool/x", "b", b""), *stocked[1:]]
    result = expect(command, records)
    assert result.code == 1
    assert found(result) == {("failed", "a"), ("failed", "b"), ("orphan", "image-0")}


def test_several_records_of_one_location(command, stocked, tmp_path):
    """Each of them is compared."""
    wrong = dict(stocked[0], id="other", checksum="0" * 32)
    state = f"--state-file={tmp_path / 'state'}"
    for _run in range(2):
        assert found(expect(command, [wrong, *stocked], "--data", state)) == {("damaged", "other")}
    (tmp_path / "fast" / "image-0").unlink()
    result = expect(command, [wrong, *stocked])
    assert found(result) == {("missing", "other"), ("missing", "image-0")}


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_records_are_utf8_whatever_the_locale(command, stocked, tmp_path, encoding):
    path = tmp_path / "fast" / "größe"
    path.write_bytes(b"")
    lines = "".join(f"{one['id']},{one['location']}\n" for one in stocked)
    text = f"id,location\n{lines}größe,file://{path}\n"
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    result = command("check", "--expect=-", "--json", data=text.encode(), env=environment)
    assert (result.code, found(result)) == (0, set())
    result = command("check", "--expect=-", data=text.encode("latin-1"), env=environment)
    assert "cannot be read" in one_line_error(result)


def test_a_name_that_is_not_utf8(command, stocked, tmp_path):
    path = tmp_path / "fast" / os.fsdecode(b"image-\xff")
    path.write_bytes(b"data")
    odd = record(f"file://{path}", path.name, b"data")
    state = f"--state-file={tmp_path / 'state'}"
    for _run in range(2):
        assert found(expect(command, [*stocked, odd], "--data", state)) == set()


@pytest.mark.parametrize("separator", [",", "\t", "|", ";"])
def test_tables(command, stocked, separator):
    """As databases print them, and spreadsheets with a mark before the text."""
    lines = ["\ufeff" + separator.join(["id", "location", "size", "checksum"])]
    lines += [
        separator.join([one["id"], one["location"], "NULL", one["checksum"]]) for one in stocked[1:]
    ]
    result = command("check", "--expect=-", "--json", data="\n".join(lines).encode())
    assert found(result) == {("orphan", "image-0")}


@pytest.mark.parametrize("separator", ["\t", "|"])
@pytest.mark.parametrize("footer", [[], ["(12 rows)"], ["(12 Zeilen)", ""]])
def test_what_databases_print(command, stocked, separator, footer):
    """Quotes mean nothing in it, and psql counts the lines at its end."""
    lines = [separator.join(["id", "name", "location"])]
    lines += [separator.join([one["id"], '"19 inches', one["location"]]) for one in stocked]
    data = "\n".join([*lines, *footer])
    result = command("check", "--expect=-", "--json", data=data.encode())
    assert found(result) == set()


def test_it_goes_on_where_it_stopped(command, stocked, tmp_path):
    """What was found good is not read again; what was not is."""
    state = tmp_path / "state"
    path = tmp_path / "fast" / "image-0"
    data = path.read_bytes()
    path.write_bytes(b"x" * len(data))
    words = ("--data", f"--state-file={state}")
    assert found(expect(command, stocked, *words)) == {("damaged", "image-0")}
    assert len(state.read_text().splitlines()) == 11
    for number in range(1, 12):
        (tmp_path / "fast" / f"image-{number}").write_bytes(b"y" * len(data))
    path.write_bytes(data)
    assert expect(command, stocked, *words).code == 0
    assert "file:" not in state.read_text()


def test_a_sample_is_always_the_same(command, stocked, tmp_path):
    for number in range(12):
        path = tmp_path / "fast" / f"image-{number}"
        path.write_bytes(b"x" * path.stat().st_size)
    parts = [found(expect(command, stocked, "--data", f"--sample={part}/3")) for part in (1, 1, 2)]
    assert parts[0] == parts[1] < parts[2]
    assert 0 < len(parts[0]) < 12


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("size,checksum\n1,2\n", "name the columns"),
        ('{"id": "x"}\n', "location is missing"),
        ('{"id": "x", "location": "file:///x", "size": "many"}\n', "is not a number"),
        ("{broken\n", "is not a JSON object"),
        ('id,location\nx,file:///x\ny,"file:///y\nz,file:///z\n', "up to line 4: unexpected end"),
    ],
)
def test_records_that_are_none(command, text, words):
    result = command("check", "--expect=-", data=text.encode())
    assert words in one_line_error(result)
    assert result.code == 2


def test_a_file_that_is_not_there(command):
    assert "nowhere.json cannot be read" in one_line_error(
        command("check", "--expect=nowhere.json")
    )


@pytest.mark.parametrize("words", [["--sample=2/1"], ["--sample=half"], ["--parallel=0"]])
def test_arguments_that_are_refused(command, words):
    assert command("check", *words).code == 2
