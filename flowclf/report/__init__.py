"""report.html: what a run found, in one file that needs nothing else to be read.

Only the public names belong here.
"""

from __future__ import annotations

from flowclf.report.writing import write_report

__all__ = ["write_report"]
