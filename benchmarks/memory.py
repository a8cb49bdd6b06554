"""Memory for activations, by depth: ``python -m benchmarks.memory``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from benchmarks.measuring import (
    arguments,
    batch,
    build,
    machine,
    parameter_bytes,
    prepare,
    rows,
    run_apart,
    saved_bytes,
    table,
    write,
)
from benchmarks.networks import CONTENDERS, Size
from flowclf.training.precision import native_bf16

DEEP = ("flowclf, recompute", "flowclf, recompute, bf16 subnets")
DEFAULT = [name for name in CONTENDERS if "bf16" not in name and "store, fixed" not in name]

PEAK = """
import sys, torch
from benchmarks.measuring import batch, build, training_step
from benchmarks.networks import Size
name, blocks, width, side, count, threads, steps = sys.argv[1], *map(int, sys.argv[2:])
torch.set_num_threads(threads)
size = Size(blocks, width, (3, side, side), count)
step = training_step(build(name, size), *batch(size))
for _ in range(steps):
    step()
print(next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def peak(name: str, size: Size, threads: int, steps: int, give_back: bool = True) -> int:
    """Measure the peak memory, in bytes, of a process that only trains a network for some steps.

    Args:
        name: name of the network.
        size: size of the network and its batch.
        threads: number of threads for torch.
        steps: number of training steps.
        give_back: see :func:`~benchmarks.measuring.run_apart`.
    """
    values = (name, *map(str, (size.blocks, size.width, size.shape[1], size.batch, threads, steps)))
    return int(run_apart(PEAK, *values, threads=threads, give_back=give_back))


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark and write its table."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--depths", type=int, nargs="+", default=[12, 24, 48, 96], help="numbers of couplings, multiples of 6")
    parser.add_argument("--deep", type=int, default=402, help="couplings of the network whose process is measured as it is")
    chosen = parser.parse_args(argv)
    size = prepare(chosen)
    about_machine = machine()
    depths = sorted(chosen.depths)
    names, left_out = rows(chosen.only, DEFAULT, "cpu")
    header = ["", *(f"{depth} blocks, MB" for depth in depths), "process, MB a block", "of which parameters, gradients, states"]
    body = []
    for name in names:
        saved, own, peaks = [], [], []
        for depth in depths:
            own_size = replace(size, blocks=depth)
            network = build(name, own_size)
            saved.append(saved_bytes(network, *batch(own_size)))
            own.append(parameter_bytes(network))
            del network
            if depth in {depths[0], depths[-1]}:
                peaks.append(peak(name, own_size, chosen.threads, 2))
        span = max(1, depths[-1] - depths[0])
        slope, explained = (peaks[-1] - peaks[0]) / span, 4 * (own[-1] - own[0]) / span
        body.append([name, *(f"{value / 1e6:.1f}" for value in saved), f"{slope / 1e6:.2f}", f"{explained / 1e6:.2f}"])
    about = (
        f"Bytes saved for the backward pass of a training step: unique storages that saved-tensor hooks see, without parameters "
        f"and input. Network: {size.width} filters, {'x'.join(map(str, size.shape))}, batch {size.batch}. Process: slope of its "
        f"peak memory from {depths[0]} to {depths[-1]} blocks over two steps of Adamax, and the part of it that weights, gradients "
        f"and Adamax's two states explain.\n\n{about_machine}."
    )
    deep = replace(size, blocks=chosen.deep)
    names = [name for name in DEEP if "bf16" not in name or native_bf16(torch.device("cpu"))]
    found = [[name, f"{peak(name, deep, chosen.threads, 3, give_back=False) / 2**30:.2f}"] for name in names]
    text = (
        f"{table(header, body, left_out)}\n\n{deep.blocks} blocks, three steps, in a process with the heap that every process has:"
        f"\n\n{table(['', 'process, GiB at most'], found)}"
    )
    write("memory", "Memory", text, chosen, about)


if __name__ == "__main__":
    main()
