# SPDX-License-Identifier: Apache-2.0
"""Connections to Swift: pools of each process, with certificates and the environment's proxies."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import requests.adapters
import requests.utils
import urllib3

from glance_store._drivers._patience import patient

# Idle connections kept for each server, enough for the threads of a busy service.
_POOL_SIZE = 64


@dataclasses.dataclass(frozen=True)
class Settings:
    """The options that every request obeys."""

    insecure: bool
    cacert: str | None  # path of a file of authorities
    connect_timeout: float  # seconds
    read_timeout: float  # seconds
    retries: int
    threads: int  # requests of one upload or deletion at a time

    @classmethod
    def of(cls, store_conf: Any) -> Settings:
        """Return the settings of a store.

        :param store_conf: its options as attributes
        """
        return cls(
            insecure=store_conf.swift_store_auth_insecure,
            cacert=store_conf.swift_store_cacert,
            connect_timeout=store_conf.swift_store_connect_timeout,
            read_timeout=store_conf.swift_store_read_timeout,
            retries=store_conf.swift_store_retries,
            threads=store_conf.swift_store_thread_pool_size,
        )

    @property
    def verify(self) -> bool | str:
        """What requests takes: False, True, or the path of a file of authorities."""
        return False if self.insecure else self.cacert or True


class Connections:
    """The pools of a store, of its own in each process.

    A forked child leaves alone what it has inherited: two processes on one connection would get
    parts of each other's answers.
    """

    def __init__(self) -> None:
        # No lock: one that is held while another thread forks stays locked in the child for ever.
        # A pool too many has no connection yet and costs nothing.
        self._pools: dict[tuple[int, Settings, str | None], urllib3.PoolManager] = {}

    def pool(self, url: str, settings: Settings) -> urllib3.PoolManager:
        """Return what sends requests to a server.

        :param url: of the server
        :param settings: options of the store
        """
        proxy = requests.utils.select_proxy(url, requests.utils.get_environ_proxies(url))
        key = (os.getpid(), settings, proxy)
        pool = self._pools.get(key)
        if pool is None:
            pool = self._pools.setdefault(key, _new_pool(settings, proxy))
        return pool


def _new_pool(settings: Settings, proxy: str | None) -> urllib3.PoolManager:
    pool = _new_manager(settings, proxy)
    pool.pool_classes_by_scheme = {
        "http": patient(urllib3.HTTPConnectionPool, settings.read_timeout),
        "https": patient(urllib3.HTTPSConnectionPool, settings.read_timeout),
    }
    return pool


def _new_manager(settings: Settings, proxy: str | None) -> urllib3.PoolManager:
    options: dict[str, Any] = {
        "maxsize": _POOL_SIZE,
        "timeout": urllib3.Timeout(connect=settings.connect_timeout, read=settings.read_timeout),
        "retries": False,
    }
    if settings.insecure:
        options["cert_reqs"] = "CERT_NONE"
    else:
        options["cert_reqs"] = "CERT_REQUIRED"
        options["ca_certs"] = (
            settings.cacert
            or os.environ.get("REQUESTS_CA_BUNDLE")
            or os.environ.get("CURL_CA_BUNDLE")
            or requests.adapters.DEFAULT_CA_BUNDLE_PATH
        )
    if proxy is None:
        return urllib3.PoolManager(**options)
    address = proxy if "://" in proxy else f"http://{proxy}"
    user, password = requests.utils.get_auth_from_url(address)
    headers = urllib3.make_headers(proxy_basic_auth=f"{user}:{password}") if user else None
    return urllib3.ProxyManager(address, proxy_headers=headers, **options)
