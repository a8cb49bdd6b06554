"""A module that cannot be imported, as when something that it needs is not installed."""

raise ImportError("needs a library that is not installed")
