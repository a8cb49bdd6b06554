"""report.html: the results of a run in one self-contained file."""

from __future__ import annotations

from flowclf.report.writing import write_report

__all__ = ["write_report"]
