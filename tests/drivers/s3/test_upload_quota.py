# SPDX-License-Identifier: Apache-2.0
"""Uploads of a user of the RADOS gateway who may not store as much."""

from __future__ import annotations

import types
from typing import TYPE_CHECKING

import pytest
from oslo_config import cfg

from glance_store import exceptions
from glance_store._drivers.s3 import Store
from glance_store.testing.inputs import image
from tests.drivers.s3.conftest import Images
from tests.drivers.s3.service import Service, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.services.radosgw import Radosgw

pytestmark = pytest.mark.services

MIB = 1024 * 1024
PART = 5 * MIB
QUOTA = 64 * 1024


@pytest.fixture
def poor(radosgw: Radosgw) -> Iterator[Service]:
    """The gateway as a user sees it who has a quota, with a bucket."""
    uid = "--uid=poor"
    user = types.SimpleNamespace(
        url=radosgw.url, access_key="poor-access", secret_key="poor-secret"
    )
    keys = (f"--access-key={user.access_key}", f"--secret-key={user.secret_key}")
    radosgw.admin("user", "create", uid, "--display-name=poor", *keys)
    radosgw.admin("quota", "set", "--quota-scope=user", uid, f"--max-size={QUOTA}")
    radosgw.admin("quota", "enable", "--quota-scope=user", uid)
    try:
        with serving(user) as service:
            yield service
    finally:
        radosgw.admin("user", "rm", uid, "--purge-data")


@pytest.mark.parametrize("size", [QUOTA + 1, PART + 5], ids=["put", "parts"])
def test_image_that_exceeds_the_quota(poor: Service, size: int) -> None:
    """The gateway answers 403, as to somebody who may not write at all."""
    conf = cfg.ConfigOpts()
    store = Store(conf, "objects")
    for name, value in poor.options().items():
        conf.set_override(name, value, group="objects")
    store.configure(re_raise_bsc=True)
    images = Images(store)
    images.delete(images.add("small", b"data"))
    with pytest.raises(exceptions.StorageFull, match="403 QuotaExceeded"):
        images.add("large", image(size))
    assert poor.listing() == []
