# SPDX-License-Identifier: Apache-2.0
"""Accounts that `swift+config` locations name."""

from __future__ import annotations

import logging
import os
import traceback

import pytest
from oslo_config import cfg

from glance_store import exceptions
from glance_store._drivers.swift import Store, StoreLocation, references
from glance_store._drivers.swift.options import OPTIONS

ADDRESS = "auth_address = https://example.com/v3\n"
USER = "user = tenant:user\n"


@pytest.fixture
def conf():
    conf = cfg.ConfigOpts()
    conf.register_opts(OPTIONS, group="glance_store")
    return conf


@pytest.fixture
def load(conf, tmp_path):
    """Return the accounts of a file with the given text."""

    def load(text):
        path = tmp_path / "accounts.conf"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        conf.set_override("swift_store_config_file", str(path), group="glance_store")
        return references.load(conf, None)

    return load


def test_user_and_key(load):
    accounts = load(f"[a]\n{ADDRESS}{USER}key = k\n")
    assert accounts == {
        "a": references.Reference("https://example.com/v3", user="tenant:user", key="k")
    }
    account = accounts["a"]
    assert account.bare_address == "example.com/v3"
    assert account.ssl_enabled
    assert (account.user_domain_id, account.project_domain_id) == ("default", "default")
    assert account.auth_version == "3"


def test_application_credential_is_preferred(load):
    account = load(
        f"[a]\n{ADDRESS}{USER}key = k\napplication_credential_id = i\n"
        "application_credential_secret = s\nproject_id = p\n"
    )["a"]
    assert (account.user, account.key) == (None, None)
    assert account.application_credential_id == "i"
    assert account.application_credential_secret == "s"
    assert (account.project_id, account.project_name) == ("p", None)


def test_half_an_application_credential_leaves_user_and_key(load):
    account = load(f"[a]\n{ADDRESS}{USER}key = k\napplication_credential_id = i\n")["a"]
    assert (account.user, account.key) == ("tenant:user", "k")
    assert account.application_credential_id is None


@pytest.mark.parametrize(
    ("lines", "user", "project"),
    [
        ("", ("default", None), ("default", None)),
        ("user_domain_name = n\n", (None, "n"), ("default", None)),
        ("project_domain_name = n\n", ("default", None), (None, "n")),
        ("user_domain_id = i\nproject_domain_id = j\n", ("i", None), ("j", None)),
        ("user_domain_id = i\nuser_domain_name = n\n", ("i", "n"), ("default", None)),
    ],
)
def test_default_domain_only_where_none_is_given(load, lines, user, project):
    account = load(f"[a]\n{ADDRESS}{USER}key = k\n{lines}")["a"]
    assert (account.user_domain_id, account.user_domain_name) == user
    assert (account.project_domain_id, account.project_domain_name) == project


@pytest.mark.parametrize(
    ("written", "key"),
    [
        ("k", "k"),
        ('"k"', "k"),
        ("'k'", "k"),
        ('" k "', " k "),
        ('"k"x"', 'k"x'),
        ('k"', 'k"'),
        ("k%%", "k%"),
        ("k:=#;x", "k:=#;x"),
    ],
)
def test_value(load, written, key):
    assert load(f"[a]\n{ADDRESS}{USER}key = {written}\n")["a"].key == key


def test_mark_of_an_editor_before_the_first_section(load):
    assert list(load(f"\ufeff[a]\n{ADDRESS}{USER}key = k\n")) == ["a"]


@pytest.mark.parametrize(
    ("section", "reason"),
    [
        (f'{ADDRESS}{USER}key = "S3CRET\n', "the quote in key is not closed"),
        (f"{ADDRESS}{USER}key = \"S3CRET'\n", "the quote in key is not closed"),
        (f'{ADDRESS}{USER}key = "\n', "the quote in key is not closed"),
        (f'{ADDRESS}{USER}key = ""\n', "it needs user and key"),
        (f"{ADDRESS}{USER}key =\n", "it needs user and key"),
        (f"{ADDRESS}{USER}", "it needs user and key"),
        (f"{ADDRESS}{USER}key = S3CRET%x\n", "a percent sign in key must be doubled"),
        (f"{ADDRESS}{USER}key = %(S3CRET)s\n", "a percent sign in key must be doubled"),
        (f"{ADDRESS}application_credential_id = S3CRET\n", "application_credential_secret"),
        (f"{ADDRESS}user = tenant\nkey = S3CRET\n", "<project>:<user>"),
        (f"{ADDRESS}user = :user\nkey = S3CRET\n", "<project>:<user>"),
        (f"{USER}key = S3CRET\n", "it has no auth_address"),
        (f"auth_address = ftp://h\n{USER}key = S3CRET\n", "neither http:// nor https://"),
    ],
)
def test_bad_section_is_skipped_and_logged(load, caplog, section, reason):
    accounts = load(f"[bad]\n{section}[good]\n{ADDRESS}{USER}key = k\n")
    assert list(accounts) == ["good"]
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "[bad]" in record.getMessage()
    assert reason in record.getMessage()
    assert "S3CRET" not in caplog.text


def test_old_auth_version_is_ignored_with_a_warning(load, caplog):
    assert load(f"[a]\n{ADDRESS}{USER}key = k\nauth_version = 2\n")["a"].auth_version == "3"
    assert "auth_version of section [a] is ignored" in caplog.text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("key = S3CRET\n", "line 1 comes before the first"),
        (f"[a]\n{ADDRESS}S3CRET\n", "line 3 is not of the form"),
        (f"[a]\n{ADDRESS}[a]\nkey = S3CRET\n", "line 3 repeats"),
        ("[a]\nkey = S3CRET\nkey = S3CRET2\n", "line 3 repeats"),
        (b"[a]\nkey = S3CRET\xff\n", "not valid UTF-8"),
    ],
)
def test_unusable_file(load, text, reason):
    with pytest.raises(exceptions.BadStoreConfiguration) as caught:
        load(text)
    report = "".join(traceback.format_exception(caught.value))
    assert reason in report
    assert "accounts.conf" in report
    assert "S3CRET" not in report


def test_missing_file(conf, tmp_path):
    conf.set_override("swift_store_config_file", str(tmp_path / "no"), group="glance_store")
    with pytest.raises(exceptions.BadStoreConfiguration, match="No such file"):
        StoreLocation({}, conf).parse_uri("swift+config://ref1/c/o")
    # A location that holds its credentials itself needs no file.
    StoreLocation({}, conf).parse_uri("swift://u:p@h/c/o")


def test_changed_file_is_read_again(load, tmp_path, caplog):
    text = f"[bad]\n[a]\n{ADDRESS}{USER}key = one\n"
    assert load(text)["a"].key == "one"
    assert load(text.replace("one", "three"))["a"].key == "three"
    skipped = len(caplog.records)
    # Unchanged: neither parsed nor complained about again.
    os.utime(tmp_path / "accounts.conf", ns=(1, 1))
    accounts = [references._load_file(str(tmp_path / "accounts.conf"), "swift") for _ in range(3)]
    assert accounts[0] is accounts[1] is accounts[2]
    assert len(caplog.records) == skipped + 1


def test_accounts_of_one_file_stay_out_of_another(conf, tmp_path):
    for name in ("one", "two"):
        path = tmp_path / f"{name}.conf"
        path.write_text(f"[{name}]\n{ADDRESS}{USER}key = {name}\n")
        conf.set_override("swift_store_config_file", str(path), group="glance_store")
        assert list(references.load(conf, None)) == [name]


def test_relative_name_is_found_beside_the_configuration(tmp_path):
    (tmp_path / "service.conf").write_text("[glance_store]\nswift_store_config_file = acc.conf\n")
    (tmp_path / "acc.conf").write_text(f"[a]\n{ADDRESS}{USER}key = k\n")
    conf = cfg.ConfigOpts()
    conf.register_opts(OPTIONS, group="glance_store")
    conf(["--config-file", str(tmp_path / "service.conf")], project="none")
    assert references.load(conf, None)["a"].key == "k"


def test_relative_name_of_a_configuration_without_files(conf, tmp_path, monkeypatch):
    (tmp_path / "acc.conf").write_text(f"[a]\n{ADDRESS}{USER}key = k\n")
    monkeypatch.chdir(tmp_path)
    conf.set_override("swift_store_config_file", "acc.conf", group="glance_store")
    assert references.load(conf, None)["a"].key == "k"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, None),
        ({"user": "t:u", "key": "k"}, None),
        ({"auth_address": "h", "user": "t:u"}, None),
        ({"auth_address": "h", "application_credential_id": "i"}, None),
        (
            {"auth_address": "h", "user": "t:u", "key": "k", "application_credential_id": "i"},
            references.Reference("h", user="t:u", key="k"),
        ),
        (
            {
                "auth_address": "h",
                "user": "t:u",
                "key": "k",
                "application_credential_id": "i",
                "application_credential_secret": "s",
                "project_name": "n",
            },
            references.Reference(
                "h",
                application_credential_id="i",
                application_credential_secret="s",
                project_name="n",
            ),
        ),
    ],
)
def test_account_of_the_options(conf, options, expected):
    for name, value in options.items():
        conf.set_override(f"swift_store_{name}", value, group="glance_store")
    conf.set_override("default_swift_reference", "mine", group="glance_store")
    assert references.load(conf, None).get("mine") == expected
    assert "ref1" not in references.load(conf, None)


def test_repr_of_an_account_shows_no_secret():
    account = references.Reference(
        "h",
        user="S3CRET",
        key="S3CRET",
        application_credential_id="S3CRET",
        application_credential_secret="S3CRET",
    )
    assert "S3CRET" not in repr(account)


def test_stores_of_one_configuration_have_their_own_accounts(tmp_path):
    (tmp_path / "shared.conf").write_text(f"[ref1]\n{ADDRESS}{USER}key = shared\n")
    (tmp_path / "fast.conf").write_text(f"[ref1]\n{ADDRESS}{USER}key = fast\n")
    (tmp_path / "service.conf").write_text(
        "[backend_defaults]\n"
        f"swift_store_config_file = {tmp_path}/shared.conf\n"
        f"[fast]\nswift_store_config_file = {tmp_path}/fast.conf\n"
        "[slow]\ndefault_swift_reference = other\n"
    )
    conf = cfg.ConfigOpts()
    conf(["--config-file", str(tmp_path / "service.conf")], project="none")
    for identifier in ("fast", "slow"):
        Store(conf, identifier)

    def key_of(identifier):
        location = StoreLocation({}, conf, identifier)
        location.parse_uri("swift+config://ref1/c/o")
        return location.key

    assert (key_of("fast"), key_of("slow")) == ("fast", "shared")
    made = StoreLocation({"container": "c", "obj": "o"}, conf, "slow")
    assert made.get_uri(credentials_included=False) == "swift+config://other/c/o"
    made = StoreLocation({"container": "c", "obj": "o"}, conf, "fast")
    assert made.get_uri(credentials_included=False) == "swift+config://ref1/c/o"
