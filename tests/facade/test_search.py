# SPDX-License-Identifier: Apache-2.0
"""Looking for an image without the name of its store."""

from __future__ import annotations

import pytest

import glance_store
from glance_store import exceptions, registry
from glance_store._drivers.http import errors as http_errors

UNCERTAIN = [
    exceptions.StoreDeleteNotSupported("read-only"),
    exceptions.StoreGetNotSupported("write-only"),
    exceptions.StoreRandomGetNotSupported(offset=1, chunk_size=2),
    exceptions.RemoteServiceUnavailable("away"),
    exceptions.TimeoutError("silent"),
    exceptions.BackendUnavailable("away"),
    # Also a BadStoreUri.
    http_errors.ServerInTrouble("503"),
    # S3 says so of an object that is not there to a key that may not list the bucket.
    exceptions.Forbidden(),
    exceptions.BackendException("broken"),
    exceptions.BadStoreConfiguration(store_name="x", reason="y"),
    OSError(5, "Input/output error"),
    KeyError("a driver from outside"),
]
NOT_HERE = [
    exceptions.NotFound(image="x"),
    exceptions.UnknownScheme(scheme="x"),
    exceptions.BadStoreUri(uri="x"),
]
SAID_BY_ITS_STORE = [
    exceptions.InUseByStore(),
    exceptions.HasSnapshot(),
    exceptions.RedirectException("http://elsewhere/x"),
]


@pytest.fixture
def search(create_multi):
    """Return a function that searches in stores of which each gives the answer of its number."""
    create_multi({"one": "file", "two": "file", "three": "file"})

    def run(*answers):
        left = list(answers)

        def operation(_identifier):
            answer = left.pop(0)
            if isinstance(answer, BaseException):
                raise answer
            return answer

        return registry.first_that_has("file:///x", operation)

    return run


def named(error):
    return type(error).__name__


@pytest.mark.parametrize("error", [*UNCERTAIN, *NOT_HERE], ids=named)
def test_search_goes_on(search, error):
    assert search(error, error, "found") == "found"


@pytest.mark.parametrize("error", UNCERTAIN, ids=named)
def test_image_may_be_where_nobody_could_look(search, error):
    # "Not found" would be more than is known.
    with pytest.raises(type(error)) as caught:
        search(exceptions.NotFound(image="x"), error, exceptions.BadStoreUri(uri="x"))
    assert caught.value is error


@pytest.mark.parametrize("error", SAID_BY_ITS_STORE, ids=named)
def test_answer_of_the_store_that_has_it_ends_the_search(search, error):
    with pytest.raises(type(error)) as caught:
        search(exceptions.NotFound(image="x"), error, "another")
    assert caught.value is error


def test_first_complaint_about_the_location_is_told(search):
    first, second, third = (exceptions.BadStoreUri(text) for text in ("first", "second", "third"))
    with pytest.raises(exceptions.BadStoreUri, match="first"):
        search(first, second, third)
    with pytest.raises(exceptions.NotFound):
        search(first, exceptions.NotFound(image="x"), third)


def test_image_is_deleted_although_the_first_store_is_read_only(create_multi, tmp_path):
    folders = [tmp_path / name for name in ("two", "three")]
    create_multi(
        {"old": "file", "spread": "file"},
        options={
            ("old", "filesystem_store_metadata_file"): str(tmp_path / "gone.json"),
            ("spread", "filesystem_store_datadir"): "",
            ("spread", "filesystem_store_datadirs"): [f"{path}:1" for path in folders],
        },
    )
    for folder in folders:
        (folder / "image").write_bytes(b"abc")
        uri = f"file://{folder}/image"
        assert glance_store.get_size_from_uri_and_backend(uri, None) == 3
        glance_store.delete(uri, None)
        assert list(folder.iterdir()) == []
