"""Names, paths and addresses: nothing that leaves the zoo's folder, and no scheme or server that is not allowed."""

from __future__ import annotations

import pytest

from flowclf.zoo.names import is_loopback, is_url, relative_path_problem, url_problem

ODD_PATHS = [
    "",
    ".",
    "..",
    "../model.json",
    "tiny/../../model.json",
    "tiny/..",
    "tiny/./model.json",
    "/etc/passwd",
    "//server/share",
    "tiny//model.json",
    "tiny/",
    "\\\\server\\share",
    "tiny\\model.json",
    "C:/model.json",
    "~/model.json",
    ".hidden",
    "tiny/.git",
    "tiny/model.json\n",
    "tiny/\0",
    "tiny/a b",
    "tiny/%2e%2e",
    "tiny/é",
    "-rf",
    "tiny/" + "x" * 101,
    "/".join("a" * 9),
    "tiny/a:b",
    "$HOME/a",
]


@pytest.mark.parametrize("path", ODD_PATHS)
def test_odd_paths_are_refused(path: str) -> None:
    assert relative_path_problem(path) is not None


@pytest.mark.parametrize("path", ["a", "tiny/model.json", "a/b/c-1/d_2/e.f/README.md", "1/2"])
def test_plain_paths_pass(path: str) -> None:
    assert relative_path_problem(path) is None


GOOD_URLS = [
    "https://example.org/zoo/",
    "https://example.org:8443/a?x=1",
    "HTTPS://example.org/",
    "http://127.0.0.1:1/",
    "http://127.1.2.3/",
    "http://localhost/",
    "http://[::1]:80/",
]
BAD_URLS = [
    "http://example.org/",
    "http://10.0.0.1/",
    "http://127.0.0.1.example.org/",
    "http://localhost.example.org/",
    "http://0.0.0.0/",
    "http://2130706433/",
    "ftp://127.0.0.1/",
    "file:///etc/passwd",
    "data:,x",
    "javascript:x",
    "https://",
    "https:///path",
    "https://user@example.org/",
    "https://user:word@example.org/",
    "http://127.0.0.1@example.org/",
    "http://127.0.0.1\\@example.org/",
    "https://example.org/a b",
    "https://example.org/\n",
    "https://example.org:99999/",
    "https://exämple.org/",
    "http://[::1",
    "https://example.org/" + "x" * 2000,
    "example.org",
    "",
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
