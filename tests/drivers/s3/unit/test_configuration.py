# SPDX-License-Identifier: Apache-2.0
"""Which options the S3 store takes, and what it says about the others."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from oslo_config import cfg

from glance_store import exceptions
from glance_store._drivers.s3 import Store
from glance_store._drivers.s3.client import Settings
from glance_store.capabilities import BitMasks

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.drivers.s3.conftest import Images

pytest.importorskip("boto3")

GOOD = {
    "s3_store_host": "https://s3.example.org:9000",
    "s3_store_access_key": "canary-access",
    "s3_store_secret_key": "canary-secret",
    "s3_store_bucket": "images",
}


@pytest.fixture(autouse=True)
def nothing_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, "/nonexistent")


def store_with(**options: Any) -> Store:
    conf = cfg.ConfigOpts()
    store = Store(conf, "objects")
    for name, value in {**GOOD, **options}.items():
        conf.set_override(name, value, group="objects")
    return store


def problem_of(store: Store) -> str:
    with pytest.raises(exceptions.BadStoreConfiguration) as caught:
        store.configure(re_raise_bsc=True)
    assert not store.is_capable(BitMasks.WRITE_ACCESS)
    assert store.is_capable(BitMasks.READ_RANDOM)
    assert "canary" not in str(caught.value)
    return str(caught.value)


def test_good_options() -> None:
    store = store_with()
    store.configure(re_raise_bsc=True)
    assert store.url_prefix == "s3+https://s3.example.org:9000/images"
    assert store.storage_ids() == {"https://s3.example.org:9000/images"}
    assert store.is_capable(BitMasks.WRITE_ACCESS, BitMasks.READ_RANDOM, BitMasks.DRIVER_REUSABLE)


def test_configuring_keeps_no_client() -> None:
    """The service may fork after it."""
    store = store_with()
    store.configure(re_raise_bsc=True)
    assert store._clients is not None
    assert store._clients._slot.client is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"s3_store_host": None}, "s3_store_host is not set"),
        ({"s3_store_bucket": None}, "s3_store_bucket is not set"),
        ({"s3_store_access_key": None}, "Only one of"),
        ({"s3_store_secret_key": None}, "Only one of"),
        ({"s3_store_access_key": None, "s3_store_secret_key": None}, "no credentials were found"),
        ({"s3_store_large_object_chunk_size": 4}, "at least 5 MiB"),
        ({"s3_store_thread_pools": 0}, "s3_store_thread_pools is 0"),
        ({"s3_store_thread_pools": -1}, "at least 1"),
        ({"s3_store_cacert": "/nonexistent"}, "s3_store_cacert"),
        (
            {"s3_store_bucket": "Not_DNS", "s3_store_bucket_url_format": "virtual"},
            "s3_store_bucket_url_format",
        ),
    ],
)
def test_r221_bad_options(options: dict[str, Any], words: str) -> None:
    assert words in problem_of(store_with(**options))


@pytest.mark.parametrize(
    "bucket",
    ["images/glance", "images/", "s3://images", "a b", "a:b:images", "im\u00e4ges", ".."],
)
def test_bucket_that_cannot_be_one(bucket: str) -> None:
    """Found out now, not by the first upload, which would blame the id of the image."""
    assert "s3_store_bucket" in problem_of(store_with(s3_store_bucket=bucket))


def test_bucket_of_older_rules_is_one() -> None:
    store_with(s3_store_bucket="Images_" + 70 * "x").configure(re_raise_bsc=True)


@pytest.mark.parametrize("content", [None, "", "no certificate"], ids=["folder", "empty", "text"])
def test_authorities_that_are_none(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "authorities"
    if content is None:
        path.mkdir()
    else:
        path.write_text(content)
    problem = problem_of(store_with(s3_store_cacert=str(path)))
    assert f"s3_store_cacert = {path} cannot be used" in problem


def test_authorities_without_tls_do_not_matter() -> None:
    options = {"s3_store_cacert": "/nonexistent", "s3_store_host": "http://s3.example.org"}
    store_with(**options).configure(re_raise_bsc=True)


@pytest.mark.parametrize(
    "proxy", ["http://user:can/ary@proxy:3128", "proxy:port", "http://user:canary@proxy:port"]
)
def test_proxy_that_is_none(proxy: str) -> None:
    assert "s3_store_proxies" in problem_of(store_with(s3_store_proxies={"https": proxy}))


def test_default_credentials_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "canary-access")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary-secret")
    store_with(s3_store_access_key=None, s3_store_secret_key=None).configure(re_raise_bsc=True)


def test_store_without_a_host_says_so_when_it_is_read() -> None:
    store = store_with(s3_store_host=None)
    store.configure()
    location = store.get_store_location_class()({}, store.conf)
    location.parse_uri("s3://example.org/bucket/key")
    with pytest.raises(exceptions.BadStoreConfiguration, match="s3_store_host"):
        store._client()


@pytest.mark.parametrize(
    "option",
    [
        "http://[::1",
        "http://a b",
        "https://exa mple",
        "https//s3.example.org",
        "http:/s3.example.org",
        "https://s3.example.org/?x=1",
        "https://s3.example.org#x",
        "https://s3.example.org:port",
        "https://a.example.org,https://b.example.org",
        "https://",
    ],
)
def test_host_that_is_none(option: str) -> None:
    store = store_with(s3_store_host=option)
    assert "s3" in problem_of(store).lower()
    with pytest.raises(exceptions.BadStoreConfiguration):
        store._client()


def test_r206_checksums_are_off_unless_they_are_wanted() -> None:
    off = Settings.of(store_with(s3_store_request_checksum_calculation="when_supported").store_conf)
    assert off.request_checksums == off.response_checksums == "when_required"
    on = Settings.of(
        store_with(
            s3_store_enable_data_integrity_protection=True,
            s3_store_request_checksum_calculation="when_supported",
        ).store_conf
    )
    assert (on.request_checksums, on.response_checksums) == ("when_supported", "when_required")


def test_settings_show_no_secret() -> None:
    options = {"s3_store_proxies": {"https": "http://u:canary@proxy"}}
    assert "canary" not in repr(Settings.of(store_with(**options).store_conf))


def test_client_obeys_the_options() -> None:
    store = store_with(
        s3_store_region_name="eu-test",
        s3_store_retry_timeout=7.5,
        s3_store_connect_timeout=3,
        s3_store_read_timeout=33,
        s3_store_thread_pools=100,
        s3_store_bucket_url_format="virtual",
        s3_store_proxies={"https": "proxy.example.org:3128"},
    )
    store.configure(re_raise_bsc=True)
    client = store._client()
    assert store._client() is client
    config = client.s3.meta.config
    assert client.s3.meta.region_name == "eu-test"
    assert client.s3.meta.endpoint_url == "https://s3.example.org:9000"
    # The engine repeats requests; two loops one in the other would be tries by the hundred.
    assert config.retries["total_max_attempts"] == 1
    assert client.settings.patience == 7.5
    assert (config.connect_timeout, config.read_timeout) == (3, 33)
    assert config.max_pool_connections >= 200
    assert config.s3["addressing_style"] == "virtual"
    assert config.proxies == {"https": "http://proxy.example.org:3128"}
    client.s3.close()


def test_r208_region_of_amazon_has_no_endpoint() -> None:
    store = store_with(s3_store_host="https://s3.eu-west-1.amazonaws.com")
    store.configure(re_raise_bsc=True)
    meta = store._client().s3.meta
    assert meta.region_name == "eu-west-1"
    assert "amazonaws.com" in meta.endpoint_url


@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"])
@pytest.mark.parametrize(
    "host", ["https://s3.eu-west-1.amazonaws.com", "https://s3.dualstack.eu-west-1.amazonaws.com"]
)
def test_environment_does_not_move_the_store(
    monkeypatch: pytest.MonkeyPatch, name: str, host: str
) -> None:
    monkeypatch.setenv(name, "http://elsewhere.example.org")
    store = store_with(s3_store_host=host)
    store.configure(re_raise_bsc=True)
    client = store._client()
    assert client.s3.meta.endpoint_url == host
    assert client.s3.meta.region_name == "eu-west-1"
    client.s3.close()


def test_profile_does_not_move_the_store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_text("[default]\nendpoint_url = http://elsewhere.example.org\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(path))
    store = store_with(s3_store_host="https://s3.eu-west-1.amazonaws.com")
    store.configure(re_raise_bsc=True)
    client = store._client()
    assert client.s3.meta.endpoint_url == "https://s3.eu-west-1.amazonaws.com"
    client.s3.close()


@pytest.mark.parametrize("name", ["AWS_PROFILE", "AWS_DEFAULT_PROFILE"])
def test_profile_of_others_does_not_matter_to_a_store_with_keys(
    at: Callable[..., Images], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "of-another-program")
    images = at()
    assert images.read(images.add("image", b"data")) == b"data"


def test_acceleration_in_a_profile_is_not_for_the_store(
    at: Callable[..., Images], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The client library refuses it where there is an address."""
    path = tmp_path / "config"
    path.write_text("[default]\ns3 =\n  use_accelerate_endpoint = true\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(path))
    images = at()
    assert images.read(images.add("image", b"data")) == b"data"


def test_mistyped_scheme() -> None:
    """It is an error, not a connection in clear text."""
    assert "'htps'" in problem_of(store_with(s3_store_host="htps://s3.example.org"))


def test_r202_boto3_is_missing_or_unused() -> None:
    code = """
import sys
sys.modules["boto3"] = None
from oslo_config import cfg
from glance_store import exceptions
from glance_store._drivers.s3 import Store
assert not any(name.startswith("botocore") for name in sys.modules)
try:
    Store(cfg.ConfigOpts(), "x").configure(re_raise_bsc=True)
except exceptions.BadStoreConfiguration as exc:
    print(exc)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "pip install 'glance_store[s3]'" in done.stdout, done.stderr


GIB = 1024**3


def configured_with(chunk: int) -> Store:
    conf = cfg.ConfigOpts()
    store = Store(conf, "objects")
    options = {
        "s3_store_host": "http://127.0.0.1",
        "s3_store_access_key": "access",
        "s3_store_secret_key": "secret",
        "s3_store_bucket": "images",
        "s3_store_large_object_chunk_size": chunk,
    }
    for name, value in options.items():
        conf.set_override(name, value, group="objects")
    store.configure(re_raise_bsc=True)
    return store


def test_largest_part_may_be_configured() -> None:
    pytest.importorskip("boto3")
    assert configured_with(5120).s3_store_large_object_chunk_size == 5 * GIB


@pytest.mark.parametrize("chunk", [5121, 1_000_000])
def test_part_that_no_service_takes_may_not(chunk: int) -> None:
    """It would fail at the first large image."""
    with pytest.raises(exceptions.BadStoreConfiguration, match=f"{chunk} MiB.*at most 5120 MiB"):
        configured_with(chunk)
