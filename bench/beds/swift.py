# SPDX-License-Identifier: Apache-2.0
"""Images as large objects of Swift, with Keystone."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar

from bench.beds.base import ServerBed, context_of
from bench.contenders import Contender, Workers
from bench.worker import MIB
from tests.services.keystone_api import REGION
from tests.services.swift import Swift

if TYPE_CHECKING:
    import contextlib
    from pathlib import Path

    from bench.environments import Environment
    from bench.model import Scenario
    from bench.worker import Task

SERVICE = "SwiftService"
THREADS = 10
CONTAINER = "images"
# The unit of the options for sizes.
MEGABYTE = 1000 * 1024


class PatientSwift(Swift):
    """A Swift that waits for clients on a busy machine."""

    client_timeout: ClassVar[float] = 60


class FarSwift(PatientSwift):
    """The Swift at the other end of a network, which costs this machine as little as it can.

    What a far server computes does not take the cores of its client. Uploads cost it half as much
    when it takes in more bytes at a time than by default.
    """

    name = "swift-far"
    upload_chunk_size: ClassVar[int] = MIB
    catalogued: ClassVar[tuple[str, str]] = ("object-store-far", "far")


class SwiftBed(ServerBed):
    """A Swift with the users of a Keystone."""

    driver: ClassVar[str] = "swift"
    clients: ClassVar[tuple[str, ...]] = ("python-swiftclient", "python-keystoneclient")

    def start(self, scenario: Scenario) -> None:
        self._swift = self.service(FarSwift if scenario.link else PatientSwift)

    def port(self, scenario: Scenario) -> int:
        return self._swift.port

    def basis(self, scenario: Scenario, images: Path) -> dict[str, Any]:
        swift = self._swift
        account = swift.keystone.accounts["glance"]
        own: dict[str, Any] = dict(scenario.task.options) if scenario.task else {}
        multi_tenant = own.get("swift_store_multi_tenant", False)
        user = "tenant-a" if multi_tenant else "glance"
        options = {
            "swift_store_auth_version": "3",
            "swift_store_auth_address": swift.keystone.auth_url,
            "swift_store_user": f"{account.project}:{account.user}",
            "swift_store_key": account.password,
            "swift_store_region": REGION,
            "swift_store_service_type": swift.catalogued[0],
            "swift_store_container": CONTAINER,
            "swift_store_create_container_on_put": True,
        }
        if scenario.link:
            # The catalog would show the way without a network.
            options["swift_store_endpoint"] = swift.storage_url(user)
        context = context_of(*swift.keystone.token(user)) if multi_tenant else None
        return {"driver": self.driver, "options": {**options, **own}, "context": context}

    def rivals(
        self,
        scenario: Scenario,
        task: Task,
        images: Path,
        environment: Environment,
        stack: contextlib.ExitStack,
    ) -> dict[str, Contender]:
        keystone = self._swift.keystone
        account = keystone.accounts["glance"]
        options = {
            "auth_url": keystone.auth_url,
            "user": account.user,
            "password": account.password,
            "project": account.project,
            "region": REGION,
            "container": "rival",
            "threads": THREADS,
            "segment": task.options["swift_store_large_object_chunk_size"] * MEGABYTE,
        }
        changed = dataclasses.replace(
            task, driver="swiftservice", prefix="rival", options=options, context=None
        )
        return {SERVICE: Contender(lambda: Workers().measure(environment, changed))}
