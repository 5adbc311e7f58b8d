# SPDX-License-Identifier: Apache-2.0
"""The two virtual environments: one holds the reference release, one this repository.

Both are made on first use, by the interpreter that runs the benchmark. The second takes the same
versions of all dependencies as the first, and is installed from a copy of the tree (not editable),
again whenever the tree has changed.
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


class EnvironmentUnusableError(Exception):
    """An environment cannot be used; the text says why and what to do."""


@dataclasses.dataclass(frozen=True)
class Environment:
    """An interpreter and the version of glance_store that it imports."""

    python: str
    version: str


def reference() -> Environment:
    """Return the environment with the reference release, made when it is missing.

    The folder is ``.cache/bench-reference``, or $GLANCE_STORE_BENCH_REFERENCE.
    """
    folder = _folder("GLANCE_STORE_BENCH_REFERENCE", "bench-reference")
    _make(folder)
    if _probe(folder)["version"] != REFERENCE.partition("==")[2]:
        _pip(folder, "install", REFERENCE)
    return _checked(folder)


def current(like: Environment) -> Environment:
    """Return the environment with this repository, dependencies the same as in ``like``.

    The folder is ``.cache/bench-current``, or $GLANCE_STORE_BENCH_CURRENT.
    """
    folder = _folder("GLANCE_STORE_BENCH_CURRENT", "bench-current")
    _make(folder)
    tree = tree_digest()
    mark = folder / "bench-tree"
    if not mark.exists() or mark.read_text() != tree or not _probe(folder)["version"]:
        _install_tree(folder, like)
        mark.write_text(tree)
    return _checked(folder)


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


def _folder(variable: str, name: str) -> Path:
    return Path(os.environ.get(variable) or CACHE / name).resolve()


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


def _checked(folder: Path) -> Environment:
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
    return Environment(str(folder / "bin" / "python"), found["version"])


def _call(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise EnvironmentUnusableError(f"{' '.join(command)} failed:\n{done.stderr.strip()}")
    return done.stdout
