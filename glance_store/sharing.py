# SPDX-License-Identifier: Apache-2.0
"""Whether the downloads of a store share what they read with others, and where."""

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
            "Local directory in which the processes of this host share what they read of the "
            "images of this store: of many downloads of one image at the same time, one reads "
            "from the backend, and the others get the bytes as they arrive. Several stores may "
            "have the same directory. It must be on a local file system, belong to the service, "
            "and be readable by nobody else: image data are in it. Not set: each download reads "
            "from the backend."
        ),
    ),
    cfg.IntOpt(
        "store_shared_reads_size",
        default=10 * 1024,
        min=64,
        help=_(
            "MiB that the files in ``store_shared_reads_dir`` take at most. When there is no more "
            "room, images that nobody is reading go, the least recently read ones first. Larger "
            "images are not shared. Stores with the same directory should have the same value."
        ),
    ),
    cfg.IntOpt(
        "store_shared_reads_min_size",
        default=16,
        min=1,
        help=_(
            "MiB that an image must have to be shared. Smaller ones, and ranges of less than 8 "
            "MiB, are read from the backend."
        ),
    ),
]


def of_store(conf: cfg.ConfigOpts, group: str | None) -> SharedReads | None:
    """Return what the options of a store say; None: its downloads share nothing.

    :param conf: the configuration; the options are registered if they are not yet
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
            "Store %s: store_shared_reads_dir is no absolute path, but %s: its images are not "
            "shared",
            group or DEFAULT_GROUP,
            path,
        )
        return None
    folder = Folder(path, options.store_shared_reads_size * MIB)
    return SharedReads(folder, options.store_shared_reads_min_size * MIB)


def remove(store: Any, location: Location, context: Any = None) -> Any:
    """Remove an image from a store, and what processes of this host share of it.

    :param store: the store
    :param location: where the image is
    :param context: the request's context
    :returns: what the driver returns
    :raises GlanceStoreException: as `Store.delete` does
    """
    result = store.delete(location, context=context)
    shared = getattr(store, "shared_reads", None)
    if shared is not None:
        try:
            shared.folder.forget(location.get_store_uri())
        except SharingError as exc:
            # It is never read again, and goes when its room is wanted.
            LOG.info("Store %s: bytes of a removed image are still shared: %s", store.name, exc)
    return result
