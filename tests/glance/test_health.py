# SPDX-License-Identifier: Apache-2.0
"""Glance's health check tells of a store that is gone, and of its return."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import requests

from tests.waiting import until

if TYPE_CHECKING:
    from .conftest import StartGlance

pytestmark = pytest.mark.glance


def test_a_store_that_goes_and_returns(start_glance: StartGlance) -> None:
    """The stores are configured in the parent of the processes that are asked."""
    options = {
        "backends": "glance_store",
        "glance_store_stores": "slow",
        "glance_store_cache": "0.1",
    }
    glance = start_glance("health", options={"healthcheck": options}, processes=2, prefork=True)
    folder, away = glance.state / "stores" / "slow", glance.state / "stores" / "away"
    with requests.Session() as session:
        session.trust_env = False

        def answer() -> tuple[int, str]:
            found = session.get(f"{glance.url}/healthcheck", timeout=60)
            return found.status_code, found.text

        folder.rename(away)
        gone = (503, "unhealthy stores: slow")
        until(lambda: answer() == gone, lambda: f"the store is gone, and the answer {answer()}")
        away.rename(folder)
        until(lambda: answer() == (200, "OK"), lambda: f"it is back, and the answer {answer()}")
