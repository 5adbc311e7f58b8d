# SPDX-License-Identifier: Apache-2.0
"""Programs of servers: virtual environments kept in the cache, and packages of the distribution."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.services.base import CACHE, Unavailable


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold other runs off while something in the cache is made."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f".{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def environment(name: str, requirements: Sequence[str], constraints: Path | None = None) -> Path:
    """Return a virtual environment with some distributions, made on first use.

    :param name: of the environment, such as ``swift``
    :param requirements: arguments of ``pip install``
    :param constraints: file of pinned versions
    :raises Unavailable: they cannot be installed
    """
    stamp_text = "\n".join([sys.version, *requirements])
    if constraints is not None:
        stamp_text += constraints.read_text()
    tag = hashlib.sha256(stamp_text.encode()).hexdigest()[:12]
    place = CACHE / f"{name}-{tag}"
    with locked(name):
        if (place / "complete").exists():
            return place
        shutil.rmtree(place, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", place], check=True)
        command: list[str | Path] = [
            place / "bin" / "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
        ]
        if constraints is not None:
            command += ["--constraint", constraints]
        done = subprocess.run(
            [*command, *requirements], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise Unavailable(f"{name} cannot be installed: {done.stderr.strip()[-500:]}")
        (place / "complete").touch()
    return place


def debian_packages(*packages: str, probe: Sequence[str] = ()) -> None:
    """Install packages of the distribution, unless the programs they bring are there.

    :param packages: names of Debian packages
    :param probe: programs, or paths, that must exist afterwards
    :raises Unavailable: they are missing, and this user cannot install them
    """

    def missing() -> list[str]:
        return [name for name in probe if not (shutil.which(name) or os.path.exists(name))]

    if probe and not missing():
        return
    if os.geteuid() or shutil.which("apt-get") is None:
        raise Unavailable(
            f"{', '.join(missing() or packages)} is missing: apt-get install {' '.join(packages)}"
        )
    with locked("apt"):
        if probe and not missing():
            return
        apt = ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=600"]
        quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run([*apt, "update"], capture_output=True, env=quiet, check=False)
        done = subprocess.run(
            [*apt, "install", "--yes", "--no-install-recommends", *packages],
            capture_output=True,
            text=True,
            env=quiet,
            check=False,
        )
        if done.returncode or missing():
            raise Unavailable(
                f"apt-get install {' '.join(packages)} failed: {done.stderr.strip()[-500:]}"
            )
