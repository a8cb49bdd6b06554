"""Memory for activations does not grow with depth: saved tensors, everything allocated, and the process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from FrEIA import modules as freia
from FrEIA.framework import GraphINN, InputNode, Node, OutputNode
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from flowclf import InvertibleClassifier, build_classifier
from flowclf.reversible import Recompute

STAGES = 3


def additive(blocks: int, width: int, *, side: int = 32, mixing: bool = True) -> InvertibleClassifier:
    """Three stages of additive couplings with one subnet each, half of the channels factored out after each but the last."""
    coupling = {"additive_coupling": {"subnet": {"conv": {"width": width}}}}
    block = ["actnorm", "invertible_conv1x1", coupling] if mixing else [coupling]
    specs: list[Any] = []
    for stage in range(STAGES):
        specs += ["squeeze", {"repeat": blocks // STAGES, "nodes": block}]
        specs += ["factor_out"] if stage + 1 < STAGES else ["split_head"]
    return build_classifier((3, side, side), specs, classes=10).train()


def stock(blocks: int, width: int, side: int = 32) -> GraphINN:
    """The same in FrEIA's own nodes; a NICECouplingBlock holds two subnets, and so counts as two blocks."""

    def subnet(size_in: int, size_out: int) -> nn.Module:
        first, last = nn.Conv2d(size_in, width, 3, padding=1), nn.Conv2d(width, size_out, 3, padding=1)
        return nn.Sequential(first, nn.ReLU(), nn.Conv2d(width, width, 1), nn.ReLU(), last)

    made: list[Node] = [InputNode(3, side, side, name="input")]
    ends: list[OutputNode] = []
    stream: Any = made[0].out0
    for stage in range(STAGES):
        made.append(Node(stream, freia.IRevNetDownsampling, {}, name=f"{stage} squeeze"))
        for index in range(blocks // (2 * STAGES)):
            made.append(Node(made[-1], freia.ActNorm, {}, name=f"{stage} {index} actnorm"))
            made.append(Node(made[-1], freia.PermuteRandom, {}, name=f"{stage} {index} permutation"))
            made.append(Node(made[-1], freia.NICECouplingBlock, {"subnet_constructor": subnet}, name=f"{stage} {index} coupling"))
        stream = made[-1].out0
        if stage + 1 < STAGES:
            half = made[-1].output_dims[0][0] // 2
            made.append(Node(stream, freia.Split, {"section_sizes": [half, half]}, name=f"{stage} split"))
            ends.append(OutputNode(made[-1].out1, name=f"{stage} out"))
            stream = made[-1].out0
    return GraphINN([*made, *ends, OutputNode(stream, name="out")]).train()


def saved_bytes(model: nn.Module, x: Tensor) -> int:
    """Bytes of the unique storages that are saved for the backward pass; parameters are left out."""
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    storages: dict[int, torch.UntypedStorage] = {}

    def pack(value: Tensor) -> Tensor:
        storage = value.untyped_storage()
        if storage.data_ptr() not in own:
            storages[storage.data_ptr()] = storage
        return value

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        model(x)
    return sum(storage.nbytes() for storage in storages.values())


def bytes_left(model: nn.Module, x: Tensor) -> int:
    """Bytes that a forward pass allocated and did not give back, wherever it keeps them; its outputs are among them."""
    model(x)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        results = model(x)
    left = sum(event.self_cpu_memory_usage for event in seen.key_averages())
    del results
    return int(left)


@pytest.mark.parametrize(("measure", "mixing"), [(saved_bytes, False), (saved_bytes, True), (bytes_left, True)])
def test_memory_does_not_grow_with_depth(measure: Any, mixing: bool) -> None:
    x = torch.rand(16, 3, 16, 16)
    found = {}
    for blocks in (12, 96):
        for name in ("store", "recompute"):
            classifier = additive(blocks, 8, side=16, mixing=mixing)
            classifier.activations = name  # type: ignore[assignment]
            found[name, blocks] = measure(classifier, x)
    assert found["store", 96] > 6 * found["store", 12]
    outputs = x.nbytes
    assert outputs <= found["recompute", 12] <= 2.5 * outputs
    assert found["recompute", 96] < 1.1 * found["recompute", 12]


def test_memory_is_a_small_part_of_what_stock_training_takes() -> None:
    x = torch.rand(4, 3, 16, 16)
    classifier = additive(48, 16, side=16)
    classifier.activations = "recompute"
    graph = stock(48, 16, side=16)
    graph(x)
    reference = saved_bytes(graph, x)
    assert saved_bytes(classifier, x) <= reference / 15
    assert saved_bytes(Recompute(graph), x) <= reference / 15


def test_stock_networks_do_not_grow_either() -> None:
    x = torch.rand(16, 3, 16, 16)
    found = {}
    for blocks in (12, 96):
        graph = stock(blocks, 4, side=16)
        graph(x)
        found[blocks] = bytes_left(Recompute(graph), x)
    assert found[96] < 1.1 * found[12]


def test_everything_is_given_back_after_the_backward_pass() -> None:
    """Nothing lives on in a cycle: what is allocated over a step is the gradients."""
    classifier = additive(12, 4, side=16)
    classifier.activations = "recompute"
    x = torch.rand(16, 3, 16, 16)

    def step() -> None:
        encoding = classifier(x)
        (encoding.logits.square().sum() + encoding.log_det.sum()).backward()

    step()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        step()
    assert sum(event.self_cpu_memory_usage for event in seen.key_averages()) <= 4096


@pytest.mark.slow
def test_the_real_network() -> None:
    """3 x 32 x 32, batch 64, 128 filters."""
    x = torch.rand(64, 3, 32, 32)
    found = {}
    for blocks in (12, 48, 96):
        classifier = additive(blocks, 128)
        classifier.activations = "recompute"
        found[blocks] = saved_bytes(classifier, x)
    graph = stock(48, 128)
    graph(x)
    reference = saved_bytes(graph, x)
    assert 300e6 < reference < 500e6
    assert found[48] <= reference / 15
    assert found[96] < 1.1 * found[12]


PEAK = """
import sys, torch
torch.set_num_threads(1)
sys.path.insert(0, sys.argv[2])
from test_reversible_memory import additive
classifier = additive(int(sys.argv[1]), 128)
classifier.activations = "recompute"
optimizer = torch.optim.Adamax(classifier.parameters())
for _ in range(2):
    encoding = classifier(torch.rand(64, 3, 32, 32))
    (encoding.logits.square().mean() + encoding.nuisance.square().mean()).backward()
    optimizer.step()
    optimizer.zero_grad()
own = sum(parameter.nbytes for parameter in classifier.parameters())
peak = next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(own, peak)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_peak_memory_of_the_process() -> None:
    """Its slope with depth is explained by parameters, gradients and the two states of Adamax."""
    # Gradients stay while activations come and go, so a heap would be full of holes; each block gets pages of its own instead.
    settings = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
    found = {}
    for blocks in (12, 96):
        command = [sys.executable, "-c", PEAK, str(blocks), str(Path(__file__).parent)]
        output = subprocess.run(command, check=True, capture_output=True, text=True, env=settings).stdout
        found[blocks] = [int(number) for number in output.split()]
    parameters = found[96][0] - found[12][0]
    slope = found[96][1] - found[12][1]
    assert slope <= 4 * parameters + 20e6, (slope, parameters)
