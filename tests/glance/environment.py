# SPDX-License-Identifier: Apache-2.0
"""The environment Glance is tested in: a venv with a real Glance and the library under test.

The venv is kept in a cache folder and reused; the library in it is reinstalled whenever the sources
of this repository have changed. `GLANCE_STORE_TEST_CACHE` names another cache folder, and
`GLANCE_STORE_UNDER_TEST=reference` puts the last release of the old line in the library's place, to
see what the same tests say about it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

GLANCE = "glance==33.0.0"
GLANCE_PYTHON = (3, 11)  # the oldest Python it can be installed for
REFERENCE = "glance_store==5.7.0"
WSGI_SERVER = "pyuwsgi"
# What the drivers talk to their servers with, and the fast checksums; Ceph's bindings come with the
# distribution's Ceph.
STORE_CLIENTS = (
    "awscrt",
    "boto3",
    "python-swiftclient",
    "python-keystoneclient",
    "keystonemiddleware",
    "os-brick",
    "python-cinderclient",
    "oslo.privsep",
    "oslo.rootwrap",
    "oslo.vmware",
)
LIBRARY_NAME = "glance-store"

REPOSITORY = Path(__file__).resolve().parents[2]
CONSTRAINTS = Path(__file__).with_name("constraints.txt")
# What `pip install` of the repository reads; the tests and the documentation are not part of it.
SOURCE_PATTERNS = (
    "glance_store/**/*",
    "etc/**/*",
    "*.toml",
    "*.cfg",
    "*.py",
    "*.in",
    "README*",
    "LICENSE*",
)


class EnvironmentUnavailableError(Exception):
    """Glance or something it needs could not be installed, most often for lack of a network."""


class LibraryInstallError(Exception):
    """The library of this repository could not be built or installed: a fault of the repository."""


@dataclass(frozen=True)
class GlanceEnvironment:
    """An installed Glance.

    :ivar root: folder of the venv
    :ivar site_packages: where its Python packages are
    """

    root: Path
    site_packages: Path

    def command(self, name: str) -> str:
        """Return the path of one of the environment's commands."""
        return str(self.root / "bin" / name)

    def distribution(self, name: str) -> importlib.metadata.Distribution:
        """Return the metadata of a distribution installed in the environment.

        :raises importlib.metadata.PackageNotFoundError: it is not installed there
        """
        for found in importlib.metadata.distributions(name=name, path=[str(self.site_packages)]):
            return found
        raise importlib.metadata.PackageNotFoundError(name)


@contextlib.contextmanager
def glance_environment() -> Iterator[GlanceEnvironment]:
    """Yield the environment, made or brought up to date first, and locked against changes.

    While it is in use other runs may share it, but none may reinstall the library in it.

    :raises EnvironmentUnavailableError: something could not be downloaded
    :raises LibraryInstallError: the library could not be installed
    """
    cache = Path(os.environ.get("GLANCE_STORE_TEST_CACHE") or REPOSITORY / ".cache" / "glance-env")
    cache.mkdir(parents=True, exist_ok=True)
    # One venv for each interpreter: a test matrix keeps them side by side.
    root = cache / f"{sys.implementation.cache_tag}-{sys.version_info.micro}"
    installer = _Installer(root)
    with open(cache / f"{root.name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        while not installer.is_current():
            # Dropped first: two runs that both hold the shared lock would wait for each other.
            fcntl.flock(lock, fcntl.LOCK_UN)
            fcntl.flock(lock, fcntl.LOCK_EX)
            installer.install()
            fcntl.flock(lock, fcntl.LOCK_UN)
            fcntl.flock(lock, fcntl.LOCK_SH)
        yield installer.environment()


class _Installer:
    """Makes the venv and tells whether it is current.

    :param root: folder of the venv
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._log = root.with_suffix(".log")
        self._reference = os.environ.get("GLANCE_STORE_UNDER_TEST") == "reference"

    def is_current(self) -> bool:
        return self._glance_is_current() and self._library_is_current()

    def environment(self) -> GlanceEnvironment:
        purelib = sysconfig.get_path(
            "purelib",
            "venv" if "venv" in sysconfig.get_scheme_names() else "posix_prefix",
            vars={"base": str(self._root), "platbase": str(self._root)},
        )
        return GlanceEnvironment(root=self._root, site_packages=Path(purelib))

    def install(self) -> None:
        """Install what is missing or outdated; the log of it stays beside the venv."""
        with open(self._log, "w") as log:
            if not self._glance_is_current():
                self._install_glance(log)
            if not self._library_is_current():
                self._install_library(log)

    # The stamps hold a digest of what was installed and are written last, so that an
    # installation that was interrupted does not count.

    def _glance_is_current(self) -> bool:
        return _read(self._root / "glance.stamp") == self._glance_digest()

    def _library_is_current(self) -> bool:
        wanted = REFERENCE if self._reference else _digest_of_sources(REPOSITORY)
        return _read(self._root / "library.stamp") == wanted

    @staticmethod
    def _glance_digest() -> str:
        build = _build_requirements()
        parts = (GLANCE, WSGI_SERVER, *STORE_CLIENTS, *build, sys.version, CONSTRAINTS.read_text())
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def _install_glance(self, log: TextIO) -> None:
        self._run([sys.executable, "-m", "venv", "--clear", str(self._root)], log)
        # Without its dependencies first: only then is its list of them known, and the library
        # must not come from the package index.
        self._pip(["--no-deps", GLANCE], log)
        needed = [r for r in self._requirements("glance") if _name(r) != LIBRARY_NAME]
        self._pip([*needed, WSGI_SERVER, *STORE_CLIENTS], log)
        # The setuptools that some interpreters put into a venv cannot build a wheel by itself.
        self._pip(["--upgrade", *_build_requirements()], log)
        (self._root / "glance.stamp").write_text(self._glance_digest())

    def _install_library(self, log: TextIO) -> None:
        (self._root / "library.stamp").unlink(missing_ok=True)
        if self._reference:
            self._pip(["--no-deps", "--force-reinstall", REFERENCE], log)
            stamp = REFERENCE
        else:
            stamp = self._install_repository(log)
        self._pip(self._requirements("glance_store"), log)
        (self._root / "library.stamp").write_text(stamp)

    def _install_repository(self, log: TextIO) -> str:
        """Install from a copy, so that the build leaves nothing in the repository."""
        with tempfile.TemporaryDirectory(prefix="glance-store-source-") as folder:
            copy = Path(folder)
            for name in _sources(REPOSITORY):
                (copy / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(REPOSITORY / name, copy / name)
            digest = _digest_of_sources(copy)
            try:
                # The build requirements are in the venv already: no network for a changed line.
                self._pip(["--no-deps", "--force-reinstall", "--no-build-isolation", folder], log)
            except EnvironmentUnavailableError as error:
                raise LibraryInstallError(str(error)) from error
        return digest

    def _requirements(self, name: str) -> list[str]:
        return self.environment().distribution(name).requires or []

    def _pip(self, arguments: Iterable[str], log: TextIO) -> None:
        python = str(self._root / "bin" / "python")
        pip = [
            python,
            "-m",
            "pip",
            "install",
            "--disable-pip-version-check",
            "-c",
            str(CONSTRAINTS),
        ]
        self._run([*pip, *arguments], log)

    def _run(self, command: list[str], log: TextIO) -> None:
        log.write(f"$ {' '.join(command)}\n")
        log.flush()
        # PYTHONPATH would let packages of the caller's environment hide the venv's own.
        clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
        done = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, env=clean, check=False)
        if done.returncode:
            lines = self._log.read_text(errors="replace").splitlines()[-15:]
            raise EnvironmentUnavailableError(
                f"{command[0]} exited with {done.returncode}, see {self._log}:\n" + "\n".join(lines)
            )


def main() -> None:
    """Make the environment, which the first test does otherwise."""
    if sys.version_info >= GLANCE_PYTHON:
        with contextlib.suppress(EnvironmentUnavailableError), glance_environment():
            pass


def _read(path: Path) -> str | None:
    try:
        return path.read_text()
    except FileNotFoundError:
        return None


def _name(requirement: str) -> str:
    """Return the normalized name of the distribution that a requirement asks for."""
    name = re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0]
    return re.sub(r"[-_.]+", "-", name).lower()


def _build_requirements() -> list[str]:
    import tomllib  # not in the oldest Python of the library, where Glance cannot be installed

    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    requires: list[str] = project["build-system"]["requires"]
    return requires


def _sources(folder: Path) -> list[str]:
    """Return the relative paths of the files that make up the library, sorted."""
    found = {
        str(path.relative_to(folder))
        for pattern in SOURCE_PATTERNS
        for path in folder.glob(pattern)
        if path.is_file() and "__pycache__" not in path.parts
    }
    return sorted(found)


def _digest_of_sources(folder: Path) -> str:
    digest = hashlib.sha256()
    for name in _sources(folder):
        content = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        digest.update(f"{name} {content}\n".encode())
    return digest.hexdigest()


if __name__ == "__main__":
    main()
