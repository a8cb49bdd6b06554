"""Freed memory is kept: counted in page faults of a training step that recomputes activations, in a process of its own."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys, torch
import flowclf
from flowclf.host_memory import keep_freed_memory

torch.set_num_threads(1)
if sys.argv[1] == "keep":
    keep_freed_memory()
coupling = {"additive_coupling": {"subnet": {"conv": {"width": 128}}}}
classifier = flowclf.build_classifier((3, 32, 32), ["squeeze", {"repeat": 4, "nodes": [coupling]}, "split_head"], classes=10)
classifier.activations = "recompute"

def step():
    encoding = classifier(torch.rand(64, 3, 32, 32))
    (encoding.logits.square().sum() + encoding.nuisance.square().sum()).backward()

step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
_ACTIVATIONS = 3 * 4 * 64 * 16 * 16 * 128 * 4
"""Bytes of one hidden layer's activations, over all couplings and steps."""


def faults(what: str) -> int:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_TUNABLES"))}
    command = [sys.executable, "-c", FAULTS, what]
    return int(subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's thresholds")
def test_what_one_layer_frees_the_next_gets() -> None:
    pages = _ACTIVATIONS // os.sysconf("SC_PAGE_SIZE")
    assert faults("leave") > pages
    assert faults("keep") < pages / 4
