# SPDX-License-Identifier: Apache-2.0
"""`glance-store stores` shows what an operator has to know about each store."""

from __future__ import annotations

import os

import pytest

from glance_store.cli import commands, stores

from .command import Command, one_line_error


def listed(result):
    return {store["id"]: store for store in result.json}


def test_table_has_a_line_for_each_store(command, tmp_path):
    result = command("stores")
    assert result.code == 0
    assert result.err == ""
    header, fast, cheap = [line for line in result.out.splitlines() if line.startswith("|")]
    assert [cell.strip() for cell in header.split("|")[1:-1]] == [
        "id",
        "driver",
        "capabilities",
        "default",
        "weight",
        "health",
    ]
    assert [cell.strip() for cell in fast.split("|")[1:6]] == [
        "fast",
        "file",
        "read, write, ranges",
        "yes",
        "10",
    ]
    assert f"GiB free in {tmp_path}/fast" in fast
    assert [cell.strip() for cell in cheap.split("|")[1:6]] == [
        "cheap",
        "file",
        "read, write, ranges",
        "",
        "0",
    ]


def test_json_has_all_facts(command, tmp_path):
    result = command("stores", "--json")
    assert result.code == 0
    fast = listed(result)["fast"]
    health = fast.pop("health")
    assert health.startswith("ok")
    assert 0 <= fast.pop("latency") < 60
    room = os.statvfs(tmp_path)
    assert fast.pop("total") == room.f_blocks * room.f_frsize
    assert 0 <= fast.pop("free") <= room.f_blocks * room.f_frsize
    assert fast.pop("used") > 0
    assert fast == {
        "id": "fast",
        "driver": "file",
        "schemes": ["file", "filesystem"],
        "capabilities": ["read", "write", "ranges"],
        "default": True,
        "weight": 10,
        "healthy": True,
        "shared": None,
    }


def test_single_mode_lists_drivers(single):
    result = single("stores", "--json", "--check")
    assert result.code == 0
    assert list(listed(result)) == ["file"]
    assert listed(result)["file"]["default"] is True


@pytest.fixture
def sick(tmp_path):
    """Two stores on one directory, a driver that does not exist, and no default store."""
    config = tmp_path / "sick.conf"
    config.write_text(
        "[DEFAULT]\nenabled_backends = one:file, two:file, none:nodriver\n"
        f"[one]\nfilesystem_store_datadir = {tmp_path}/same\n"
        f"[two]\nfilesystem_store_datadir = {tmp_path}/same\n"
    )
    return Command(config)


def test_what_is_wrong_is_said(sick):
    result = sick("stores", "--json")
    assert result.code == 0
    stores = listed(result)
    assert stores["one"]["healthy"] is True
    assert stores["two"]["healthy"] is False
    assert stores["two"]["capabilities"] == ["read", "ranges"]
    assert stores["two"]["health"].startswith("read-only: ")
    assert "belongs to the store one" in stores["two"]["health"]
    assert stores["none"]["healthy"] is False
    assert stores["none"]["driver"] == "nodriver"
    assert stores["none"]["capabilities"] == []
    assert stores["none"]["health"].startswith("not loaded: ")
    # What the list says is not said again; the missing default is no matter of one store.
    (line,) = result.err.splitlines()
    assert line.startswith("glance-store: warning: ")
    assert "default_backend" in line


def test_a_store_without_its_options(tmp_path):
    config = tmp_path / "pending.conf"
    config.write_text("[DEFAULT]\nenabled_backends = datastores:vmware\n")
    datastores = listed(Command(config)("stores", "--json"))["datastores"]
    assert datastores["capabilities"] == ["read", "ranges"]
    assert datastores["healthy"] is False
    assert datastores["health"].startswith("read-only: ")
    assert "vmware_server_host is not set" in datastores["health"]


def test_metrics(sick):
    """Of every store, also those that are not well."""
    result = sick("stores", "--prometheus")
    lines = result.out.splitlines()
    assert 'glance_store_up{store="one",driver="file"} 1' in lines
    assert 'glance_store_up{store="two",driver="file"} 0' in lines
    assert 'glance_store_up{store="none",driver="nodriver"} 0' in lines
    assert "# TYPE glance_store_free_bytes gauge" in lines
    assert any(line.startswith('glance_store_free_bytes{store="one"') for line in lines)
    assert any(line.startswith('glance_store_probe_seconds{store="one"') for line in lines)


def test_names_in_metrics():
    odd = stores.StoreInfo('a"b\\c', "file", [], [], False, 0, True, "ok")
    assert r'glance_store_up{store="a\"b\\c",driver="file"} 1' in commands.metrics([odd])


@pytest.mark.parametrize("value", ["0", "-1", "inf", "soon"])
def test_limits_that_are_refused(command, value):
    result = command("stores", f"--timeout={value}")
    assert "--timeout" in one_line_error(result)
    assert result.code == 2


def test_check_turns_it_into_an_exit_code(sick):
    assert sick("stores", "--check").code == 1


def test_a_missing_default_alone_fails_the_check(tmp_path):
    config = tmp_path / "nodefault.conf"
    config.write_text(
        "[DEFAULT]\nenabled_backends = one:file\n"
        f"[one]\nfilesystem_store_datadir = {tmp_path}/one\n"
    )
    assert Command(config)("stores").code == 0
    assert Command(config)("stores", "--check").code == 1


def test_warnings_of_the_library_are_lines_elsewhere(sick, small):
    result = sick("put", small, "--store", "two")
    assert result.code == 1
    *warnings, error = result.err.splitlines()
    assert warnings
    assert len(set(warnings)) == len(warnings)
    assert all(line.startswith("glance-store: warning: ") for line in warnings)
    assert "belongs to the store one" in error


def test_reserved_stores_only_where_they_are_configured(command, config, tmp_path):
    assert listed(command("stores", "--json")).keys() == {"fast", "cheap"}
    with config.open("a") as file:
        file.write(f"[os_glance_staging_store]\nfilesystem_store_datadir = {tmp_path}/staging\n")
    assert listed(command("stores", "--json")).keys() == {
        "fast",
        "cheap",
        "os_glance_staging_store",
    }
    assert (tmp_path / "staging").is_dir()


def test_later_files_and_directories_win(command, tmp_path):
    (tmp_path / "over.conf").write_text("[glance_store]\ndefault_backend = cheap\n")
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / "weights.conf").write_text("[cheap]\nweight = 7\n")
    # Common options stand before the command and after it.
    stores = listed(
        command(
            "stores",
            f"--config-file={tmp_path}/over.conf",
            "--json",
            "--config-dir",
            tmp_path / "conf.d",
        )
    )
    assert stores["cheap"]["default"] is True
    assert stores["cheap"]["weight"] == 7
    assert stores["fast"]["weight"] == 10


def test_a_narrow_terminal_wraps_the_last_column_only(command):
    lines = command.on_terminal("stores", columns=90).out.splitlines()
    assert any("| fast  | file   | read, write, ranges | yes" in line for line in lines)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[DEFAULT]\nenabled_backends = a\n", "NAME:VALUE pairs"),
        ("[DEFAULT]\nenabled_backends\n", "line 2"),
        ("no section\n", "line 1"),
    ],
)
def test_a_wrong_configuration_is_one_line(tmp_path, text, says):
    config = tmp_path / "wrong.conf"
    config.write_text(text)
    result = Command(config)("stores")
    assert result.code == 2
    assert says in one_line_error(result)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("weight = much", "[a] weight = much is not valid: "),
        ("filesystem_store_datadir = $x", "[a] filesystem_store_datadir = $x is not valid: "),
    ],
)
def test_a_bad_value_stops_its_store_alone(tmp_path, small, text, says):
    config = tmp_path / "wrong.conf"
    config.write_text(
        "[DEFAULT]\nenabled_backends = a:file, b:file\n[glance_store]\ndefault_backend = b\n"
        f"[a]\n{text}\n[b]\nfilesystem_store_datadir = {tmp_path}/images\n"
    )
    command = Command(config)
    stores = listed(command("stores", "--json"))
    assert stores["a"]["health"].startswith(f"not loaded: {says}")
    assert stores["b"]["healthy"] is True
    assert command("stores", "--check").code == 1
    assert command("put", small).code == 0
    assert says in command("put", small, "--store", "a").err


def test_a_malformed_line_is_not_quoted(tmp_path):
    config = tmp_path / "wrong.conf"
    config.write_text("[DEFAULT]\nswift_store_key hush-hush\n")
    for words in (["stores"], ["stores", "--json"]):
        result = Command(config)(*words)
        assert result.code == 2
        assert "hush" not in result.err


def test_a_configuration_that_cannot_be_read(tmp_path):
    missing = Command(tmp_path / "missing.conf")("stores")
    assert missing.code == 2
    assert str(tmp_path / "missing.conf") in one_line_error(missing)
    folder = Command(tmp_path)("stores")
    assert folder.code == 2
    assert "--config-dir" in one_line_error(folder)
    no_folder = Command()("stores", "--config-dir", tmp_path / "missing.d")
    assert no_folder.code == 2
    assert "missing.d" in one_line_error(no_folder)
    binary = tmp_path / "binary.conf"
    binary.write_bytes(b"\xff\xfe\x00")
    for words in ([f"--config-file={binary}"], [f"--config-dir={tmp_path}"]):
        result = Command()("stores", *words)
        assert result.code == 2
        assert one_line_error(result) == f"{binary} is not UTF-8 text"


def test_shared_reads(command, tmp_path):
    config = tmp_path / "glance-api.conf"
    config.write_text(
        config.read_text().replace(
            "[fast]", f"[fast]\nstore_shared_reads_dir = {tmp_path}/shared", 1
        )
    )
    data = tmp_path / "data"
    data.write_bytes(os.urandom(17 * 1024 * 1024))
    stored = command("put", str(data), "--store", "fast", "--json").json
    for _time in range(2):
        assert command("get", stored["location"], "-o", "/dev/null").code == 0
    shared = listed(command("stores", "--json"))["fast"]["shared"]
    assert (shared["downloads"], shared["saved"]) == (1, data.stat().st_size)
    assert "17.0 MiB saved, downloads: 1, 17.0 MiB of 10.0 GiB used" in command("stores").out
    assert (
        f'glance_store_shared_saved_bytes_total{{store="fast",driver="file"}} {data.stat().st_size}'
        in command("stores", "--prometheus").out
    )
