# SPDX-License-Identifier: Apache-2.0
"""Options of shared reads: whether and where downloads share what they read."""

from __future__ import annotations

import logging
import os
from typing import Any

from oslo_config import cfg

from glance_store.i18n import _
from glance_store.location import Location
from glance_store.store_options import DEFAULT_GROUP, BackendGroupConfiguration, register_each
from glance_store.transfer.shared_files import MIB, SharingError
from glance_store.transfer.shared_folder import Folder
from glance_store.transfer.shared_reads import SharedReads

__all__ = ["OPTIONS", "SharingError", "of_store", "remove"]

LOG = logging.getLogger(__name__)

OPTIONS: list[cfg.Opt] = [
    cfg.StrOpt(
        "store_shared_reads_dir",
        help=_(
            "Local directory where the processes of this host share the images they read from "
            "this store. When many download an image at the same time, one reads it from the "
            "backend and the others get the bytes as they arrive. Several stores may use the same "
            "directory. It must be on a local file system and belong to the service. Nobody else "
            "may read it, because it holds image data. If not set, every download reads from the "
            "backend."
        ),
    ),
    cfg.IntOpt(
        "store_shared_reads_size",
        default=10 * 1024,
        min=64,
        help=_(
            "Maximum size in MiB of ``store_shared_reads_dir``. When it is full, images that "
            "nobody is reading are removed, the least recently read first. Larger images are not "
            "shared. Use the same value for all stores that use the same directory."
        ),
    ),
    cfg.IntOpt(
        "store_shared_reads_min_size",
        default=16,
        min=1,
        help=_(
            "Minimum size in MiB of an image to share. Smaller images, and ranges of less than 8 "
            "MiB, are always read from the backend."
        ),
    ),
]


def of_store(conf: cfg.ConfigOpts, group: str | None) -> SharedReads | None:
    """Return the shared reads that a store's options ask for; None if they are disabled.

    :param conf: the configuration; the options are registered if necessary
    :param group: identifier of the store; None in single-store mode
    """
    options: Any
    if group is None:
        register_each(conf, OPTIONS, DEFAULT_GROUP)
        options = conf[DEFAULT_GROUP]
    else:
        options = BackendGroupConfiguration(OPTIONS, group, conf)
    path = options.store_shared_reads_dir
    if not path:
        return None
    if not os.path.isabs(path):
        LOG.warning(
            "Store %s: shared reads are disabled: store_shared_reads_dir must be an absolute path, "
            "not %s",
            group or DEFAULT_GROUP,
            path,
        )
        return None
    folder = Folder(path, options.store_shared_reads_size * MIB)
    return SharedReads(folder, options.store_shared_reads_min_size * MIB)


def remove(store: Any, location: Location, context: Any = None) -> Any:
    """Delete an image from a store and its shared copy from this host; see `Store.delete`."""
    result = store.delete(location, context=context)
    shared = getattr(store, "shared_reads", None)
    if shared is not None:
        try:
            shared.folder.forget(location.get_store_uri())
        except SharingError as exc:
            # Harmless: it is never read again, and is removed when space is needed.
            LOG.info(
                "Store %s: the shared copy of a deleted image is not removed yet: %s",
                store.name,
                exc,
            )
    return result
