"""The state of a training on disk, from which a run that was killed resumes with bit-identical results.

``state.json`` names the current state file and its SHA-256. A new state takes the place of the old one when this file is replaced,
so a crash at any time leaves a complete state. State files are read with ``weights_only=True``: nothing in them can run code.
"""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path

import torch

from flowclf.errors import CheckpointError, UsageError
from flowclf.files import check_sha256, write_bytes, write_json
from flowclf.training.loop import Trainer

_POINTER = "state.json"


def save_state(folder: str | Path, trainer: Trainer) -> None:
    """Write the trainer's state to a folder and delete the previous one."""
    folder = Path(folder)
    buffer = io.BytesIO()
    torch.save(trainer.state_dict(), buffer)
    content = buffer.getvalue()
    digest = hashlib.sha256(content).hexdigest()
    # Two states of one step have different names, so that writing the second leaves the first intact until the pointer moves.
    file = folder / f"state-{trainer.step:08d}-{digest[:8]}.pt"
    write_bytes(file, content)
    record = {"file": file.name, "sha256": digest, "step": trainer.step, "total_steps": trainer.total_steps}
    write_json(folder / _POINTER, record)
    for old in set(folder.glob("state-*.pt")) - {file}:
        old.unlink(missing_ok=True)


def load_state(folder: str | Path, trainer: Trainer) -> None:
    """Bring a trainer of the same recipe to the state in a folder.

    Raises:
        UsageError: if there is no state in the folder.
        ChecksumError: if the state file is not the one that was written.
        CheckpointError: if it cannot be read, or belongs to another network or loss.
    """
    pointer = Path(folder) / _POINTER
    if not pointer.is_file():
        raise UsageError(f"{folder} holds no state to resume from: {_POINTER} is missing")
    try:
        entry = json.loads(pointer.read_text(encoding="utf-8"))
        name, digest = str(entry["file"]), str(entry["sha256"])
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{pointer}: expected JSON with file and sha256: {error}") from error
    file = pointer.with_name(Path(name).name)
    check_sha256(file, digest)
    try:
        trainer.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
    except Exception as error:  # Broken bytes can make torch raise anything.
        raise CheckpointError(f"{file} does not fit the recipe or cannot be read: {error}") from error
