"""``flowclf cache``."""

from __future__ import annotations

from typing import Annotated

import typer


def cache(
    clear: Annotated[bool, typer.Option("--clear", help="Delete the decoded images; they are decoded again when needed.")] = False,
) -> None:
    """Show the size of the cache of decoded images, in bytes, or clear it.

    Folders of images are decoded once, and the result is kept. The limit is $FLOWCLF_DECODED_GB, by default 4 GB; 0 is no cache.
    """
    from flowclf.cli.output import print_table
    from flowclf.data import decoded_cache

    if clear:
        decoded_cache.clear()
    print_table(["folder", "bytes"], [[str(decoded_cache.folder()), decoded_cache.size()]])
