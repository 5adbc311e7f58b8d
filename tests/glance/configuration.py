# SPDX-License-Identifier: Apache-2.0
"""The configuration files of the Glance under test."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

Options = dict[str, dict[str, str]]

# But for the last one the pipelines hold no Keystone: the context filter believes the identity
# headers of a request.
PASTE = """\
[composite:glance-api]
paste.composite_factory = glance.api:root_app_factory
/: plain
/healthcheck: healthcheck

[composite:glance-api-caching]
paste.composite_factory = glance.api:root_app_factory
/: caching
/healthcheck: healthcheck

[pipeline:plain]
pipeline = context rootapp

[pipeline:caching]
pipeline = context cache rootapp

[composite:glance-api-keystone]
paste.composite_factory = glance.api:root_app_factory
/: keystone
/healthcheck: healthcheck

[pipeline:keystone]
pipeline = authtoken context rootapp

[composite:rootapp]
paste.composite_factory = glance.api:root_app_factory
/: apiversions
/v2: apiv2app

[app:apiversions]
paste.app_factory = glance.api.versions:create_resource

[app:apiv2app]
paste.app_factory = glance.api.v2.router:API.factory

[app:healthcheck]
paste.app_factory = oslo_middleware:Healthcheck.app_factory

[filter:context]
paste.filter_factory = glance.api.middleware.context:ContextMiddleware.factory

[filter:authtoken]
paste.filter_factory = keystonemiddleware.auth_token:filter_factory
delay_auth_decision = true

[filter:cache]
paste.filter_factory = glance.api.middleware.cache:CacheFilter.factory
"""

# Runs in each Glance process before anything else. Glance reads and then writes within one
# transaction; SQLite refuses to upgrade the lock of a plain BEGIN at once when another writer is
# active, however long the timeout, and Glance loses that error in its task threads. Asking for the
# write lock at the start makes the writers wait for each other instead.
SITECUSTOMIZE = """\
import sqlite3


class _Cursor(sqlite3.Cursor):
    def execute(self, sql, *parameters):
        return super().execute("BEGIN IMMEDIATE" if sql == "BEGIN" else sql, *parameters)


class _Connection(sqlite3.Connection):
    def cursor(self, factory=_Cursor):
        return super().cursor(factory)


def _connect(*arguments, _original=sqlite3.connect, **keywords):
    keywords.setdefault("factory", _Connection)
    return _original(*arguments, **keywords)


sqlite3.connect = sqlite3.dbapi2.connect = _connect
"""


def glance_options(state: Path, python: str) -> Options:
    """Return the options of a Glance with the stores `fast`, `slow` and `web`.

    :param state: folder for everything the Glance keeps
    :param python: interpreter that Glance starts helpers with
    :return: option values by section and name
    """
    return {
        "DEFAULT": {
            "enabled_backends": "fast:file, slow:file, web:http",
            "enabled_import_methods": "[glance-direct,web-download,copy-image]",
            "show_image_direct_url": "true",
            "show_multiple_locations": "true",
        },
        "database": {"connection": f"sqlite:///{state / 'glance.sqlite'}?timeout=60"},
        "paste_deploy": {"config_file": str(state / "etc" / "glance-api-paste.ini")},
        "oslo_concurrency": {"lock_path": str(state / "locks")},
        "wsgi": {"python_interpreter": python},
        # Sources of images are HTTP servers on loopback, on ports chosen by the system.
        "import_filtering_opts": {"allowed_hosts": "[127.0.0.1]", "allowed_ports": "[]"},
        "glance_store": {"default_backend": "fast"},
        "fast": {
            "filesystem_store_datadir": str(state / "stores" / "fast"),
            "store_description": "a fast store",
            "weight": "7",
        },
        "slow": {
            "filesystem_store_datadir": str(state / "stores" / "slow"),
            "filesystem_store_chunk_size": "131072",
            "filesystem_thin_provisioning": "true",
        },
        "web": {"store_description": "images of other web servers"},
        "os_glance_staging_store": {"filesystem_store_datadir": str(state / "staging")},
        "os_glance_tasks_store": {"filesystem_store_datadir": str(state / "tasks")},
    }


def merged(options: Options, changes: Mapping[str, Mapping[str, str]]) -> Options:
    """Return a copy of the options with some of them changed."""
    result = {section: dict(values) for section, values in options.items()}
    for section, values in changes.items():
        result.setdefault(section, {}).update(values)
    return result


def write_configuration(folder: Path, options: Options, site: str = "") -> None:
    """Write Glance's configuration files into a folder.

    :param folder: becomes OS_GLANCE_CONFIG_DIR, and a part of PYTHONPATH for its sitecustomize
    :param options: option values by section and name; with lines, for an option given several times
    :param site: Python code for the sitecustomize
    """
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for section, values in options.items():
        lines.append(f"[{section}]")
        for name, value in values.items():
            # An option that may be given several times has its values on lines of their own.
            lines.extend(f"{name} = {line}" for line in value.split("\n"))
        lines.append("")
    (folder / "glance-api.conf").write_text("\n".join(lines))
    (folder / "glance-api-paste.ini").write_text(PASTE)
    (folder / "sitecustomize.py").write_text(f"{SITECUSTOMIZE}\n{site}")
