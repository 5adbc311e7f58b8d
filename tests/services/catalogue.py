# SPDX-License-Identifier: Apache-2.0
"""All services by name. Their modules are imported when they are asked for, one at a time."""

from __future__ import annotations

import importlib

from tests.services.base import Service, Unavailable

MODULES = {
    "ceph": "tests.services.ceph:Ceph",
    "radosgw": "tests.services.radosgw:Radosgw",
    "keystone": "tests.services.keystone:Keystone",
    "swift": "tests.services.swift:Swift",
    "cinder": "tests.services.cinder:Cinder",
    "vcenter": "tests.services.vcenter:VCenter",
    "http": "tests.services.web:Http",
}


def find(name: str) -> type[Service]:
    """Return the class of a service.

    :param name: one of `MODULES`
    :raises LookupError: there is no such service
    :raises Unavailable: its module needs something that is not installed
    """
    try:
        module_name, _colon, class_name = MODULES[name].partition(":")
    except KeyError:
        raise LookupError(f"no service {name!r}; there are {', '.join(MODULES)}") from None
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise Unavailable(f"{name}: the module {error.name} is not installed") from error
    found: type[Service] = getattr(module, class_name)
    return found


def listing() -> dict[str, str]:
    """Return what can be started: the first line of each description, or what prevents it."""
    lines = {}
    for name in MODULES:
        try:
            lines[name] = (find(name).__doc__ or "").partition("\n")[0]
        except Unavailable as error:
            lines[name] = f"not available: {error}"
    return lines
