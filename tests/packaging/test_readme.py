# SPDX-License-Identifier: Apache-2.0
"""The README renders without sphinx, its code runs, and its table is that of the drivers."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import pytest

from glance_store import driver
from glance_store._drivers.swift.single_tenant import SingleTenantStore
from glance_store.capabilities import BitMasks

core = pytest.importorskip("docutils.core")
nodes = pytest.importorskip("docutils.nodes")

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.rst").read_text()
PLAIN = ["README.rst", "CONTRIBUTING.rst", "SECURITY.rst"]
# What the package index forbids, and every note that docutils has.
STRICT = {
    "report_level": 1,
    "halt_level": 2,
    "file_insertion_enabled": False,
    "raw_enabled": False,
}


def code(language: str) -> str:
    document = core.publish_doctree(README, settings_overrides=STRICT)
    blocks = document.findall(nodes.literal_block)
    return "\n".join(block.astext() for block in blocks if language in block["classes"])


def table() -> dict[str, dict[str, str]]:
    """Return the rows of the table of stores by driver, cells by column."""
    document = core.publish_doctree(README, settings_overrides=STRICT)
    (found,) = document.findall(nodes.table)
    header, *rows = (
        [entry.astext() for entry in row.findall(nodes.entry)] for row in found.findall(nodes.row)
    )
    return {row[0]: dict(zip(header, row, strict=True)) for row in rows}


@pytest.mark.parametrize("name", PLAIN)
def test_it_renders_without_sphinx(name):
    core.publish_doctree((ROOT / name).read_text(), settings_overrides=STRICT)


def test_its_code_adds_reads_and_deletes_an_image(tmp_path):
    (tmp_path / "glance-api.conf").write_text(code("ini").replace("/srv/glance", str(tmp_path)))
    disk = os.urandom(3 << 20)
    (tmp_path / "disk.raw").write_bytes(disk)
    program = code("python") + (
        "\nimport sys"
        "\nsys.stdout.buffer.write(sector)"
        "\nassert (size, length, metadata) == (3 << 20, 512, {'store': 'fast'}), locals()"
        "\nassert location.endswith('/fast/' + image_id), location"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout == disk[1 << 20 :][:512]
    assert list((tmp_path / "fast").iterdir()) == []


def test_its_programs_are_there():
    named = set(re.findall(r"\btools/\w+\.sh\b", README))
    assert {"tools/demo.sh", "tools/test.sh"} <= named
    for name in named:
        assert os.access(ROOT / name, os.X_OK), name


def test_its_documents_are_there():
    named = re.findall(r"``([\w/]+(?:\.rst|/))``", README)
    assert len(named) > 8
    for name in named:
        places = (ROOT / name, ROOT / "doc" / "source" / name)
        assert name == ".cache/" or any(place.exists() for place in places), name


def test_table_has_every_driver():
    points = distribution("glance_store").entry_points.select(group="glance_store.drivers")
    assert set(table()) == {point.name for point in points if "." not in point.name}


@pytest.mark.parametrize("name", ["file", "rbd", "s3", "swift", "cinder", "vmware", "http"])
def test_table_says_what_a_driver_can_do(name):
    (point,) = distribution("glance_store").entry_points.select(
        group="glance_store.drivers", name=name
    )
    cls = SingleTenantStore if name == "swift" else point.load()

    def has(method: str) -> bool:
        return getattr(cls, method) is not getattr(driver.Store, method)

    expected = {
        "Add/delete": cls.contains(cls._CAPABILITIES, BitMasks.WRITE_ACCESS),
        "Ranges": cls.contains(cls._CAPABILITIES, BitMasks.READ_RANDOM),
        "List/gc": has("images") and has("leftovers"),
        "Space": has("capacity"),
        "Copies": has("copy_from"),
    }
    row = table()[name]
    assert {column: row[column] for column in expected} == {
        column: "yes" if can else "no" for column, can in expected.items()
    }
