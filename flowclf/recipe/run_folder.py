"""Run directory: its paths, and the record of a run's environment."""

from __future__ import annotations

import datetime
import json
import os
import platform
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import flowclf
from flowclf.errors import UsageError
from flowclf.files import check_folder_writable, write_json, write_text

if TYPE_CHECKING:
    import torch


class RunFolder:
    """Paths inside a run directory."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.recipe = self.path / "recipe.yaml"
        self.resolved = self.path / "resolved.yaml"
        self.environment = self.path / "environment.json"
        self.metrics = self.path / "metrics.jsonl"
        self.results = self.path / "results.json"
        self.checkpoints = self.path / "checkpoints"
        self.model = self.checkpoints / "final"
        self.figures = self.path / "figures"
        self.report = self.path / "report.html"

    @staticmethod
    def check_new(out: Path | None) -> None:
        """Check that a run directory can be created, as :meth:`create` does; nothing is created."""
        if out is None:
            return check_folder_writable("runs", "the run directory, runs/NAME/TIME-ID,")
        try:
            taken = out.exists() and (not out.is_dir() or any(out.iterdir()))
        except OSError as error:
            raise UsageError(f"--out {out} cannot be read: {error.strerror}") from error
        if taken:
            raise UsageError(f"--out {out}: expected a new or empty folder, found {'files in it' if out.is_dir() else 'a file'}")
        return check_folder_writable(out, f"--out {out}")

    @classmethod
    def create(cls, name: str, out: Path | None) -> RunFolder:
        """Create a run directory: ``out``, which must be new or empty, or ``runs/<name>/<UTC time>-<id>``.

        Raises:
            UsageError: if ``out`` is a file, is not empty, or cannot be created.
        """
        if out is None:
            now = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%SZ")
            out = Path("runs") / name / f"{now}-{secrets.token_hex(3)}"
        cls.check_new(out)
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"--out {out} cannot be created: {error.strerror}") from error
        return cls(out)

    @classmethod
    def existing(cls, path: Path) -> RunFolder:
        """Open an existing run directory; raises UsageError if ``path`` is not one."""
        folder = cls(path)
        if not folder.resolved.is_file():
            raise UsageError(f"{path} is not a run directory: {folder.resolved.name} is missing")
        return folder

    def require(self, part: Path) -> None:
        """Raise UsageError if a part that a run writes at its end is missing."""
        if not part.exists():
            raise UsageError(f"{self.path}: the run has not finished; resume with: flowclf recipe run --resume {self.path}")

    def write_metrics(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Replace ``metrics.jsonl`` by these rows, one per epoch."""
        write_text(self.metrics, "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows))

    def write_environment(self, device: torch.device) -> None:
        """Write versions and hardware to ``environment.json``, without names of users or hosts."""
        import importlib.metadata

        import torch

        packages = ("torch", "FrEIA", "nflows", "numpy", "safetensors", "torchvision")
        record = {
            "flowclf": flowclf.__version__,
            "python": platform.python_version(),
            **{package.lower(): importlib.metadata.version(package) for package in packages},
            "system": f"{platform.system()} {platform.machine()}",
            "processor": _processor(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        }
        write_json(self.environment, record)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor())
