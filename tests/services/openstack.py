# SPDX-License-Identifier: Apache-2.0
"""What services of OpenStack have in common: pinned releases, and state to start from."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.services.base import CACHE, Unavailable
from tests.services.environments import environment, locked

CONSTRAINTS = Path(__file__).parent / "constraints"
# What the pinned versions ask for.
PYTHON = (3, 11)


def release(name: str, requirements: Sequence[str]) -> Path:
    """Return the virtual environment of a service, made on first use.

    :param name: of the service, and of its file of pinned versions
    :param requirements: what to install
    :raises Unavailable: it cannot be installed
    """
    if sys.version_info < PYTHON:
        raise Unavailable(f"{name}: its release needs Python {'.'.join(map(str, PYTHON))} or newer")
    return environment(name, requirements, CONSTRAINTS / f"{name}.txt")


def seed(name: str, recipe: str, make: Callable[[Path], None]) -> Path:
    """Return a folder of the cache to copy from, made on first use: migrations take ten seconds.

    :param name: of the service
    :param recipe: all that the content depends on
    :param make: puts the content into a folder
    """
    tag = hashlib.sha256(recipe.encode()).hexdigest()[:12]
    place = CACHE / f"{name}-state-{tag}"
    with locked(f"{name}-state"):
        if place.exists():
            return place
        with tempfile.TemporaryDirectory(prefix=f"{name}-state-", dir=CACHE) as folder:
            inner = Path(folder) / "state"
            inner.mkdir()
            make(inner)
            inner.rename(place)
    return place


def manage(program: Path, conf: Path, *arguments: str) -> None:
    """Run a program that prepares a service.

    :raises RuntimeError: it fails
    """
    done = subprocess.run(
        [program, "--config-file", conf, *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{program.name} {arguments[0]} failed: {done.stderr[-2000:]}")
