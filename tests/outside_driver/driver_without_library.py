# SPDX-License-Identifier: Apache-2.0
"""A driver whose client library is not installed."""

import a_client_library_that_is_not_installed

from glance_store.driver import Store as BaseStore


class Store(BaseStore):
    """A store that this host cannot load."""

    CLIENT = a_client_library_that_is_not_installed
