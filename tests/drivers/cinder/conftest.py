# SPDX-License-Identifier: Apache-2.0
"""Fixtures for the tests of the Cinder store."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.drivers.cinder.stores import Listing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.services.ceph import Ceph
    from tests.services.cinder import Cinder


@pytest.fixture
def listing(cinder: Cinder, ceph: Ceph) -> Iterator[Listing]:
    """What Cinder holds for the service user: nothing before the test, and nothing after it."""
    found = Listing(cinder)
    # The image service's tests leave images, and may have run in this process before.
    found.clear()
    yield found
    found.wait_until_empty()
