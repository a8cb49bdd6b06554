"""Addresses: no scheme or server that is not allowed, whatever leads there."""

from __future__ import annotations

import pytest
from servers import BAD_URLS

from flowclf.remote.addresses import is_loopback, is_url, url_problem

GOOD_URLS = [
    "https://example.org/zoo/",
    "https://example.org:8443/a?x=1",
    "HTTPS://example.org/",
    "http://127.0.0.1:1/",
    "http://127.1.2.3/",
    "http://localhost/",
    "http://[::1]:80/",
]


@pytest.mark.parametrize("url", GOOD_URLS)
def test_allowed_addresses(url: str) -> None:
    assert url_problem(url) is None


@pytest.mark.parametrize("url", BAD_URLS)
def test_refused_addresses(url: str) -> None:
    assert url_problem(url) is not None


def test_https_leads_to_https_only() -> None:
    for url in GOOD_URLS:
        assert (url_problem(url, "https://example.org/") is None) == url.lower().startswith("https")
        assert url_problem(url, "http://127.0.0.1/") is None


def test_what_is_a_url() -> None:
    assert all(map(is_url, ["https://a", "file:///a", "hf:x"]))
    assert not any(map(is_url, ["a", "/a", "a/b:c", "c:\\zoo", "C:/zoo"]))
    assert not is_loopback("example.org")
