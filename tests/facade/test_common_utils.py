# SPDX-License-Identifier: Apache-2.0
"""The helpers that drivers and their users share."""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import io
import re
import sys
import threading
import uuid
from pathlib import Path

import pytest
from oslo_concurrency import lockutils

import glance_store
from glance_store.common import utils

PACKAGE = Path(glance_store.__file__).parent
# The same in each process of a run, which compare what they have found to do.
ID = "5f0c2b9e-70d4-4c1e-9a57-0d3b8f6e2a41"
# {what is imported: the distribution that it comes with}, in all of the package.
DISTRIBUTIONS = {
    "argcomplete": "argcomplete",
    "boto3": "boto3",
    "botocore": "boto3",
    "cinderclient": "python-cinderclient",
    "hypothesis": "hypothesis",
    "keystoneauth1": "keystoneauth1",
    "os_brick": "os-brick",
    "oslo_concurrency": "oslo.concurrency",
    "oslo_config": "oslo.config",
    "oslo_i18n": "oslo.i18n",
    "oslo_middleware": "oslo.middleware",
    "oslo_privsep": "oslo.privsep",
    "oslo_vmware": "oslo.vmware",
    "osprofiler": "osprofiler",
    "prettytable": "prettytable",
    "prometheus_client": "prometheus_client",
    "pytest": "pytest",
    "requests": "requests",
    "stevedore": "stevedore",
    "swiftclient": "python-swiftclient",
    "tqdm": "tqdm",
    "urllib3": "urllib3",
    "suds": "suds-community",
}
# No distribution of the package index has them.
BINDINGS = {"rados", "rbd"}


@pytest.mark.parametrize("value", [ID, "00000000-0000-0000-0000-000000000000"])
def test_uuid(value):
    assert utils.is_uuid_like(value) is True


@pytest.mark.parametrize(
    "value",
    [
        ID.upper().replace("0", "A"),
        uuid.UUID(ID).hex,
        "{00000000-0000-0000-0000-000000000000}",
        "urn:uuid:00000000-0000-0000-0000-000000000000",
        " 00000000-0000-0000-0000-000000000000",
        "image",
        "",
        None,
        1,
        b"00000000-0000-0000-0000-000000000000",
        uuid.UUID(ID),
    ],
)
def test_no_uuid(value):
    assert utils.is_uuid_like(value) is False


def test_chunks_of_a_file():
    assert list(utils.chunkreadable(io.BytesIO(b"abcdefg"), 3)) == [b"abc", b"def", b"g"]
    assert [len(chunk) for chunk in utils.chunkreadable(io.BytesIO(bytes(65537)))] == [65536, 1]


def test_chunks_of_an_iterable_are_left_as_they_are():
    chunks = [b"abc", b"", b"d"]
    assert utils.chunkreadable(chunks, 2) is chunks
    generator = iter(chunks)
    assert utils.chunkreadable(generator) is generator


@pytest.mark.parametrize("data", [b"", b"abc", b"abcd"])
def test_r16_chunks_end_cleanly(data):
    chunks = utils.chunkiter(io.BytesIO(data), 2)
    assert b"".join(chunks) == data
    assert next(chunks, None) is None


def test_chunks_are_read_when_they_are_asked_for():
    source = io.BytesIO(b"abcdef")
    chunks = utils.chunkiter(source, 2)
    assert source.tell() == 0
    next(chunks)
    assert source.tell() == 2


@pytest.mark.parametrize("name", ["md5", "sha1", "sha256", "sha512", "blake2b"])
def test_hasher(name):
    hasher = utils.get_hasher(name)
    hasher.update(b"data")
    assert hasher.hexdigest() == hashlib.new(name, b"data").hexdigest()


def test_unknown_hasher():
    with pytest.raises(ValueError, match="nohash"):
        utils.get_hasher("nohash")


def refuse_md5(monkeypatch):
    """Behave as a host in FIPS mode, which no test can turn on."""
    new = hashlib.new

    def fips(name, data=b"", *, usedforsecurity=True):
        if name.lower() == "md5" and usedforsecurity:
            raise ValueError("disabled for FIPS")
        return new(name, data, usedforsecurity=usedforsecurity)

    def fips_md5(data=b"", *, usedforsecurity=True):
        return fips("md5", data, usedforsecurity=usedforsecurity)

    monkeypatch.setattr(hashlib, "new", fips)
    monkeypatch.setattr(hashlib, "md5", fips_md5)


def test_r19_md5_for_checksums_only(monkeypatch):
    refuse_md5(monkeypatch)
    with pytest.raises(ValueError, match="FIPS"):
        utils.get_hasher("md5")
    assert utils.get_hasher("md5", False).hexdigest() == "d41d8cd98f00b204e9800998ecf8427e"
    assert utils.get_hasher("sha256", True).name == "sha256"


@pytest.mark.parametrize("algorithm", ["md5", "sha512"])
def test_r19_images_are_stored_on_a_fips_host(monkeypatch, create_multi, conf, algorithm):
    create_multi({"one": "file"})
    expected = hashlib.new(algorithm, b"data", usedforsecurity=False).hexdigest()
    refuse_md5(monkeypatch)
    _url, _size, checksum, multihash, _metadata = glance_store.add_with_multihash(
        conf, "image", io.BytesIO(b"data"), 4, "one", algorithm
    )
    assert checksum == "8d777f385d3dfec8815d20f7496026dc"
    assert multihash == expected


def test_synchronized_lets_one_call_run_at_a_time():
    running = []
    most = []

    @utils.synchronized("a-name")
    def work():
        running.append(1)
        most.append(len(running))
        inside.wait(0.01)
        running.pop()

    inside = threading.Event()
    threads = [threading.Thread(target=work) for _number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1, 1, 1, 1]


def test_synchronized_between_processes(tmp_path):
    @utils.synchronized("a-name", external=True, lock_path=str(tmp_path))
    def work(value):
        return value, [path.name for path in tmp_path.iterdir()]

    assert work(1) == (1, ["glance_store-a-name"])
    with lockutils.external_lock("a-name", "glance_store-", str(tmp_path)) as lock:
        assert lock


def imported_by(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module.partition(".")[0]


def test_r20_every_import_is_declared():
    imported = {name for path in PACKAGE.rglob("*.py") for name in imported_by(path)}
    foreign = imported - set(sys.stdlib_module_names) - {"glance_store"} - BINDINGS
    declared = {
        re.split(r"[\s;<>=!~\[(]", requirement, maxsplit=1)[0].lower()
        for requirement in importlib.metadata.requires("glance_store")
    }
    assert foreign <= set(DISTRIBUTIONS)
    assert {DISTRIBUTIONS[name] for name in foreign} <= declared


def test_r21_eventlet_is_imported_nowhere():
    for path in PACKAGE.rglob("*.py"):
        assert "eventlet" not in set(imported_by(path)), path


def test_r18_no_shell_is_started():
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text())
        called = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
        assert not called & {"os.system", "os.popen", "subprocess.getoutput"}, path
        keywords = {node.arg for node in ast.walk(tree) if isinstance(node, ast.keyword)}
        assert "shell" not in keywords, path
