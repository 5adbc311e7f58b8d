# SPDX-License-Identifier: Apache-2.0
"""How the exceptions make their texts."""

from __future__ import annotations

import pickle

import pytest

from glance_store import exceptions

CLASSES = [
    value
    for value in vars(exceptions).values()
    if isinstance(value, type) and issubclass(value, exceptions.GlanceStoreException)
]


@pytest.mark.parametrize("cls", CLASSES)
def test_r14_r15_positional_text_is_kept(cls):
    raised = cls("a text")
    assert (str(raised), raised.msg, raised.args) == ("a text", "a text", ("a text",))


@pytest.mark.parametrize("cls", CLASSES)
def test_r14_text_of_the_class(cls):
    raised = cls()
    assert str(raised) == raised.msg == str(cls.message)
    assert str(raised)


def test_r14_text_of_the_class_is_not_formatted_without_values():
    assert "%(image)s" in str(exceptions.NotFound())


def test_r14_values_are_put_into_the_text():
    assert "some-id" in str(exceptions.NotFound(image="some-id"))
    assert str(exceptions.NotFound("no %(image)s here", image="x")) == "no x here"
    assert str(exceptions.NotFound(message="no %(image)s here", image="x")) == "no x here"


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("no %(image)s", {"other": 1}),
        ("no %(image)d", {"image": "text"}),
        ("100 %", {"image": 1}),
        ("100 %(", {"image": 1}),
    ],
)
def test_text_that_cannot_be_formatted_stays(text, values):
    assert str(exceptions.NotFound(text, **values)) == text


@pytest.mark.parametrize("text", ["50% of %s", "100%", "%(image)s", "%"])
def test_text_with_percent_signs_and_no_values_stays(text):
    assert str(exceptions.GlanceStoreException(text)) == text


def test_empty_text_is_no_text():
    assert str(exceptions.Forbidden("")) == str(exceptions.Forbidden())


def test_text_that_is_an_exception():
    cause = ValueError("the reason")
    assert "the reason" in str(exceptions.Invalid(cause))


def test_backend_exceptions_are_plain():
    assert not issubclass(exceptions.BackendException, exceptions.GlanceStoreException)
    assert str(exceptions.UnsupportedBackend("a text")) == "a text"


def test_redirect_has_its_url_parsed():
    raised = exceptions.RedirectException("https://host:8080/path?query")
    assert (raised.url.scheme, raised.url.netloc) == ("https", "host:8080")
    assert (raised.url.path, raised.url.query) == ("/path", "query")
    assert not isinstance(raised, exceptions.GlanceStoreException)


def test_timeout_is_formatted_with_any_number():
    assert "7" in str(exceptions.TimeoutError(timeout=7))
    assert "0.5" in str(exceptions.TimeoutError(timeout=0.5))
    assert not issubclass(exceptions.TimeoutError, TimeoutError)


def test_random_get_is_caught_as_get():
    raised = exceptions.StoreRandomGetNotSupported(offset=3, chunk_size=5)
    assert isinstance(raised, exceptions.StoreGetNotSupported)
    assert "3" in str(raised)
    assert "5" in str(raised)


@pytest.mark.parametrize("cls", CLASSES)
def test_exceptions_cross_process_borders(cls):
    copied = pickle.loads(pickle.dumps(cls("a text")))
    assert type(copied) is cls
    assert copied.msg == "a text"
