# SPDX-License-Identifier: Apache-2.0
"""The configuration of the command: that of the image service, read into an object of its own."""

from __future__ import annotations

import os
from collections.abc import Sequence

from oslo_config import cfg

from glance_store import backend, exceptions, multi_backend
from glance_store.cli.errors import UsageError
from glance_store.cli.stores import MultiStores, SingleStores, Stores

DEFAULT_CONFIG_FILE = "/etc/glance/glance-api.conf"
DEFAULT_CONFIG_DIR = "/etc/glance/glance-api.conf.d"

# The service's own stores. Loading them creates their directories: only where they are configured.
RESERVED_STORES = {"os_glance_staging_store": "file", "os_glance_tasks_store": "file"}

_ENABLED_BACKENDS = cfg.DictOpt(
    "enabled_backends", help="Stores of multi-store mode, as identifier:driver pairs."
)


def load(files: Sequence[str], directories: Sequence[str]) -> cfg.ConfigOpts:
    """Read the configuration.

    :param files: paths of configuration files, later ones win
    :param directories: paths of directories with ``*.conf`` files, read after the files
    :returns: a new configuration; the process-wide one is not touched
    :raises UsageError: no path is given, and the service's own file does not exist
    :raises oslo_config.cfg.Error: a file is missing or malformed
    """
    if not files and not directories:
        if not os.path.exists(DEFAULT_CONFIG_FILE):
            raise UsageError(
                f"there is no {DEFAULT_CONFIG_FILE}: name the image service's configuration with "
                "--config-file"
            )
        files = [DEFAULT_CONFIG_FILE]
        directories = [DEFAULT_CONFIG_DIR] if os.path.isdir(DEFAULT_CONFIG_DIR) else []
    for path in files:
        if os.path.isdir(path):
            raise UsageError(f"{path} is a directory: use --config-dir for it")
    arguments = [f"--config-file={os.path.abspath(path)}" for path in files]
    arguments += [f"--config-dir={os.path.abspath(path)}" for path in directories]
    conf = cfg.ConfigOpts()
    conf.register_opt(_ENABLED_BACKENDS)
    try:
        conf(arguments, project="glance", default_config_files=[], default_config_dirs=[])
    except UnicodeDecodeError as exc:
        raise UsageError("a configuration file is not text in UTF-8") from exc
    return conf


def open_stores(conf: cfg.ConfigOpts) -> Stores:
    """Load the stores of a configuration, in the mode that it asks for.

    :param conf: the result of `load`
    :returns: multi-store mode when ``enabled_backends`` is set, else single-store mode
    :raises UsageError: a store cannot be registered at all
    """
    try:
        if conf.enabled_backends:
            sections = set(conf.list_all_sections())
            reserved = {name: entry for name, entry in RESERVED_STORES.items() if name in sections}
            multi_backend.register_store_opts(conf, reserved)
            multi_backend.create_multi_stores(conf, reserved)
            return MultiStores(conf)
        backend.register_opts(conf)
        backend.create_stores(conf)
        return SingleStores(conf)
    except exceptions.BackendException as exc:
        raise UsageError(str(exc)) from exc
