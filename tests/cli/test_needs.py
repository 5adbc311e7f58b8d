# SPDX-License-Identifier: Apache-2.0
"""A command loads the stores that it needs, and neither waits for nor speaks of the others."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import stevedore.extension
from oslo_config import cfg

from glance_store import loading
from glance_store.cli import config as config_module
from glance_store.cli.main import main

from .command import Command, one_line_error

# The command, and on the standard error what it has imported.
PROBE = """\
import json, sys
from glance_store.cli.main import main
code = main(sys.argv[1:])
print(json.dumps(sorted(sys.modules)), file=sys.stderr)
sys.exit(code)
"""

# Each with a mistake of its own: whoever loads one of them fails, or warns.
OTHERS = {
    "web": "http",
    "bucket": "s3",
    "objects": "swift",
    "ceph": "rbd",
    "volumes": "cinder",
    "datastores": "vmware",
    "typo": "fiel",
}


@pytest.fixture
def configured(tmp_path):
    """Return a function that writes a configuration of these stores and returns its path."""

    def write(drivers):
        path = tmp_path / f"{len(drivers)}.conf"
        backends = ", ".join(f"{name}:{driver}" for name, driver in drivers.items())
        path.write_text(
            f"[DEFAULT]\nenabled_backends = {backends}\n"
            "[glance_store]\ndefault_backend = disk\n"
            f"[disk]\nfilesystem_store_datadir = {tmp_path}/disk\n"
            "[web]\nhttps_insecure = maybe\n"
            "[datastores]\nweight = high\n"
        )
        return path

    return write


@pytest.fixture
def configured_without_identifiers(tmp_path):
    """Return the like for single-store mode."""

    def write(drivers):
        path = tmp_path / f"{len(drivers)}.conf"
        path.write_text(
            f"[glance_store]\nstores = {', '.join(drivers.values())}\n"
            f"filesystem_store_datadir = {tmp_path}/disk\nhttps_insecure = maybe\n"
        )
        return path

    return write


def imported(config, *words):
    """Run a command that must succeed and say nothing but its result; return what it imports."""
    words = [sys.executable, "-c", PROBE, f"--config-file={config}", *map(str, words)]
    result = subprocess.run(words, check=False, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    (modules,) = result.stderr.splitlines()
    return json.loads(modules)


@pytest.mark.parametrize("mode", ["configured", "configured_without_identifiers"])
def test_other_stores_take_no_time_and_no_words(request, mode, small, tmp_path):
    configure = request.getfixturevalue(mode)
    one, many = configure({"disk": "file"}), configure({**OTHERS, "disk": "file"})
    location = f"file://{tmp_path}/disk/image"
    for words in (
        ["put", small, "--id", "image"],
        ["stat", location],
        ["rm", location, "--yes"],
    ):
        modules = imported(many, *words)
        assert not any("_drivers.swift" in name for name in modules)
        if words[0] == "put":
            # Once more for the other configuration.
            os.unlink(tmp_path / "disk" / "image")
        elif words[0] == "rm":
            (tmp_path / "disk" / "image").touch()
        assert modules == imported(one, *words)


def test_the_store_that_is_named_is_the_only_one(configured, small, tmp_path):
    many = configured({"twin": "file", **OTHERS, "disk": "file", "last": "file"})
    with many.open("a") as file:
        file.write(f"[twin]\nfilesystem_store_datadir = {tmp_path}/twin\n")
        file.write(f"[last]\nfilesystem_store_datadir = {tmp_path}/last\n")
    command = Command(many)
    put = command("put", small, "--store", "twin", "--json")
    assert put.err == ""
    assert command("stat", put.json["location"], "--store", "twin").err == ""
    assert not (tmp_path / "disk").exists()
    assert not (tmp_path / "last").exists()


def test_a_store_on_the_place_of_another_stays_read_only(configured, small, tmp_path):
    many = configured({"disk": "file", **OTHERS, "twin": "file"})
    with many.open("a") as file:
        file.write(f"[twin]\nfilesystem_store_datadir = {tmp_path}/disk\n")
    command = Command(many)
    assert command("put", small, "--store", "disk", "--id", "image").err == ""
    location = f"file://{tmp_path}/disk/image"
    for words in (["put", small, "--store", "twin"], ["rm", location, "--yes", "--store", "twin"]):
        result = command(*words)
        assert result.code == 1
        assert "belongs to the store disk" in result.err.splitlines()[-1]
        assert not any(name in result.err for name in OTHERS)
    # Who reads is not told that the twin takes no images, unless the search fails.
    assert command("stat", location).err == ""
    missing = command("stat", location + "2")
    assert missing.code == 3
    warning, error = missing.err.splitlines()
    assert warning.startswith("glance-store: warning: Store twin: ")
    assert error.startswith("glance-store: error: ")


def test_a_driver_that_cannot_be_loaded_is_named_when_it_may_be_the_one(configured):
    command = Command(configured({"disk": "file", **OTHERS}))
    result = command("stat", "gopher://image")
    assert result.code == 2
    warning, error = result.err.splitlines()
    assert "Store typo is skipped" in warning
    assert "driver fiel cannot be loaded" in warning
    assert error == "glance-store: error: No loaded store serves 'gopher'"
    known = Command(configured({"disk": "file"}))("stat", "gopher://image")
    assert known.code == 2
    one_line_error(known)


def test_reserved_stores_are_searched(configured, small, tmp_path):
    config = configured({"disk": "file", **OTHERS})
    with config.open("a") as file:
        file.write(f"[os_glance_staging_store]\nfilesystem_store_datadir = {tmp_path}/staging\n")
    command = Command(config)
    put = command("put", small, "--store", "os_glance_staging_store", "--json")
    assert put.code == 0, put.err
    found = command("stat", put.json["location"], "--json").json
    assert (found["store"], found["driver"]) == ("os_glance_staging_store", "file")


def test_the_schemes_of_the_drivers_are_known(conf):
    names = stevedore.extension.ExtensionManager(loading.NAMESPACE).entry_points_names()
    assert len(names) == 14
    for name in names:
        store = loading.load_store(conf, name, backend="any")
        assert config_module._schemes_of(cfg.ConfigOpts(), "any", name) == set(store.get_schemes())


@pytest.mark.parametrize("driver", ["memory", "memory.by.function"])
@pytest.mark.parametrize("multi", [True, False])
def test_drivers_from_outside_are_asked(outside, tmp_path, small, capfd, driver, multi):
    config = tmp_path / "outside.conf"
    others = "disk:file, wrong:faulty.library, crash:faulty.crash, typo:fiel"
    config.write_text(
        f"[DEFAULT]\nenabled_backends = {others}, box:{driver}\n"
        f"[disk]\nfilesystem_store_datadir = {tmp_path}/disk\n"
        if multi
        else f"[glance_store]\nstores = file, faulty.library, faulty.crash, fiel, {driver}\n"
        f"filesystem_store_datadir = {tmp_path}/disk\n"
    )
    base = [f"--config-file={config}"]
    name = "box" if multi else driver
    assert main([*base, "put", str(small), "--store", name, "--json"]) == 0
    location = json.loads(capfd.readouterr().out)["location"]
    assert main([*base, "stat", location.replace("memory:", "MEMORY:"), "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["store"] == name
    assert main([*base, "get", location, "-o", str(tmp_path / "back")]) == 0
    assert (tmp_path / "back").read_bytes() == small.read_bytes()
    assert main([*base, "rm", location, "--yes"]) == 0
    assert main([*base, "stat", location]) == 3
    # The list alone has reason to speak of the others.
    assert "cannot be loaded" not in capfd.readouterr().err
    assert not (tmp_path / "disk").exists()
