# SPDX-License-Identifier: Apache-2.0
"""Fixtures: real stores in a temporary directory, and the command on top of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from glance_store.cli.main import main

from .command import MIB, Command, image

MULTI = """\
[DEFAULT]
enabled_backends = fast:file, cheap:file

[glance_store]
default_backend = fast

[fast]
filesystem_store_datadir = {root}/fast
filesystem_thin_provisioning = true
weight = 10

[cheap]
filesystem_store_datadir = {root}/cheap
"""

SINGLE = """\
[glance_store]
stores = file
filesystem_store_datadir = {root}/single
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Configuration of two stores."""
    path = tmp_path / "glance-api.conf"
    path.write_text(MULTI.format(root=tmp_path))
    return path


@pytest.fixture
def command(config: Path) -> Command:
    """The command on two stores."""
    return Command(config)


@pytest.fixture
def single(tmp_path: Path) -> Command:
    """The command on a configuration without identifiers."""
    path = tmp_path / "single.conf"
    path.write_text(SINGLE.format(root=tmp_path))
    return Command(path)


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A raw disk image that is large enough for a progress bar."""
    return image(tmp_path / "disk.raw", 20 * MIB)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """An image that is over before a bar could be read."""
    return image(tmp_path / "small.raw", 10_000)


@pytest.fixture
def run(config, capfd):
    """Run the command in this process; return its exit code and its lines."""

    def run(*words):
        code = main([f"--config-file={config}", *map(str, words), "--json"])
        out = capfd.readouterr().out
        return code, [json.loads(line) for line in out.splitlines() if line.startswith("{")]

    return run
