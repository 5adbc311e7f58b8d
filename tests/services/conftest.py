# SPDX-License-Identifier: Apache-2.0
"""Servers of these tests alone: they freeze them, kill them, and count what they hold.

A fixture that has been computed is not computed again for another `lab`, so all of them are here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest

from tests.services.fixtures import ceph_of, running

if TYPE_CHECKING:
    from tests.services.base import Lab
    from tests.services.ceph import Ceph
    from tests.services.cinder import Cinder
    from tests.services.keystone import Keystone
    from tests.services.radosgw import Radosgw
    from tests.services.swift import Swift


@pytest.fixture(scope="session")
def lab(own_lab: Lab) -> Lab:
    return own_lab


@pytest.fixture(scope="session")
def ceph(own_lab: Lab) -> Ceph:
    return ceph_of(own_lab)


@pytest.fixture(scope="session")
def radosgw(own_lab: Lab) -> Radosgw:
    return cast("Radosgw", running(own_lab, "radosgw"))


@pytest.fixture(scope="session")
def keystone(own_lab: Lab) -> Keystone:
    return cast("Keystone", running(own_lab, "keystone"))


@pytest.fixture(scope="session")
def swift(own_lab: Lab) -> Swift:
    return cast("Swift", running(own_lab, "swift"))


@pytest.fixture(scope="session")
def cinder(own_lab: Lab) -> Cinder:
    return cast("Cinder", running(own_lab, "cinder"))
