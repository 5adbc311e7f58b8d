# SPDX-License-Identifier: Apache-2.0
"""A small client of Glance's HTTP API."""

from __future__ import annotations

import contextlib
import json
import socket
import time
import urllib.parse
from typing import TYPE_CHECKING, Any

import requests

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from typing_extensions import Self

REQUEST_SECONDS = 60.0
WAIT_SECONDS = 60.0
POLL_SECONDS = 0.05

Image = dict[str, Any]


class GlanceClient:
    """Talks to a Glance that believes the identity headers of a request, or that asks Keystone.

    :param url: where its API listens
    :param roles: roles of the caller, separated by commas
    :param project: project of the caller, the owner of the images it creates
    :param token: of Keystone, which knows the roles and the project; None: it is not asked
    """

    def __init__(
        self,
        url: str,
        *,
        roles: str = "admin,member,reader",
        project: str = "a-project",
        token: str | None = None,
    ) -> None:
        self.url = url
        if token is not None:
            self.identity = {"X-Auth-Token": token}
        else:
            self.identity = {
                "X-Identity-Status": "Confirmed",
                "X-User-Id": f"user-of-{project}",
                "X-Project-Id": project,
                "X-Roles": roles,
            }
        self._session = requests.Session()
        self._session.trust_env = False  # a proxy of the caller must not see loopback requests
        self._session.headers.update(self.identity)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._session.close()

    def request(
        self, method: str, path: str, *, expect: int | None = None, **arguments: Any
    ) -> requests.Response:
        """Send one request.

        :param path: what follows `/v2/`
        :param expect: the only status code that is right; None: any
        :param arguments: passed on to requests
        """
        arguments.setdefault("timeout", REQUEST_SECONDS)
        response = self._session.request(method, f"{self.url}/v2/{path}", **arguments)
        if expect is not None:
            told = f"{method} {path}: {response.status_code} {response.text[:500]}"
            assert response.status_code == expect, told
        return response

    # -- images

    def create(self, name: str, **properties: Any) -> str:
        """Create an image without data and return its id."""
        body = {"name": name, "disk_format": "raw", "container_format": "bare", **properties}
        created: Image = self.request("POST", "images", json=body, expect=201).json()
        return str(created["id"])

    def show(self, image_id: str) -> Image:
        """Return an image's record."""
        record: Image = self.request("GET", f"images/{image_id}", expect=200).json()
        return record

    def patch(
        self, image_id: str, *changes: dict[str, Any], expect: int | None = 200
    ) -> requests.Response:
        """Change an image's record by a JSON patch."""
        headers = {"Content-Type": "application/openstack-images-v2.1-json-patch"}
        body = json.dumps(changes)
        path = f"images/{image_id}"
        return self.request("PATCH", path, data=body, headers=headers, expect=expect)

    def delete(self, image_id: str) -> None:
        """Delete an image."""
        self.request("DELETE", f"images/{image_id}", expect=204)

    def delete_from_store(
        self, image_id: str, store: str, *, expect: int = 204
    ) -> requests.Response:
        """Delete an image's data from one of its stores."""
        return self.request("DELETE", f"stores/{store}/{image_id}", expect=expect)

    def wait_for(self, image_id: str, is_so: Callable[[Image], bool]) -> Image:
        """Wait until an image's record fulfils a condition, and return it."""
        deadline = time.monotonic() + WAIT_SECONDS
        while not is_so(image := self.show(image_id)):
            assert time.monotonic() < deadline, f"waited in vain, the image is {image}"
            time.sleep(POLL_SECONDS)
        return image

    def wait_for_status(self, image_id: str, status: str) -> Image:
        """Wait until an image has a status, and return its record."""
        return self.wait_for(image_id, lambda image: bool(image["status"] == status))

    # -- image data

    def upload(
        self,
        image_id: str,
        data: bytes | Iterator[bytes],
        *,
        store: str | None = None,
        expect: int | None = 204,
    ) -> requests.Response:
        """Upload an image's data.

        :param data: bytes, sent with their length, or an iterator, sent in chunks
        :param store: None: the default store
        """
        return self._put(f"images/{image_id}/file", data, store, expect)

    def stage(self, image_id: str, data: bytes | Iterator[bytes], *, expect: int = 204) -> None:
        """Upload an image's data into the staging store."""
        self._put(f"images/{image_id}/stage", data, None, expect)

    def _put(
        self, path: str, data: bytes | Iterator[bytes], store: str | None, expect: int | None
    ) -> requests.Response:
        headers = {"Content-Type": "application/octet-stream"}
        if store is not None:
            headers["X-Image-Meta-Store"] = store
        return self.request("PUT", path, data=data, headers=headers, expect=expect)

    def download(
        self,
        image_id: str,
        *,
        byte_range: str | None = None,
        prefer: str | None = None,
        expect: int | None = None,
    ) -> requests.Response:
        """Download an image's data.

        :param byte_range: the value of a Range header
        :param prefer: store to read from
        :param expect: status code; None: 200, or 206 with a Range header
        """
        headers = {} if byte_range is None else {"Range": byte_range}
        parameters = {} if prefer is None else {"prefer": prefer}
        usual = 200 if byte_range is None else 206
        return self.request(
            "GET",
            f"images/{image_id}/file",
            headers=headers,
            params=parameters,
            expect=usual if expect is None else expect,
        )

    def begin_upload(
        self, image_id: str, store: str, announced: int | None, data: bytes
    ) -> socket.socket:
        """Begin an upload whose end never comes; close the socket to interrupt it.

        :param announced: the length that the request announces; None: it is sent in chunks
        :param data: what is sent of it
        :return: the connection, once Glance is storing the image
        """
        host, _, port = urllib.parse.urlsplit(self.url).netloc.partition(":")
        headers = {**self.identity, "Content-Type": "application/octet-stream"}
        headers["X-Image-Meta-Store"] = store
        if announced is None:
            headers["Transfer-Encoding"] = "chunked"
            # uWSGI takes chunks of up to 1 MiB.
            parts = [data[start : start + 65536] for start in range(0, len(data), 65536)]
            data = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
        else:
            headers["Content-Length"] = str(announced)
        lines = [f"PUT /v2/images/{image_id}/file HTTP/1.1", f"Host: {host}:{port}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        connection = socket.create_connection((host, int(port)), REQUEST_SECONDS)
        with contextlib.ExitStack() as on_error:
            on_error.enter_context(connection)
            connection.sendall("\r\n".join([*lines, "", ""]).encode() + data)
            self.wait_for_status(image_id, "saving")
            on_error.pop_all()
        return connection

    # -- import

    def import_image(
        self, image_id: str, method: str, stores: Sequence[str], **arguments: Any
    ) -> None:
        """Ask for an import and wait until its tasks have ended, in success or failure.

        :param method: `glance-direct`, `web-download` or `copy-image`
        :param stores: where to; empty: leave it to the arguments
        :param arguments: `uri` for the method, others for the body of the request
        """
        body: dict[str, Any] = {"method": {"name": method}}
        if "uri" in arguments:
            body["method"]["uri"] = arguments.pop("uri")
        if stores:
            body["stores"] = list(stores)
        body.update(arguments)
        self.request("POST", f"images/{image_id}/import", json=body, expect=202)
        self.wait_for_tasks(image_id)

    def wait_for_tasks(self, image_id: str) -> list[str]:
        """Wait until no task of an image is under way, and return how they ended."""
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            tasks = self.request("GET", f"images/{image_id}/tasks", expect=200).json()["tasks"]
            ends = [task["status"] for task in tasks]
            if ends and not {"pending", "processing"}.intersection(ends):
                return ends
            assert time.monotonic() < deadline, f"waited in vain, the tasks are {tasks}"
            time.sleep(POLL_SECONDS)

    # -- locations

    def add_location(self, image_id: str, url: str, *, expect: int = 200) -> requests.Response:
        """Add a location to an image by a patch of its record."""
        value = {"url": url, "metadata": {}}
        change = {"op": "add", "path": "/locations/-", "value": value}
        return self.patch(image_id, change, expect=expect)
