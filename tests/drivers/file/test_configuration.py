# SPDX-License-Identifier: Apache-2.0
"""What the options of the file system store allow and refuse."""

from __future__ import annotations

import errno
import io
import json
import logging
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from oslo_config import cfg

import glance_store
from glance_store import exceptions
from glance_store._drivers.filesystem import Store, datadirs, metadata
from tests.drivers.file.conftest import MakeStore, listing, locate, mounted, put

MIB = 1024 * 1024


def refused(make_store: MakeStore, match: str, **options: Any) -> None:
    with pytest.raises(exceptions.BadStoreConfiguration, match=match):
        make_store(**options)


def test_r49_default_directory() -> None:
    store = Store(cfg.ConfigOpts(), "files")
    assert store.store_conf.filesystem_store_datadir == "/var/lib/glance/images"


def test_neither_or_both_kinds_of_directories(make_store: MakeStore, tmp_path: Path) -> None:
    refused(make_store, "neither is set", datadir="")
    refused(make_store, "both are set", datadir=str(tmp_path), datadirs=[str(tmp_path)])


@pytest.mark.parametrize("value", ["", ":5", " :1"])
def test_a_directory_without_a_path(make_store: MakeStore, value: str) -> None:
    refused(make_store, "without a path", datadirs=[value])


def test_r51_priorities_are_whole_numbers(make_store: MakeStore, tmp_path: Path) -> None:
    refused(make_store, "not a whole number", datadirs=[f"{tmp_path}/a:high"])
    assert datadirs.parse(["/a:10", "/b", "/c:-3", "/d:e:7"]) == {
        "/a": 10,
        "/b": 0,
        "/c": -3,
        "/d:e": 7,
    }


@pytest.mark.parametrize("value", ["/a:1,/b:2", "/a, /b", "/a;/b:1", "/a:1 /b:2"])
def test_several_directories_in_one_value(make_store: MakeStore, value: str) -> None:
    refused(make_store, "once for each", datadirs=[value])
    refused(make_store, "once for each", datadir=value)


@pytest.mark.parametrize("other", ["{}/images/", "{}/link", "{}/none/../images"])
def test_one_directory_under_two_names(make_store: MakeStore, tmp_path: Path, other: str) -> None:
    (tmp_path / "none").mkdir()
    (tmp_path / "link").symlink_to("images")
    names = [f"{tmp_path}/images:2", other.format(tmp_path) + ":1"]
    store = make_store(datadirs=names, timeout=20)
    assert put(store, "image", b"data") == f"file://{tmp_path}/images/image"
    with pytest.raises(exceptions.Duplicate):
        put(store, "image", b"data")


def test_r47_a_directory_twice(
    make_store: MakeStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = str(tmp_path / "a")
    refused(make_store, "twice", datadirs=[f"{place}:1", f"{place}:2"])
    make_store(datadirs=[f"{place}:1", f"{place}:1"])
    assert "more than once" in caplog.text


def test_r55_directories_are_made(make_store: MakeStore, tmp_path: Path) -> None:
    make_store(datadir=str(tmp_path / "a" / "b"))
    make_store(datadir=str(tmp_path / "a" / "b"))
    assert (tmp_path / "a" / "b").is_dir()


def test_r55_another_process_may_make_the_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = os.makedirs
    place = str(tmp_path / "raced")

    def slower(path: str, **options: Any) -> None:
        make(path)
        make(path, **options)

    monkeypatch.setattr(datadirs.os, "makedirs", slower)
    datadirs.prepare(place, 0)
    assert os.path.isdir(place)


def test_a_directory_that_cannot_be_made(make_store: MakeStore, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refused(make_store, "cannot be created", datadir=str(tmp_path / "file" / "images"))


def test_a_directory_that_cannot_be_written(make_store: MakeStore, tmp_path: Path) -> None:
    with mounted("mount", "-t", "tmpfs", "-o", "ro", "tmpfs", at=tmp_path / "ro") as path:
        refused(make_store, "cannot be created or written", datadir=str(path))


@pytest.mark.parametrize(("digits", "match"), [(240, "own images"), (888, "octal")])
def test_permissions_that_make_no_sense(make_store: MakeStore, digits: int, match: str) -> None:
    refused(make_store, match, file_perm=digits)


@pytest.mark.parametrize(
    ("digits", "before", "after"),
    [(640, 0o700, 0o710), (604, 0o700, 0o701), (600, 0o700, 0o700), (644, 0o755, 0o755)],
)
def test_r46_the_directory_opens_with_its_files(
    make_store: MakeStore, tmp_path: Path, digits: int, before: int, after: int
) -> None:
    place = tmp_path / "images"
    place.mkdir(mode=before)
    make_store(file_perm=digits)
    assert stat.S_IMODE(place.stat().st_mode) == after


def test_a_bad_configuration_leaves_the_store_readable(
    make_store: MakeStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = make_store(configure=False, file_perm=888)
    store.configure()
    assert "octal" in caplog.text
    assert store.configuration_error is not None
    (tmp_path / "old").write_bytes(b"data")
    old = locate(store, f"file://{tmp_path}/old")
    assert b"".join(store.get(old)[0]) == b"data"
    with pytest.raises(exceptions.StoreAddDisabled):
        put(store, "image", b"data")
    with pytest.raises(exceptions.StoreDeleteNotSupported):
        store.delete(old)


def test_r65_a_store_is_usable_before_it_is_configured(
    make_store: MakeStore, tmp_path: Path
) -> None:
    store = make_store(configure=False)
    (tmp_path / "old").write_bytes(b"data")
    old = locate(store, f"file://{tmp_path}/old")
    assert store.get_size(old) == 4
    assert put(store, "image", b"data") == f"file://{tmp_path}/images/image"
    store.delete(old)


def test_what_the_image_service_reads(make_store: MakeStore, tmp_path: Path) -> None:
    store = make_store(chunk_size=MIB, filesystem_thin_provisioning=True)
    assert store.datadir == str(tmp_path / "images")
    assert store.url_prefix == f"file://{tmp_path}/images"
    assert (store.chunk_size, store.thin_provisioning) == (MIB, True)
    assert store.READ_CHUNKSIZE == MIB == store.WRITE_CHUNKSIZE
    assert Store.READ_CHUNKSIZE == 4 * MIB


def test_r50_large_chunks_are_read_at_once(make_store: MakeStore) -> None:
    store = make_store(chunk_size=3 * MIB)
    uri = put(store, "image", bytes(7 * MIB))
    sizes = [len(chunk) for chunk in store.get(locate(store, uri))[0]]
    assert sizes == [3 * MIB, 3 * MIB, MIB]


@pytest.mark.parametrize(
    ("value", "match"),
    [
        ("images", "relative"),
        ("./images", "relative"),
        ("~/images", "~ is not expanded"),
        ("~glance/images", "~ is not expanded"),
        ("file:///srv/images", "URI"),
        ("s3://bucket", "URI"),
    ],
)
def test_a_directory_that_depends_on_the_process_or_is_none(
    make_store: MakeStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    value: str,
    match: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    for options in ({"datadir": value}, {"datadirs": ["/srv/a", value]}):
        [option] = options
        with pytest.raises(exceptions.BadStoreConfiguration, match=match) as caught:
            make_store(**options)
        text = str(caught.value)
        assert f"[files] filesystem_store_{option} = {value}: " in text
        assert "\n" not in text
    assert listing(tmp_path) == []


def test_a_directory_may_end_with_a_slash(make_store: MakeStore, tmp_path: Path) -> None:
    assert put(make_store(datadir=f"{tmp_path}/"), "image", b"data") == f"file://{tmp_path}/image"


def test_a_symbolic_link_that_leads_nowhere(make_store: MakeStore, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("no/such")
    refused(make_store, f"symbolic link to {tmp_path}/no/such: No such", datadir=f"{tmp_path}/link")
    (tmp_path / "file").write_text("")
    refused(make_store, "File exists, and it is not a directory", datadir=f"{tmp_path}/file")


# -- several directories


def test_the_highest_priority_with_room_is_chosen(
    make_store: MakeStore, tmp_path: Path, small_disk: Path
) -> None:
    large = tmp_path / "large"
    store = make_store(datadirs=[f"{large}:1", f"{small_disk}:2"])
    assert store.datadir is None
    assert str(store.url_prefix) == f"file://{small_disk}"
    assert put(store, "small", bytes(MIB)) == f"file://{small_disk}/small"
    assert put(store, "big", bytes(20 * MIB)) == f"file://{large}/big"


def test_r48_within_a_priority_the_most_free_space_counts(
    make_store: MakeStore, tmp_path: Path, small_disk: Path
) -> None:
    large = tmp_path / "large"
    store = make_store(datadirs=[str(small_disk), str(large)])
    assert put(store, "image", b"data") == f"file://{large}/image"


def test_r68_no_directory_has_room(make_store: MakeStore, small_disk: Path) -> None:
    other = small_disk / "other"
    store = make_store(datadirs=[f"{small_disk}/one:1", f"{other}:2"])
    (small_disk / "filler").write_bytes(bytes(16))
    with open(small_disk / "filler", "wb") as filler, pytest.raises(OSError, match="space"):
        filler.write(bytes(20 * MIB))
    with pytest.raises(exceptions.StorageFull, match="No data directory"):
        put(store, "image", b"data", size=0)


def test_one_id_is_new_to_all_directories(
    make_store: MakeStore, tmp_path: Path, small_disk: Path
) -> None:
    store = make_store(datadirs=[f"{small_disk}:2", f"{tmp_path}/large:1"])
    put(store, "image", bytes(MIB))
    with pytest.raises(exceptions.Duplicate):
        put(store, "image", bytes(20 * MIB))

    class Source(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            (tmp_path / "large" / "other").write_bytes(b"there first")
            return super().read(size)

    with pytest.raises(exceptions.Duplicate):
        store.add("other", Source(b"data"), 4, "md5")
    assert listing(small_disk) == ["image"]


# -- metadata file


def write_json(path: Path, content: Any) -> str:
    path.write_text(json.dumps(content))
    return str(path)


def test_r56_metadata_of_the_mount_point(make_store: MakeStore, tmp_path: Path) -> None:
    entry = {"id": "share", "mountpoint": str(tmp_path), "type": "nfs", "hosts": ["a", "b"]}
    store = make_store(metadata_file=write_json(tmp_path / "meta.json", entry))
    assert store.add("image", io.BytesIO(b"x"), 1, "md5")[4] == {**entry, "store": "files"}


def test_r60_the_entry_itself_is_left_alone(make_store: MakeStore, tmp_path: Path) -> None:
    entry = {"id": "share", "mountpoint": str(tmp_path)}
    store = make_store(metadata_file=write_json(tmp_path / "meta.json", [entry]))
    for name in ("one", "two"):
        store.add(name, io.BytesIO(b"x"), 1, "md5")[4]["changed"] = "by the caller"
    assert store._metadata == [entry]


def test_r59_mount_points_match_by_whole_components(
    make_store: MakeStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    wrong = {"id": "wrong", "mountpoint": str(tmp_path / "imag")}
    right = {"id": "right", "mountpoint": str(tmp_path / "images") + "/"}
    store = make_store(metadata_file=write_json(tmp_path / "meta.json", [wrong, right]))
    assert store.add("image", io.BytesIO(b"x"), 1, "md5")[4]["id"] == "right"
    store = make_store(metadata_file=write_json(tmp_path / "meta.json", [wrong]))
    assert store.add("other", io.BytesIO(b"x"), 1, "md5")[4] == {"store": "files"}
    assert "No mountpoint" in caplog.text
    assert metadata.for_path([{"id": "root", "mountpoint": "/"}], "/a/b")["id"] == "root"


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ('"text"', "not an object"),
        ('{"id": "x"}', "mountpoint"),
        ('{"id": 1, "mountpoint": "/"}', "'id'"),
        ('[{"id": "x", "mountpoint": "/", "n": 1}]', "not a string"),
        ('[{"id": "x", "mountpoint": "/", "n": {"m": [null]}}]', "not a string"),
    ],
)
def test_r13_the_metadata_file_is_checked(
    make_store: MakeStore, tmp_path: Path, content: str, match: str
) -> None:
    path = tmp_path / "meta.json"
    path.write_text(content)
    refused(make_store, match, metadata_file=str(path))


def test_a_missing_metadata_file(make_store: MakeStore, tmp_path: Path) -> None:
    refused(make_store, "No such file", metadata_file=str(tmp_path / "none"))


def test_a_metadata_file_on_a_file_server_that_comes_back(
    make_store: MakeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_json(tmp_path / "meta.json", {"id": "x", "mountpoint": "/"})

    def unreachable(_path: str) -> list[metadata.Entry]:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    store = make_store(configure=False, metadata_file=path)
    monkeypatch.setattr(metadata, "load", unreachable)
    with pytest.raises(exceptions.BackendUnavailable, match=r"meta\.json: Stale"):
        store.configure()
    monkeypatch.undo()
    store.configure(re_raise_bsc=True)


# -- several stores


def test_two_stores_on_one_directory_are_refused(
    multi: Callable[..., cfg.ConfigOpts], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "link").symlink_to("images")
    option = "filesystem_store_datadir"
    with caplog.at_level(logging.WARNING):
        conf = multi(
            one={option: str(tmp_path / "images")},
            two={option: str(tmp_path / "link")},
            three={},
        )
    [line] = [text for text in caplog.messages if "belongs to the store one" in text]
    assert "two" in line
    assert "a place of its own" in line
    first = glance_store.add_with_multihash(conf, "image", io.BytesIO(b"x"), 1, "one", "md5")
    with pytest.raises(exceptions.StoreAddDisabled):
        glance_store.add_with_multihash(conf, "other", io.BytesIO(b"x"), 1, "two", "md5")
    with pytest.raises(exceptions.StoreDeleteNotSupported):
        glance_store.delete(first[0], "two")
    # What is there already stays readable through either.
    assert b"".join(glance_store.get(first[0], "two")[0]) == b"x"
    glance_store.add_with_multihash(conf, "image", io.BytesIO(b"x"), 1, "three", "md5")


def test_two_stores_on_one_bind_mounted_directory_are_refused(
    multi: Callable[..., cfg.ConfigOpts], tmp_path: Path
) -> None:
    (tmp_path / "images").mkdir()
    with mounted("mount", "--bind", str(tmp_path / "images"), at=tmp_path / "bound") as bound:
        option = "filesystem_store_datadir"
        conf = multi(one={option: str(tmp_path / "images")}, two={option: str(bound)})
        with pytest.raises(exceptions.StoreAddDisabled):
            glance_store.add_with_multihash(conf, "other", io.BytesIO(b"x"), 1, "two", "md5")


def test_health(make_store: MakeStore, tmp_path: Path) -> None:
    store = make_store()
    assert "GiB free in" in store.check_health()
    (tmp_path / "images").rmdir()
    with pytest.raises((exceptions.GlanceStoreException, OSError)):
        store.check_health()
