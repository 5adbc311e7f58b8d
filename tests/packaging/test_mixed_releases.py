# SPDX-License-Identifier: Apache-2.0
"""Both releases on one data directory, as during a rolling upgrade and after going back.

The release before is installed by pip into a folder of its own and run, unread.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest

from tests.facade.test_reference_drivers import REFERENCE, reference
from tests.packaging.one_release import content

__all__ = ["reference"]

# The other release has to be installed.
pytestmark = pytest.mark.services

ROOT = Path(__file__).parents[2]
PROGRAM = Path(__file__).with_name("one_release.py")
SIZE = (1 << 20) + 7


@dataclasses.dataclass
class Release:
    """A release as a process: it carries out operations on a file store, one after the other."""

    site: Path
    datadir: Path
    thin: bool

    def start(self, *operations: list[Any]) -> subprocess.Popen:
        request = {"datadir": str(self.datadir), "thin": self.thin, "operations": operations}
        return subprocess.Popen(
            [sys.executable, PROGRAM, json.dumps(request)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(self.site)},
        )

    def finish(self, process: subprocess.Popen) -> list[Any]:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        answer = json.loads(out.splitlines()[-1])
        assert Path(answer["file"]).is_relative_to(self.site)
        return answer["outcomes"]

    def __call__(self, *operations: list[Any]) -> list[Any]:
        return self.finish(self.start(*operations))


@pytest.fixture(params=["plain", "thin"])
def releases(request, reference, tmp_path) -> dict[str, Release]:
    thin = request.param == "thin"
    sites = {"old": reference, "new": ROOT}
    return {name: Release(site, tmp_path / "images", thin) for name, site in sites.items()}


PAIRS = pytest.mark.parametrize(("writer", "reader"), [("old", "new"), ("new", "old")])


def digest(seed: int) -> str:
    return hashlib.sha256(content(seed, SIZE)).hexdigest()


@PAIRS
def test_image_is_read_and_deleted_by_the_other_release(releases, writer, reader):
    image = str(uuid.uuid4())
    ((uri, size),) = releases[writer](["add", image, 1, SIZE])
    assert size == SIZE
    assert releases[reader](["get", uri], ["size", uri], ["add", image, 2, SIZE]) == [
        digest(1),
        SIZE,
        "Duplicate",
    ]
    assert releases[reader](["delete", uri], ["get", uri]) == [None, "NotFound"]
    assert releases[writer](["get", uri], ["size", uri], ["delete", uri]) == ["NotFound"] * 3
    assert list((releases[writer].datadir).iterdir()) == []


def test_both_releases_work_at_the_same_time(releases):
    """Each adds its images, and reads and deletes those of the other."""
    images = {name: [str(uuid.uuid4()) for _ in range(20)] for name in releases}
    folder = releases["new"].datadir

    def at_once(work: dict[str, list[list[Any]]]) -> dict[str, list[Any]]:
        running = {name: releases[name].start(*operations) for name, operations in work.items()}
        return {name: releases[name].finish(process) for name, process in running.items()}

    added = at_once({n: [["add", i, k, SIZE] for k, i in enumerate(images[n])] for n in releases})
    uris = {name: [uri for uri, _size in outcomes] for name, outcomes in added.items()}
    assert sorted(p.name for p in folder.iterdir()) == sorted(images["old"] + images["new"])
    others = {"old": "new", "new": "old"}
    read = at_once({n: [["get", uri] for uri in uris[others[n]]] for n in releases})
    assert read == {name: [digest(k) for k in range(20)] for name in releases}
    gone = at_once({n: [["delete", uri] for uri in uris[others[n]]] for n in releases})
    assert gone == {name: [None] * 20 for name in releases}
    assert list(folder.iterdir()) == []


def test_it_is_the_release_before(reference):
    version = REFERENCE.partition("==")[2]
    assert (reference / f"glance_store-{version}.dist-info").is_dir()
    assert version.startswith("5.")
