# SPDX-License-Identifier: Apache-2.0
"""The store that reads images from web servers, where somebody else has put them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, cast

from glance_store import capabilities, driver, exceptions
from glance_store._drivers.http import headers as parsing
from glance_store._drivers.http.client import Client, UnansweredError, refusal
from glance_store._drivers.http.errors import TransferInterrupted
from glance_store._drivers.http.location import SCHEMES, StoreLocation
from glance_store._drivers.http.options import OPTIONS
from glance_store._drivers.http.reader import COMPLETE, HTTPReader
from glance_store._drivers.http.session import Sessions, Settings, check_authorities, is_proxy
from glance_store.i18n import _
from glance_store.transfer.retry import Patience, ResumingReader

if TYPE_CHECKING:
    from glance_store.location import Location
    from glance_store.transfer.interface import ImageReader

LOG = logging.getLogger(__name__)


class Store(driver.Store):
    """Reads images from web servers; they cannot be added or deleted.

    Ranges are read where the server can send a part of a file, and refused with
    StoreRandomGetNotSupported where it cannot. A download that breaks off is resumed if the server
    can do that and the file is still the same; it never ends early without an error. The size is 0
    when the server does not say it, as with chunked answers.
    """

    _CAPABILITIES: int = capabilities.BitMasks.READ_RANDOM | capabilities.BitMasks.DRIVER_REUSABLE
    OPTIONS = OPTIONS

    def __init__(self, conf: Any, backend: str | None = None) -> None:
        super().__init__(conf, backend)
        self._sessions = Sessions()

    def get_schemes(self) -> tuple[str, ...]:
        """Return the URI schemes that the store serves."""
        return SCHEMES

    def configure_add(self) -> None:
        """Set the prefix of the locations, and tell the operator about missing protection."""
        # Also the beginning of https.
        self._url_prefix = "http"
        settings = Settings.of(self.store_conf)
        for problem in self._problems(settings):
            LOG.error("Store %s: %s", self.name, problem)
        if settings.verify is False:
            LOG.warning(
                "Store %s: the certificates of https servers are not verified, so that images can "
                "be replaced on the way. Set https_insecure to False, or name the authorities in "
                "https_ca_certificates_file",
                self.name,
            )
        if settings.proxies and settings.targets.disallowed.networks:
            LOG.warning(
                "Store %s: a proxy looks the names up itself, so that the networks in "
                "http_store_disallowed_hosts have to be excluded by the proxy in "
                "http_proxy_information as well",
                self.name,
            )

    def check_health(self) -> str:
        """Look whether there is what requests need; which servers they go to, nobody knows.

        :returns: a few words
        :raises BadStoreConfiguration: the certificates cannot be loaded, or a proxy is no address
        """
        problems = self._problems(Settings.of(self.store_conf))
        if problems:
            reason = "; ".join(problems)
            raise exceptions.BadStoreConfiguration(store_name=self.name, reason=reason)
        return super().check_health()

    def _problems(self, settings: Settings) -> list[str]:
        """Return what keeps some images from being read, whatever the servers do."""
        problems = []
        path = self.store_conf.https_ca_certificates_file
        try:
            if path:
                check_authorities(path)
        except OSError as exc:
            problems.append(
                "images on https servers cannot be read: https_ca_certificates_file is "
                f"{path}, and its certificates cannot be loaded ({exc.strerror or exc})"
            )
        for scheme, proxy in settings.proxies.items():
            if scheme not in (*SCHEMES, "all"):
                problems.append(
                    f"http_proxy_information has a proxy for '{scheme}', which is no scheme of web "
                    "servers (http, https, all): no image is read through it"
                )
            if not is_proxy(proxy):
                # Without the address: it may hold a password.
                problems.append(
                    f"the proxy for {scheme} in http_proxy_information is not a valid address such "
                    "as http://10.0.0.1:3128; what needs it cannot be read"
                )
        return problems

    def open_reader(self, location: Location, context: Any = None) -> ImageReader:
        """Open an image.

        :param location: where it is
        :param context: of no use here
        :returns: the reader, which has sent its first request and resumes what breaks off
        :raises NotFound: the server has no such file
        :raises BadStoreUri: the server answers, but not with the file
        :raises RemoteServiceUnavailable: the server cannot be reached
        :raises MaxRedirectsExceeded: the server redirects too often
        """
        return self.open_range(location, 0, None, context)

    def open_range(
        self, location: Location, offset: int, length: int | None, context: Any = None
    ) -> ImageReader:
        """Open an image for a range, which the first request asks for.

        :param location: where it is
        :param offset: first byte
        :param length: bytes, None for all that follow
        :param context: of no use here
        :returns: the reader, which has sent its first request and resumes what breaks off
        :raises StoreRandomGetNotSupported: the server cannot send a part of a file
        """
        client = self._client()
        reader = HTTPReader(client, _place(location), offset, length)
        patience = Patience(client.settings.patience)
        return ResumingReader(reader, patience, transient=(TransferInterrupted,))

    def get_size(self, location: Location, context: Any = None) -> int:
        """Return the bytes of an image.

        :param location: where it is
        :param context: of no use here
        :returns: bytes, 0 when the server does not say
        :raises NotFound: the server has no such file
        :raises BadStoreUri: the server cannot be reached, or answers with an error
        :raises MaxRedirectsExceeded: the server redirects too often
        """
        place, client = _place(location), self._client()
        # A server may refuse HEAD, even say that there is no such file, when the signature of a URL
        # is for GET; or answer it without the length, or not at all. Then the first byte is asked
        # for.
        return _size(client, place, "HEAD", {}) or _size(
            client, place, "GET", {"Range": "bytes=0-0"}
        )

    def _client(self) -> Client:
        return Client(self._sessions, Settings.of(self.store_conf))


def _place(location: Location) -> StoreLocation:
    return cast("StoreLocation", location.store_location)


def _size(client: Client, place: StoreLocation, method: str, headers: dict[str, str]) -> int:
    """Return the bytes of a file; 0 if the server does not say, or refuses HEAD."""
    action = _("Asking for the size of %s") % place.shown
    try:
        response, _server = client.fetch(method, place, headers, action, exceptions.BadStoreUri)
    except UnansweredError:
        return 0
    try:
        status = response.status_code
        if status == 206:
            return parsing.content_range(response.headers).total or 0
        if status == 416:
            return parsing.unsatisfied_total(response.headers) or 0
        if status in COMPLETE:
            return parsing.content_length(response.headers) or 0
        if method == "HEAD" and (400 <= status < 500 or status == 501):
            return 0
        raise refusal(response, place)
    except ValueError as exc:
        problem = str(exc)
    finally:
        response.close()
    raise exceptions.BadStoreUri(
        _("The web server of %(uri)s does not follow the HTTP protocol: its %(header)s is wrong"),
        uri=place.shown,
        header=problem,
    )
