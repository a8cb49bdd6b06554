"""URLs that may be read from, whether an index, a mirror or a redirection gives them."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

_MAX_URL = 2000


def is_url(source: str) -> bool:
    """Whether a source is a URL of any scheme rather than a path."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+:", source) is not None


def is_loopback(host: str) -> bool:
    """Whether a host, given by its name or address, is this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def url_problem(url: str, came_from: str | None = None) -> str | None:
    """Describe the error in an absolute URL to read from, or None if it is allowed.

    Allowed are https, and http to this machine unless ``came_from``, the URL that redirected to this one, is https.

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
