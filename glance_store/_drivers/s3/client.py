# SPDX-License-Identifier: Apache-2.0
"""The client of a store: created on first use, one per process, shared by all threads."""

from __future__ import annotations

import dataclasses
import functools
import logging
import os
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any

from glance_store import exceptions
from glance_store._drivers import _uri
from glance_store._drivers._objects.claim import Feature, condition
from glance_store._drivers.s3 import endpoint
from glance_store._drivers.s3.redaction import REDACTION
from glance_store._drivers.s3.session import load_boto3, session_with_credentials
from glance_store.i18n import _
from glance_store.transfer.retry import Patience

if TYPE_CHECKING:
    from glance_store._drivers.s3.endpoint import Endpoint

LOG = logging.getLogger(__name__)

_CHECKSUMS_OFF = "when_required"
# Idle connections to keep, enough for some transfers at once; more are opened when needed.
_POOL_SIZE = 64
# Seconds before looking again for credentials that were not found.
_PAUSE = 10.0


@dataclasses.dataclass(frozen=True)
class Settings:
    """The options that the client uses."""

    endpoint: Endpoint
    access_key: str | None = dataclasses.field(repr=False)
    secret_key: str | None = dataclasses.field(repr=False)
    addressing: str
    authorities: str | None
    request_checksums: str
    response_checksums: str
    patience: float  # seconds
    attempts: int | None  # at most
    payer: str
    connect_timeout: int  # seconds
    read_timeout: int  # seconds
    proxies: dict[str, str] = dataclasses.field(repr=False)
    concurrency: int  # requests of one transfer in flight
    verifies_parts: bool = True  # whether the service checks each part
    knows_checksums: bool = True  # whether boto3 is new enough for the checksums

    @classmethod
    def of(cls, conf: Any) -> Settings:
        """Return the settings of a store; raise BadStoreConfiguration if no host is set."""
        if not (conf.s3_store_host or "").strip():
            raise exceptions.BadStoreConfiguration(
                _("The option s3_store_host is not set: give it the address of the S3 service")
            )
        protected = conf.s3_store_enable_data_integrity_protection
        return cls(
            endpoint=endpoint.parse(conf.s3_store_host, conf.s3_store_region_name or ""),
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
            patience=conf.s3_store_retry_timeout,
            attempts=conf.s3_store_max_attempts,
            payer=conf.s3_store_request_payer or "",
            connect_timeout=conf.s3_store_connect_timeout,
            read_timeout=conf.s3_store_read_timeout,
            proxies=_proxies(conf.s3_store_proxies or {}),
            concurrency=max(conf.s3_store_thread_pools, conf.s3_store_read_concurrency),
            verifies_parts=conf.s3_store_verify_parts,
        )

    def reaches_the_same(self, other: Settings) -> bool:
        """Tell whether another store uses the same service with the same key."""
        mine, theirs = (
            (
                one.endpoint.secure,
                one.endpoint.host,
                one.endpoint.region,
                one.access_key,
                one.secret_key,
            )
            for one in (self, other)
        )
        return mine == theirs

    def new_patience(self, in_all: bool = False) -> Patience:
        """Return the patience for a new transfer or a clean-up."""
        return Patience(self.patience, in_all, None if self.attempts is None else self.attempts - 1)

    @property
    def verifies_downloads(self) -> bool:
        """Whether to verify the checksum of an object while reading it."""
        return self.response_checksums != _CHECKSUMS_OFF

    @property
    def sends_checksum(self) -> bool:
        """Whether a body carries a checksum that the service stores.

        Without TLS, the signature covers the SHA-256 of the body instead, which nobody can forge.
        With TLS, nobody can change the body in transit, and a checksum is enough.
        """
        asked = self.request_checksums != _CHECKSUMS_OFF
        return asked or (self.verifies_parts and self.endpoint.secure)

    @property
    def signs_payload(self) -> bool:
        """Whether the signature covers the SHA-256 of the body."""
        return self.verifies_parts and not self.endpoint.secure


def _proxies(option: dict[str, str]) -> dict[str, str]:
    """Return the URL of the proxy for each scheme."""
    proxies = {
        scheme: proxy if "://" in proxy else f"http://{proxy}"
        for scheme, proxy in option.items()
        if proxy
    }
    for scheme, proxy in proxies.items():
        # Up to the first slash, as the client library reads it; it would fail with each request.
        if not _uri.is_host(proxy.partition("://")[2].partition("/")[0].rpartition("@")[2]):
            raise exceptions.BadStoreConfiguration(
                _(
                    "The address of the proxy for %s in s3_store_proxies is not valid; in a user "
                    "name or password, a slash is written %%2F"
                )
                % scheme
            )
    return proxies


class Client:
    """A boto3 client, and what is known about the service.

    `lacking` says why it has no credentials; such a client must not be used.
    """

    def __init__(self, s3: Any, settings: Settings, lacking: str = "") -> None:
        self.s3 = s3
        self.settings = settings
        self.lacking = lacking
        self.condition = condition(f"S3 service at {settings.endpoint.shown}")
        self.checksum = Feature(
            settings.sends_checksum,
            f"The S3 service at {settings.endpoint.shown} does not support the newer checksums: "
            "images are sent with Content-MD5",
        )
        # Learned from its refusals.
        self.wants_md5 = False


class _Slot:
    """The client of one process."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.client: Client | None = None
        self.lacking = ""
        self.look_again = 0.0  # on the monotonic clock


class Clients:
    """Creates the client of a store.

    A forked child creates its own and leaves the inherited one alone: two processes on one
    connection would get parts of each other's responses.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._slot = _Slot()
        _EVERY.add(self)

    def current(self) -> Client:
        """Return the client of this process.

        Raises BadStoreConfiguration if boto3 is missing or rejects the options, or if there are no
        credentials; those are looked for again after a pause.
        """
        slot = self._slot
        if slot.client is None:
            with slot.lock:
                if slot.client is None:
                    slot.client = self._new(slot)
        return slot.client

    def _new(self, slot: _Slot) -> Client:
        # Looking can take seconds, while every other caller waits: do not look each time.
        if not slot.lacking or time.monotonic() >= slot.look_again:
            client = make_client(self.settings)
            slot.lacking = client.lacking
            if not client.lacking:
                return client
            client.s3.close()
            slot.look_again = time.monotonic() + _PAUSE
        raise exceptions.BadStoreConfiguration(
            _(
                "No credentials found (%s): set s3_store_access_key and s3_store_secret_key, or "
                "give the service a role or a profile"
            )
            % slot.lacking
        )

    def forget(self) -> None:
        """Start over in a forked process."""
        # Keep the old client alive: destroying it takes the locks of its connection pools, and a
        # thread that does not exist in this process may hold one for ever.
        _INHERITED.append(self._slot)
        self._slot = _Slot()


_EVERY: weakref.WeakSet[Clients] = weakref.WeakSet()
_INHERITED: list[_Slot] = []


def _forget_all() -> None:
    for clients in _EVERY:
        clients.forget()


os.register_at_fork(after_in_child=_forget_all)


def make_client(settings: Settings) -> Client:
    """Return a new client; it lacks credentials if none are available now.

    Raises BadStoreConfiguration if boto3 is missing or rejects the options.
    """
    load_boto3()
    # These import botocore, which comes with boto3.
    from glance_store._drivers.s3 import errors, signing

    settings = _without_unknown(settings)

    def build() -> Client:
        session, lacking = session_with_credentials(settings)
        service = settings.endpoint
        s3 = session.client(
            "s3",
            region_name=service.region,
            endpoint_url=service.url,
            use_ssl=service.secure,
            verify=settings.authorities,
            config=_config(settings),
        )
        REDACTION.watch()
        _apply_send_timeout(s3, settings.read_timeout)
        signing.adapt(s3, settings.payer)
        return Client(s3, settings, lacking)

    try:
        return errors.guarded(build, "Creating the S3 client")
    except exceptions.BadStoreConfiguration:
        raise
    except (exceptions.GlanceStoreException, exceptions.BackendException) as exc:
        reason = str(exc)
    except ValueError:
        # The address is invalid, and the text quotes it.
        reason = _("the address in s3_store_host is not valid")
    raise exceptions.BadStoreConfiguration(reason)


def _apply_send_timeout(s3: Any, seconds: float) -> None:
    """Apply the read timeout while sending, too."""
    from glance_store._drivers._patience import patient, with_connections

    # Botocore has no option for this. A release that keeps its pools elsewhere is left alone.
    session = getattr(getattr(s3, "_endpoint", None), "http_session", None)
    pools = getattr(session, "_pool_classes_by_scheme", {})
    for scheme, pool in list(pools.items()):
        pools[scheme] = with_connections(pool, patient(seconds))


def _config(settings: Settings) -> Any:
    from botocore.config import Config

    options: dict[str, Any] = {
        "s3": {
            "addressing_style": settings.addressing,
            "payload_signing_enabled": settings.signs_payload,
            # A profile may have it for other programs; it excludes an address.
            "use_accelerate_endpoint": False,
        },
        "signature_version": "s3v4",
        # The engine does all retries: limited in seconds, and stopped with the transfer.
        "retries": {"mode": "standard", "total_max_attempts": 1},
        "connect_timeout": settings.connect_timeout,
        "read_timeout": settings.read_timeout,
        "max_pool_connections": max(_POOL_SIZE, 2 * settings.concurrency),
    }
    if settings.proxies:
        options["proxies"] = settings.proxies
    if settings.knows_checksums:
        options["request_checksum_calculation"] = settings.request_checksums
        options["response_checksum_validation"] = settings.response_checksums
    if _is_known("ignore_configured_endpoint_urls"):
        # The options decide where the images are, not the environment.
        options["ignore_configured_endpoint_urls"] = True
    return Config(**options)


def _is_known(option: str) -> bool:
    """Tell whether the installed botocore has an option of `Config`."""
    from botocore.config import Config

    try:
        Config(**{option: None})
    except TypeError:
        return False
    return True


def _without_unknown(settings: Settings) -> Settings:
    """Return the settings without what the installed boto3 does not support."""
    if _is_known("request_checksum_calculation"):
        return settings
    if {settings.request_checksums, settings.response_checksums} != {_CHECKSUMS_OFF}:
        _warn_of_missing_checksums()
    return dataclasses.replace(
        settings,
        request_checksums=_CHECKSUMS_OFF,
        response_checksums=_CHECKSUMS_OFF,
        knows_checksums=False,
    )


@functools.lru_cache(maxsize=1)
def _warn_of_missing_checksums() -> None:
    """Warn the operator, once per process."""
    LOG.warning(
        "The installed boto3 does not support the checksums that "
        "s3_store_enable_data_integrity_protection asks for: images are transferred without them. "
        "Install boto3 1.36 or later"
    )
