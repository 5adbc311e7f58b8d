# SPDX-License-Identifier: Apache-2.0
"""The read-only store for images on web servers."""

from __future__ import annotations

import importlib.util
import logging
import urllib.request
from typing import TYPE_CHECKING, Any, cast

from glance_store import capabilities, driver, exceptions
from glance_store._drivers._network import check_authorities
from glance_store._drivers.http import headers as parsing
from glance_store._drivers.http.client import Client, UnansweredError, refusal
from glance_store._drivers.http.errors import ServerInTrouble, TransferInterrupted
from glance_store._drivers.http.location import SCHEMES, StoreLocation
from glance_store._drivers.http.options import OPTIONS
from glance_store._drivers.http.reader import COMPLETE, HTTPReader
from glance_store._drivers.http.session import Sessions, Settings, is_proxy
from glance_store.i18n import _
from glance_store.transfer.retry import PASSING, Patience, ResumingReader

if TYPE_CHECKING:
    from glance_store.location import Location
    from glance_store.transfer.interface import ImageReader

LOG = logging.getLogger(__name__)


class Store(driver.Store):
    """Reads images from web servers; it cannot add or delete them.

    Ranges are read where the server can send part of a file, and refused with
    StoreRandomGetNotSupported where it cannot. A broken download is resumed if the server allows
    that and the file is unchanged; it never ends early without an error. The size is 0 when the
    server does not send it, as with chunked responses.
    """

    _CAPABILITIES: int = capabilities.BitMasks.READ_RANDOM | capabilities.BitMasks.DRIVER_REUSABLE
    OPTIONS = OPTIONS

    def __init__(self, conf: Any, backend: str | None = None) -> None:
        super().__init__(conf, backend)
        self._sessions = Sessions()

    def get_schemes(self) -> tuple[str, ...]:
        return SCHEMES

    def configure_add(self) -> None:
        """Set the location prefix, and warn about missing protection."""
        # Matches https as well.
        self._url_prefix = "http"
        settings = Settings.of(self.store_conf)
        for problem in self._problems(settings):
            LOG.error("Store %s: %s", self.name, problem)
        if settings.verify is False:
            LOG.warning(
                "Store %s: the certificates of https servers are not verified, so images can be "
                "replaced in transit. Set https_insecure to False, or name the authorities in "
                "https_ca_certificates_file",
                self.name,
            )
        proxies = {*settings.proxies, *urllib.request.getproxies_environment()}
        if proxies & {*SCHEMES, "all"} and settings.targets.disallowed.networks:
            LOG.warning(
                "Store %s: the proxy in http_proxy_information or the environment resolves names "
                "itself, so it must exclude the networks in http_store_disallowed_hosts as well",
                self.name,
            )

    def check_health(self) -> str:
        """Check the certificates and proxies; which servers hold the images is unknown."""
        problems = self._problems(Settings.of(self.store_conf))
        if problems:
            reason = "; ".join(problems)
            raise exceptions.BadStoreConfiguration(store_name=self.name, reason=reason)
        return super().check_health()

    def _problems(self, settings: Settings) -> list[str]:
        """Return the mistakes that make images unreadable on any server."""
        problems = []
        path = self.store_conf.https_ca_certificates_file
        try:
            if path:
                check_authorities(path)
        except OSError as exc:
            problems.append(
                "images on https servers cannot be read: the certificates in "
                f"https_ca_certificates_file {path} cannot be loaded ({exc.strerror or exc})"
            )
        for scheme, proxy in settings.proxies.items():
            if scheme not in (*SCHEMES, "all"):
                problems.append(
                    f"http_proxy_information has a proxy for '{scheme}', which is not http, "
                    "https or all: no image is read through it"
                )
            if not is_proxy(proxy):
                # Without the address: it may contain a password.
                problems.append(
                    f"the proxy for {scheme} in http_proxy_information is not a valid address "
                    "such as http://10.0.0.1:3128; images behind it cannot be read"
                )
            elif proxy.startswith("socks") and importlib.util.find_spec("socks") is None:
                problems.append(
                    f"the proxy for {scheme} in http_proxy_information needs the Python package "
                    "PySocks; images behind it cannot be read"
                )
        return problems

    def open_reader(self, location: Location, context: Any = None) -> ImageReader:
        """Open an image: send the first request, and resume the download when it breaks off."""
        return self.open_range(location, 0, None, context)

    def open_range(
        self, location: Location, offset: int, length: int | None, context: Any = None
    ) -> ImageReader:
        """Open a range of an image; the first request asks for exactly that."""
        client, target = self._client(), _web_location(location)
        patience = Patience(client.settings.retry_timeout)
        reader = patience.call(lambda: HTTPReader(client, target, offset, length), _may_pass)
        return ResumingReader(reader, patience, transient=(TransferInterrupted,))

    def get_size(self, location: Location, context: Any = None) -> int:
        """Return the size of an image, 0 when the server does not send it."""
        target, client = _web_location(location), self._client()

        def ask() -> int:
            # Some servers refuse HEAD (even with 404, when a URL is signed for GET), omit the
            # length, or never respond to it: then ask for the first byte. Others refuse that, too.
            size = _size(client, target, "HEAD", {}) or _size(
                client, target, "GET", {"Range": "bytes=0-0"}
            )
            return (_size(client, target, "GET", {}) if size is None else size) or 0

        return Patience(client.settings.retry_timeout).call(ask, _may_pass)

    def _client(self) -> Client:
        return Client(self._sessions, Settings.of(self.store_conf))


def _may_pass(error: Exception) -> bool:
    # Not a server that cannot be reached: other locations of the image come first.
    return isinstance(error, ServerInTrouble)


def _web_location(location: Location) -> StoreLocation:
    return cast("StoreLocation", location.store_location)


def _size(
    client: Client, target: StoreLocation, method: str, headers: dict[str, str]
) -> int | None:
    """Ask once for the size; 0 if the server does not send it, None if it may do so otherwise."""
    action = _("Asking for the size of %s") % target.shown
    try:
        response, _server = client.fetch(method, target, headers, action, exceptions.BadStoreUri)
    except UnansweredError:
        return None
    try:
        status = response.status_code
        if status == 206:
            return parsing.content_range(response.headers).total or 0
        if status == 416:
            return parsing.unsatisfied_total(response.headers)
        if status in COMPLETE:
            part = parsing.part_sent(response.headers)
            return (parsing.content_length(response.headers) if part is None else part.total) or 0
        if method == "HEAD" or ("Range" in headers and status not in (404, *PASSING)):
            return None
        raise refusal(response, target)
    except ValueError as exc:
        if method == "HEAD":
            return None
        problem = str(exc)
    finally:
        response.close()
    raise exceptions.BadStoreUri(
        _(
            "The web server of %(uri)s does not follow the HTTP protocol: its %(header)s "
            "header is wrong"
        ),
        uri=target.shown,
        header=problem,
    )
