# SPDX-License-Identifier: Apache-2.0
"""The sdist and the wheel: built from the tree, and installed into empty environments."""

from __future__ import annotations

import email
import json
import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.services.fixtures import unavailable

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# Tools and libraries come from the package index.
pytestmark = [pytest.mark.services, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
FACTS = json.loads((ROOT / "tests" / "data" / "api.json").read_text())
DATA = {path.removeprefix("etc/") for path in FACTS["data_files"]}
# What belongs to the repository alone.
LEFT_OUT = {".ci/run", ".gitignore"}
_ASK = """
import importlib.metadata, importlib.util, json, glance_store
points = importlib.metadata.distribution("glance_store").entry_points
print(json.dumps({
    "file": glance_store.__file__,
    "loaded": {p.name: p.load().__module__ for p in points if p.group == "glance_store.drivers"},
    "groups": sorted({p.group for p in points}),
    "kit": importlib.util.find_spec("glance_store.testing") is not None,
}))
"""


class Built(NamedTuple):
    """What was built, and the programs that check it."""

    tools: Path
    sdist: Path
    wheel: Path


def run(*command: object, **options: object) -> str:
    clean = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [*map(str, command)], capture_output=True, text=True, env=clean, check=False, **options
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return done.stdout


def tracked() -> list[str]:
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("no checkout: only git knows which files belong to the project")
    names = run("git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    return [name for name in names.split("\0") if name and (ROOT / name).exists()]


def environment(folder: Path) -> Path:
    """Make an environment and return its interpreter."""
    venv.create(folder, with_pip=True)
    return folder / "bin" / "python"


def install(python: Path, *what: object) -> None:
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run([*pip, *what], capture_output=True, text=True, check=False)
    if done.returncode:
        unavailable(f"pip install {' '.join(map(str, what))}: {done.stderr.strip()[-500:]}")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = tmp_path_factory.mktemp("dist")
    for name in tracked():
        (folder / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / "tree" / name)
    python = environment(folder / "tools")
    (backend,) = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    install(python, "build", "twine", backend)
    # The wheel is built from the sdist.
    options = ["--no-isolation", "--outdir", folder / "out"]
    run(python, "-m", "build", *options, folder / "tree")
    (sdist,) = (folder / "out").glob("*.tar.gz")
    (wheel,) = (folder / "out").glob("*.whl")
    return Built(python, sdist, wheel)


def sdist_members(built: Built) -> set[str]:
    with tarfile.open(built.sdist) as archive:
        files = [member.name for member in archive if member.isfile()]
    return {name.partition("/")[2] for name in files}


def wheel_members(built: Built) -> set[str]:
    with zipfile.ZipFile(built.wheel) as archive:
        return set(archive.namelist())


def test_names(built):
    assert built.sdist.name.startswith("glance_store-6.")
    assert built.wheel.name.endswith("-py3-none-any.whl")


def test_the_index_would_take_them(built):
    said = run(built.tools, "-m", "twine", "check", "--strict", built.sdist, built.wheel)
    assert said.count("PASSED") == 2, said


def test_sdist_has_the_whole_project(built):
    made = {name for name in sdist_members(built) if ".egg-info/" in name} | {"PKG-INFO"}
    assert sdist_members(built) - made == set(tracked()) - LEFT_OUT


def test_wheel_has_the_package_and_its_data_alone(built):
    package = {name for name in tracked() if name.startswith("glance_store/")}
    assert "glance_store/py.typed" in package
    assert any(name.startswith("glance_store/testing/") for name in package)
    others = wheel_members(built) - package
    assert wheel_members(built) >= package
    data = {name.partition(".data/data/etc/")[2] for name in others if ".data/" in name}
    assert data == DATA
    assert all(".dist-info/" in name or ".data/" in name for name in others)


def test_metadata(built):
    with zipfile.ZipFile(built.wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("dist-info/METADATA"))
        metadata = email.message_from_bytes(archive.read(name))
    assert metadata["Name"].replace("-", "_") == "glance_store"
    assert metadata["Description-Content-Type"].startswith("text/x-rst")
    assert metadata.get_payload().strip().startswith("=")
    assert set(FACTS["extras"]) <= set(metadata.get_all("Provides-Extra"))


@pytest.mark.parametrize("kind", ["sdist", "wheel"])
def test_it_works_in_an_empty_environment(built, kind, tmp_path):
    python = environment(tmp_path / "venv")
    install(python, getattr(built, kind))
    answer = json.loads(run(python, "-c", _ASK, cwd=tmp_path))
    assert Path(answer["file"]).is_relative_to(tmp_path)
    assert answer["kit"]
    assert answer["loaded"].keys() == set(FACTS["entry_points"]["glance_store.drivers"])
    assert set(FACTS["entry_points"]) <= {*answer["groups"], "console_scripts"}
    for name in DATA:
        assert (tmp_path / "venv" / "etc" / name).read_text() == (ROOT / "etc" / name).read_text()
    programs = tmp_path / "venv" / "bin"
    assert run(programs / "glance-store", "--version").split()[-1].startswith("6.")
    assert (programs / "glance-rootwrap").exists()
    options = run(programs / "oslo-config-generator", "--namespace", "glance.multi_store")
    for name in ("filesystem_store_datadir", "rbd_store_pool", "s3_store_host"):
        assert f"#{name} = " in options, name


def test_man_page_is_built_from_the_sdist(built, tmp_path):
    pytest.importorskip("sphinx")
    with tarfile.open(built.sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (tree,) = tmp_path.iterdir()
    source, target = tree / "doc" / "source", tmp_path / "man"
    run(sys.executable, "-m", "sphinx", "-q", "-W", "-b", "man", source, target, cwd=tree)
    assert (target / "glance-store.1").read_text().count(".SH ") > 3
