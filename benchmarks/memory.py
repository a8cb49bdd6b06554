"""Memory that activations take, by depth: ``python -m benchmarks.memory``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

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
from benchmarks.networks import CONTENDERS

DEFAULT = [name for name in CONTENDERS if "bf16" not in name and "store, fixed" not in name]

PEAK = """
import sys, torch
from benchmarks.measuring import batch, build, training_step
from benchmarks.networks import Size
name, blocks, width, side, count, threads = sys.argv[1], *map(int, sys.argv[2:])
torch.set_num_threads(threads)
size = Size(blocks, width, (3, side, side), count)
step = training_step(build(name, size), *batch(size))
for _ in range(2):
    step()
print(next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and write."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--depths", type=int, nargs="+", default=[12, 24, 48, 96], help="numbers of couplings, multiples of 6")
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
            deep = replace(size, blocks=depth)
            network = build(name, deep)
            saved.append(saved_bytes(network, *batch(deep)))
            own.append(parameter_bytes(network))
            del network
            if depth in {depths[0], depths[-1]}:
                values = (name, *map(str, (depth, size.width, size.shape[1], size.batch, chosen.threads)))
                peaks.append(int(run_apart(PEAK, *values, threads=chosen.threads)))
        span = max(1, depths[-1] - depths[0])
        slope, explained = (peaks[-1] - peaks[0]) / span, 4 * (own[-1] - own[0]) / span
        body.append([name, *(f"{value / 1e6:.1f}" for value in saved), f"{slope / 1e6:.2f}", f"{explained / 1e6:.2f}"])
    about = (
        f"Bytes saved for the backward pass of a training step: unique storages that saved-tensor hooks see, without parameters "
        f"and input. Network: {size.width} filters, {'x'.join(map(str, size.shape))}, batch {size.batch}. Process: slope of its "
        f"peak memory from {depths[0]} to {depths[-1]} blocks over two steps of Adamax, and the part of it that weights, gradients "
        f"and Adamax's two states explain.\n\n{about_machine}."
    )
    text = table(header, body, left_out)
    write("memory", "Memory", text, chosen, about)


if __name__ == "__main__":
    main()
