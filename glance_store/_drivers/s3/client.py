# SPDX-License-Identifier: Apache-2.0
"""The client of a store: created on first use, one per process, shared by all threads."""

from __future__ import annotations

import dataclasses
import datetime
import functools
import importlib
import logging
import os
import ssl
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any

from glance_store import exceptions
from glance_store._drivers import _uri
from glance_store._drivers._network import in_words
from glance_store._drivers._objects.claim import Feature, condition
from glance_store._drivers.s3 import endpoint
from glance_store._drivers.s3.redaction import REDACTION
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
# Seconds before reading again a file with credentials, and those for which botocore may put it off.
_REREAD = 60.0
_SPARE = 3600
# botocore's names of such files.
_FILES = ("shared-credentials-file", "config-file")


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


def load_boto3() -> Any:
    """Import boto3, which only S3 stores need; raise BadStoreConfiguration if it is missing."""
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


def new_session(settings: Settings, looking: bool = True) -> Any:
    """Return a boto3 session with the credentials of the store.

    With `looking`, it also searches for credentials that the options lack.
    """
    boto3 = load_boto3()
    import botocore.credentials
    import botocore.session

    REDACTION.hide(settings.access_key, settings.secret_key)
    below = botocore.session.get_session()
    below.register_component("data_loader", _descriptions())
    below.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=_parse_time)
    if not looking:
        nowhere = botocore.credentials.CredentialResolver(providers=[])
        below.register_component("credential_provider", nowhere)
    elif not settings.access_key:
        found = _RereadFiles(below.get_component("credential_provider"))
        below.register_component("credential_provider", found)
    return boto3.session.Session(
        aws_access_key_id=settings.access_key,
        aws_secret_access_key=settings.secret_key,
        botocore_session=below,
    )


class _RereadFiles:
    """Finds credentials like `resolver`, and reads those in a file again from time to time.

    botocore reads a file once, but something may replace its keys before they expire.
    """

    def __init__(self, resolver: Any) -> None:
        self._resolver = resolver

    def load_credentials(self) -> Any:
        """Return the credentials, or None."""
        from botocore.credentials import RefreshableCredentials

        found = self._resolver.load_credentials()
        if found is None or found.method not in _FILES:
            return found
        known, file = found, self._resolver.get_provider(found.method)

        def read() -> dict[str, Any]:
            nonlocal known
            try:
                known = file.load() or known
            except Exception as exc:  # noqa: BLE001 - the file may be half written
                LOG.warning("Cannot read the S3 credentials again: %s", type(exc).__name__)
            REDACTION.hide(known.access_key, known.secret_key, known.token)
            now = datetime.datetime.now(datetime.timezone.utc)
            return {
                "access_key": known.access_key,
                "secret_key": known.secret_key,
                "token": known.token,
                "expiry_time": (now + datetime.timedelta(seconds=_REREAD + _SPARE)).isoformat(),
            }

        return RefreshableCredentials.create_from_metadata(
            read(), read, found.method, advisory_timeout=_SPARE, mandatory_timeout=0
        )


def _parse_time(value: Any) -> datetime.datetime:
    """Return the time in a response; a distant one if it cannot be parsed.

    botocore would fail on it, for example on the Last-Modified of a perfectly readable image.
    """
    import botocore.utils

    try:
        moment: datetime.datetime = botocore.utils.parse_timestamp(value)
    except (ValueError, TypeError, OverflowError):
        # In the future, so that nothing looks old enough to be removed.
        return datetime.datetime.max.replace(tzinfo=datetime.timezone.utc)
    return moment


@functools.lru_cache(maxsize=1)
def _descriptions() -> Any:
    """Return the loader of botocore's service descriptions, which caches them.

    Loading the one for S3 takes 0.1 s, nearly all the time it takes to create a client. The loader
    has no state, so that every session and every forked process can use it.
    """
    import botocore.loaders

    return botocore.loaders.create_loader()


def check_authorities(settings: Settings) -> None:
    """Raise BadStoreConfiguration if the certificates of the authorities cannot be loaded."""
    if not settings.authorities or not settings.endpoint.secure:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(settings.authorities)
    except OSError as exc:
        raise exceptions.BadStoreConfiguration(
            _("s3_store_cacert names %(file)s, which is not a file with certificates: %(cause)s")
            % {"file": settings.authorities, "cause": in_words(exc)}
        ) from exc


def check_credentials(settings: Settings) -> None:
    """Look for credentials without using them; raise BadStoreConfiguration if there are none.

    If a configured provider does not answer, only log a warning: it may start later than this
    process.
    """
    if bool(settings.access_key) != bool(settings.secret_key):
        raise exceptions.BadStoreConfiguration(
            _(
                "Only one of s3_store_access_key and s3_store_secret_key is set: set both, or "
                "neither to use the credentials of the environment"
            )
        )
    if settings.access_key:
        return
    try:
        found = new_session(settings).get_credentials() is not None
        problem = ""
    except exceptions.BadStoreConfiguration:
        raise
    except Exception as exc:  # noqa: BLE001 - a broken profile and an unknown one alike
        problem = _passing_problem(exc)
        if problem:
            LOG.warning(
                "The credentials of the S3 store are not available now (%s); the store looks "
                "again when it needs them",
                problem,
            )
            return
        found, problem = False, f" ({type(exc).__name__})"
    if not found:
        raise exceptions.BadStoreConfiguration(
            _(
                "The options s3_store_access_key and s3_store_secret_key are not set, and no "
                "credentials were found in the environment, the profiles or the role of this "
                "host%s: set both options"
            )
            % problem
        )


def _passing_problem(exc: Exception) -> str:
    """Return why credentials are missing for now; empty if waiting does not help."""
    import botocore.exceptions

    if isinstance(exc, botocore.exceptions.CredentialRetrievalError):
        # Leave out its text, which quotes the output of a program.
        return f"{exc.kwargs.get('provider')}: {type(exc).__name__}"
    return ""


def make_client(settings: Settings) -> Client:
    """Return a new client; it lacks credentials if none are available now.

    Raises BadStoreConfiguration if boto3 is missing or rejects the options.
    """
    load_boto3()
    # These import botocore, which comes with boto3.
    from glance_store._drivers.s3 import errors, signing

    settings = _without_unknown(settings)

    def build() -> Client:
        session, lacking = _session_with_credentials(settings)
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


def _session_with_credentials(settings: Settings) -> tuple[Any, str]:
    """Return a session, and why it has no credentials if so."""
    from glance_store._drivers.s3 import errors

    session = new_session(settings)
    try:
        credentials = session.get_credentials()
    except Exception as exc:
        problem = _passing_problem(exc)
        if not problem:
            raise
        return new_session(settings, looking=False), problem
    if credentials is None:
        return session, _("none were found")
    try:
        # This fetches the credentials of an assumed role; botocore renews them before they expire.
        known = errors.guarded(credentials.get_frozen_credentials, "Assuming the role of the store")
    except exceptions.RemoteServiceUnavailable as exc:
        LOG.warning("The credentials of the S3 store are not available now (%s)", exc)
    else:
        # Hide credentials from the environment as well; later ones match the known patterns.
        REDACTION.hide(*known[:3])
    return session, ""


def _apply_send_timeout(s3: Any, seconds: float) -> None:
    """Apply the read timeout while sending, too."""
    from glance_store._drivers._patience import patient

    # Botocore has no option for this. A release that keeps its pools elsewhere is left alone.
    session = getattr(getattr(s3, "_endpoint", None), "http_session", None)
    pools = getattr(session, "_pool_classes_by_scheme", {})
    for scheme, pool in list(pools.items()):
        pools[scheme] = patient(pool, seconds)


def _config(settings: Settings) -> Any:
    from botocore.config import Config

    options: dict[str, Any] = {
        "s3": {
            "addressing_style": settings.addressing,
            "payload_signing_enabled": settings.signs_payload,
        },
        "signature_version": "s3v4",
        # The engine does all retries: limited in seconds, and stopped with the transfer.
        "retries": {"mode": "standard", "total_max_attempts": 1},
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
