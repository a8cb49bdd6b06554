"""Addresses that may be read from: the rule that no index, mirror or redirection can bend."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

_MAX_URL = 2000


def is_url(source: str) -> bool:
    """Whether a source is a URL of any scheme, rather than a path."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+:", source) is not None


def is_loopback(host: str) -> bool:
    """Whether a host's name is this machine's own.

    Example:
        >>> is_loopback("127.0.0.1"), is_loopback("::1"), is_loopback("example.org")
        (True, True, False)
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def url_problem(url: str, came_from: str | None = None) -> str | None:
    """What is wrong with a URL to read from, or None.

    Allowed are https, and http to this machine itself; one that an https URL leads to must be https.

    Args:
        url: absolute.
        came_from: the URL that redirected here, if any.

    Example:
        >>> url_problem("http://127.0.0.1:8000/index.json")
        >>> url_problem("http://example.org/index.json")
        "expected https, or http to this machine, found 'http://example.org/index.json'"
    """
    shown = repr(url[:200])
    if len(url) > _MAX_URL or not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        return f"expected a URL of at most {_MAX_URL} plain characters, found {shown}"
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        return f"expected a URL, found {shown}: {error}"
    secure = came_from is not None and urlsplit(came_from).scheme == "https"
    here = parts.scheme == "http" and not secure and is_loopback(host or "")
    if parts.scheme != "https" and not here:
        return f"expected https{'' if secure else ', or http to this machine'}, found {shown}"
    if not host or parts.username is not None or parts.password is not None:
        return f"expected a URL with a host and no user, found {shown}"
    return None
