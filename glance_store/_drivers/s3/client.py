# SPDX-License-Identifier: Apache-2.0
"""The client of a store: made when it is first needed, one in each process, for all threads."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import logging
import os
import threading
from typing import TYPE_CHECKING, Any

from glance_store import exceptions
from glance_store._drivers.s3 import endpoint
from glance_store._drivers.s3.redaction import REDACTION
from glance_store.i18n import _

if TYPE_CHECKING:
    from glance_store._drivers.s3.endpoint import Endpoint
    from glance_store._drivers.s3.signing import Conditions

LOG = logging.getLogger(__name__)

_CHECKSUMS_OFF = "when_required"
# Idle connections kept, enough for some transfers at a time; more are opened when they are needed.
_POOL_SIZE = 64


@dataclasses.dataclass(frozen=True)
class Settings:
    """The options that the client obeys."""

    place: Endpoint
    access_key: str | None = dataclasses.field(repr=False)
    secret_key: str | None = dataclasses.field(repr=False)
    addressing: str
    authorities: str | None
    request_checksums: str
    response_checksums: str
    retry_mode: str
    attempts: int
    connect_timeout: int  # seconds
    read_timeout: int  # seconds
    proxies: dict[str, str] = dataclasses.field(repr=False)
    concurrency: int  # requests of one transfer in flight
    verifies_parts: bool = True  # whether the service can check what it gets
    knows_checksums: bool = True  # whether boto3 is new enough for the checksums

    @classmethod
    def of(cls, conf: Any) -> Settings:
        """Return the settings of a store.

        :param conf: its options as attributes
        :raises BadStoreConfiguration: there is no host
        """
        if not (conf.s3_store_host or "").strip():
            raise exceptions.BadStoreConfiguration(
                _("The option s3_store_host is not set: give it the address of the S3 service")
            )
        protected = conf.s3_store_enable_data_integrity_protection
        return cls(
            place=endpoint.parse(conf.s3_store_host, conf.s3_store_region_name or ""),
            access_key=conf.s3_store_access_key or None,
            secret_key=conf.s3_store_secret_key or None,
            addressing=conf.s3_store_bucket_url_format or "auto",
            authorities=conf.s3_store_cacert or None,
            request_checksums=(
                conf.s3_store_request_checksum_calculation if protected else _CHECKSUMS_OFF
            ),
            response_checksums=(
                conf.s3_store_response_checksum_validation if protected else _CHECKSUMS_OFF
            ),
            retry_mode=conf.s3_store_retry_mode,
            attempts=conf.s3_store_max_attempts,
            connect_timeout=conf.s3_store_connect_timeout,
            read_timeout=conf.s3_store_read_timeout,
            proxies={
                scheme: proxy if "://" in proxy else f"http://{proxy}"
                for scheme, proxy in (conf.s3_store_proxies or {}).items()
                if proxy
            },
            concurrency=max(conf.s3_store_thread_pools, conf.s3_store_read_concurrency),
            verifies_parts=conf.s3_store_verify_parts,
        )

    @property
    def extra_checksums(self) -> bool:
        """Whether uploads carry a checksum of the newer kind, beside which no other is needed."""
        return self.request_checksums != _CHECKSUMS_OFF

    @property
    def sends_md5(self) -> bool:
        """Whether a body is protected by its MD5.

        Without TLS its SHA-256 is part of the signature instead, which nobody can forge. With TLS
        nobody can change it on the way, and a checksum that the service stores with suffices.
        """
        return self.verifies_parts and self.place.secure and not self.extra_checksums

    @property
    def signs_payload(self) -> bool:
        """Whether the SHA-256 of a body is part of its signature."""
        return self.verifies_parts and not self.place.secure


@dataclasses.dataclass(frozen=True)
class Client:
    """A client of boto3, and what is known about the service."""

    s3: Any
    conditions: Conditions
    settings: Settings


class _Slot:
    """The client of one process."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.client: Client | None = None


class Clients:
    """Makes the client of a store.

    A forked child makes its own and leaves alone what it has inherited: two processes on one
    connection would get parts of each other's answers.

    :param settings: the options
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._by_process: dict[int, _Slot] = {}

    def current(self) -> Client:
        """Return the client of this process.

        :raises BadStoreConfiguration: boto3 is missing, or cannot work with the options
        """
        # A lock for each process: one that is held while another thread forks stays locked in the
        # child for ever. setdefault is atomic.
        slot = self._by_process.get(os.getpid()) or self._by_process.setdefault(
            os.getpid(), _Slot()
        )
        if slot.client is None:
            with slot.lock:
                if slot.client is None:
                    slot.client = make_client(self.settings)
        return slot.client


def load_boto3() -> Any:
    """Import boto3, which is needed only where there is an S3 store.

    :raises BadStoreConfiguration: it is not installed
    """
    try:
        boto3 = importlib.import_module("boto3")
    except ImportError as exc:
        raise exceptions.BadStoreConfiguration(
            _(
                "The S3 store needs the Python library boto3, which cannot be imported: "
                "pip install 'glance_store[s3]'"
            )
        ) from exc
    REDACTION.watch()
    return boto3


def new_session(settings: Settings) -> Any:
    """Return a session of boto3 with the credentials of the store.

    :param settings: the options
    """
    boto3 = load_boto3()
    import botocore.session

    REDACTION.hide(settings.access_key, settings.secret_key)
    below = botocore.session.get_session()
    below.register_component("data_loader", _descriptions())
    return boto3.session.Session(
        aws_access_key_id=settings.access_key,
        aws_secret_access_key=settings.secret_key,
        botocore_session=below,
    )


@functools.lru_cache(maxsize=1)
def _descriptions() -> Any:
    """Return what reads botocore's descriptions of services, and keeps them.

    Reading that of S3 is nearly all that making a client takes, 0.1 s of it. It is data without a
    state: every session, and every forked process, can use it.
    """
    import botocore.loaders

    return botocore.loaders.create_loader()


def check_credentials(settings: Settings) -> None:
    """Look for credentials, without using them.

    :param settings: the options
    :raises BadStoreConfiguration: there are none
    """
    if bool(settings.access_key) != bool(settings.secret_key):
        raise exceptions.BadStoreConfiguration(
            _(
                "Of the options s3_store_access_key and s3_store_secret_key only one is set: set "
                "both, or none to use the credentials of the environment"
            )
        )
    if settings.access_key:
        return
    try:
        found = new_session(settings).get_credentials() is not None
        problem = ""
    except exceptions.BadStoreConfiguration:
        raise
    except Exception as exc:  # noqa: BLE001 - a broken profile and a silent service alike
        found, problem = False, f" ({type(exc).__name__})"
    if not found:
        raise exceptions.BadStoreConfiguration(
            _(
                "The options s3_store_access_key and s3_store_secret_key are not set, and the "
                "environment, the profiles and the role of this host have no credentials%s: set "
                "the two options"
            )
            % problem
        )


def make_client(settings: Settings) -> Client:
    """Return a new client.

    :param settings: the options
    :raises BadStoreConfiguration: boto3 is missing, or cannot work with the options
    """
    session = new_session(settings)
    settings = _without_unknown(settings)
    # It comes with boto3, and may not be imported without it.
    from glance_store._drivers.s3 import errors, signing

    def build() -> Any:
        place = settings.place
        client = session.client(
            "s3",
            region_name=place.region,
            endpoint_url=place.url,
            use_ssl=place.secure,
            verify=settings.authorities,
            config=_config(settings),
        )
        REDACTION.watch()
        credentials = session.get_credentials()
        if credentials is not None:
            # Also those that the environment has; later ones have the form that is known.
            REDACTION.hide(*credentials.get_frozen_credentials())
        return client

    try:
        s3 = errors.guarded(build, "Making the S3 client")
    except exceptions.BackendException as exc:
        reason = str(exc)
    except ValueError:
        # An address that is none; the text quotes it.
        reason = _("the address in s3_store_host is not valid")
    else:
        return Client(s3, signing.adapt(s3), settings)
    raise exceptions.BadStoreConfiguration(reason)


def _config(settings: Settings) -> Any:
    from botocore.config import Config

    options: dict[str, Any] = {
        "s3": {
            "addressing_style": settings.addressing,
            "payload_signing_enabled": settings.signs_payload,
        },
        "signature_version": "s3v4",
        "retries": {"mode": settings.retry_mode, "total_max_attempts": settings.attempts},
        "connect_timeout": settings.connect_timeout,
        "read_timeout": settings.read_timeout,
        "max_pool_connections": max(_POOL_SIZE, 2 * settings.concurrency),
        "tcp_keepalive": True,
    }
    if settings.proxies:
        options["proxies"] = settings.proxies
    if settings.knows_checksums:
        options["request_checksum_calculation"] = settings.request_checksums
        options["response_checksum_validation"] = settings.response_checksums
    return Config(**options)


def _without_unknown(settings: Settings) -> Settings:
    """Return the settings without what the installed boto3 does not know."""
    from botocore.config import Config

    try:
        Config(request_checksum_calculation=_CHECKSUMS_OFF)
    except TypeError:
        if {settings.request_checksums, settings.response_checksums} != {_CHECKSUMS_OFF}:
            LOG.warning(
                "The installed boto3 does not know the checksums that "
                "s3_store_enable_data_integrity_protection asks for: images are transferred "
                "without them. Install boto3 1.36 or later"
            )
        return dataclasses.replace(
            settings,
            request_checksums=_CHECKSUMS_OFF,
            response_checksums=_CHECKSUMS_OFF,
            knows_checksums=False,
        )
    return settings
