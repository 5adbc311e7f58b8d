# SPDX-License-Identifier: Apache-2.0
"""The two virtual environments: one holds the reference release, one this repository.

There is a pair for each driver that needs client libraries, and one for the others. Both are made
on first use, by the interpreter that runs the benchmark. The second takes the same versions of all
dependencies as the first, and is installed from a copy of the tree (not editable), again whenever
the tree has changed.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

REFERENCE = "glance_store==5.7.0"
REPOSITORY = Path(__file__).resolve().parent.parent
CACHE = REPOSITORY / ".cache"
# What an installation of this repository is built from.
BUILT_FROM = ("glance_store", "etc", "pyproject.toml", "setup.cfg", "README.rst", "LICENSE")

_PROBE = """
import importlib.metadata, importlib.util, json, sys
spec = importlib.util.find_spec("glance_store")
print(json.dumps({
    "python": sys.version, "prefix": sys.prefix,
    "version": spec and importlib.metadata.version("glance_store"), "origin": spec and spec.origin,
}))
"""

_VERSIONS = """
import importlib.metadata, json, sys
found = {each.metadata["Name"].lower(): each.version for each in importlib.metadata.distributions()}
print(json.dumps({name: found.get(name.lower()) for name in sys.argv[1:]}))
"""


class EnvironmentUnusableError(Exception):
    """An environment cannot be used; the text says why and what to do."""


@dataclasses.dataclass(frozen=True)
class Environment:
    """An interpreter, the version of glance_store that it imports, whether that is the one of this
    repository, and the versions of client libraries by name.
    """

    python: str
    version: str
    ours: bool
    clients: dict[str, str] = dataclasses.field(default_factory=dict)


def reference(driver: str, clients: Sequence[str] = ()) -> Environment:
    """Return the environment with the reference release and ``clients``, made when it is missing.

    The folder is ``.cache/bench-reference``, or $GLANCE_STORE_BENCH_REFERENCE; for a driver with
    clients ``-`` and its name follow, since a library that finds clients may import them and then
    takes more memory.
    """
    folder = _folder("GLANCE_STORE_BENCH_REFERENCE", "bench-reference", driver if clients else "")
    _make(folder)
    missing = None in _versions(folder, clients).values()
    if missing or _probe(folder)["version"] != REFERENCE.partition("==")[2]:
        _pip(folder, "install", REFERENCE, *clients)
    return _checked(folder, clients, ours=False)


def current(driver: str, like: Environment) -> Environment:
    """Return the environment with this repository, all else the same as in ``like``.

    The folder is ``.cache/bench-current``, or $GLANCE_STORE_BENCH_CURRENT; see `reference`.
    """
    suffix = driver if like.clients else ""
    folder = _folder("GLANCE_STORE_BENCH_CURRENT", "bench-current", suffix)
    _make(folder)
    tree = tree_digest()
    mark = folder / "bench-tree"
    if not mark.exists() or mark.read_text() != tree or not _probe(folder)["version"]:
        _install_tree(folder, like)
        mark.write_text(tree)
    if _versions(folder, list(like.clients)) != like.clients:
        _pip(folder, "install", *(f"{name}=={it}" for name, it in like.clients.items()))
    return _checked(folder, list(like.clients), ours=True)


def tree_digest() -> str:
    """Return a digest of everything in the tree that gets installed."""
    digest = hashlib.sha256()
    for name in BUILT_FROM:
        top = REPOSITORY / name
        for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
            if path.is_file() and path.suffix != ".pyc":
                digest.update(f"{path.relative_to(REPOSITORY)}\0".encode())
                digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _folder(variable: str, name: str, suffix: str) -> Path:
    folder = Path(os.environ.get(variable) or CACHE / name).resolve()
    return folder.with_name(f"{folder.name}-{suffix}") if suffix else folder


def _make(folder: Path) -> None:
    if not (folder / "bin" / "python").exists():
        if folder.exists() and any(folder.iterdir()):
            raise EnvironmentUnusableError(
                f"{folder} is not empty and no virtual environment: remove it or name another"
            )
        print(f"making {folder}", file=sys.stderr)
        _call([sys.executable, "-m", "venv", str(folder)])


def _install_tree(folder: Path, like: Environment) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        # A copy, because a build in the tree leaves files there, and takes up stale ones.
        copy = Path(scratch, "tree")
        copy.mkdir()
        for name in BUILT_FROM:
            source = REPOSITORY / name
            if source.is_dir():
                shutil.copytree(
                    source, copy / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
                )
            elif source.exists():
                shutil.copy2(source, copy / name)
        constraints = Path(scratch, "constraints.txt")
        frozen = _call(
            [like.python, "-m", "pip", "freeze", "--exclude", "glance_store", "--exclude", "pip"]
        )
        constraints.write_text(frozen)
        _pip(folder, "uninstall", "--yes", "glance_store")
        _pip(folder, "install", "--constraint", str(constraints), str(copy))


def _pip(folder: Path, *arguments: str) -> None:
    print(f"pip {' '.join(arguments)} in {folder}", file=sys.stderr)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--quiet"]
    _call([*pip, *arguments])


def _probe(folder: Path) -> dict[str, str]:
    found: dict[str, str] = json.loads(
        _call([str(folder / "bin" / "python"), "-I", "-c", _PROBE]).splitlines()[-1]
    )
    return found


def _versions(folder: Path, distributions: Sequence[str]) -> dict[str, str | None]:
    """Return the versions of distributions in an environment, None for those that are missing."""
    if not distributions:
        return {}
    command = [str(folder / "bin" / "python"), "-I", "-c", _VERSIONS, *distributions]
    found: dict[str, str | None] = json.loads(_call(command))
    return found


def _checked(folder: Path, clients: Sequence[str], *, ours: bool) -> Environment:
    found = _probe(folder)
    if found["python"] != sys.version:
        raise EnvironmentUnusableError(
            f"{folder} has Python {found['python']}, the benchmark runs on {sys.version}: "
            "remove the folder and start again"
        )
    if not found["origin"] or not found["origin"].startswith(found["prefix"] + os.sep):
        raise EnvironmentUnusableError(
            f"{folder} imports glance_store from {found['origin']}: remove the folder, start again"
        )
    versions = {name: it for name, it in _versions(folder, clients).items() if it is not None}
    return Environment(str(folder / "bin" / "python"), found["version"], ours, versions)


def _call(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise EnvironmentUnusableError(f"{' '.join(command)} failed:\n{done.stderr.strip()}")
    return done.stdout
