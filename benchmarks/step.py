"""Time of a training step, of forward and of inverse, compared with stock FrEIA in the same rounds: ``python -m benchmarks.step``.

There is no row for ``torch.compile``, and flowclf has no option for it. Measured once, with every node of the 48-block network
compiled for its shapes (torch 2.13, one thread with AVX-512 and bf16, stored activations), the first step took 41 to 44 s instead
of 1.2 s, and later ones 1.10 times as long as uncompiled in float32, 1.41 times with bf16 subnets. Most of a step is
convolutions and matrix products, which use the same library either way.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from benchmarks.measuring import (
    arguments,
    batch,
    build,
    machine,
    prepare,
    ratio,
    rounds,
    rows,
    seconds,
    table,
    training_step,
    write,
)
from benchmarks.networks import CONTENDERS, REFERENCE, Network
from flowclf.host_memory import keep_freed_memory

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
DEFAULT = [name for name in CONTENDERS if name != "flowclf, store, fixed point"]


@torch.no_grad()
def _forward(network: Network, x: Tensor) -> list[Tensor]:
    return network.encode(x.clone())


@torch.no_grad()
def _inverse(network: Network, maps: list[Tensor]) -> Tensor:
    return network.decode([value.clone() for value in maps])


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark and write its table."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu, with one thread, where other work shares the machine")
    parser.add_argument("--pairs", type=int, default=15, help="rounds, in each of which every row has its turn")
    chosen = parser.parse_args(argv)
    size, device = prepare(chosen), chosen.device
    # This changes the whole process; doing it at the start treats all rows alike.
    keep_freed_memory()
    about_machine = machine(device)
    names, left_out = rows(chosen.only, DEFAULT, device)
    if REFERENCE not in names:
        names.insert(0, REFERENCE)
    x, labels = batch(size, device)
    steps: dict[str, Callable[[], object]] = {}
    forward: dict[str, Callable[[], object]] = {}
    inverse: dict[str, Callable[[], object]] = {}
    first, peak = {}, {}
    for name in names:
        network = build(name, size, device)
        steps[name] = training_step(network, x, labels)
        first[name] = seconds(steps[name], device, CLOCKS[chosen.clock])
        if device.startswith("cuda"):
            torch.cuda.reset_peak_memory_stats()
            steps[name]()
            peak[name] = torch.cuda.max_memory_allocated()
        maps = _forward(network, x)
        forward[name] = partial(_forward, network, x)
        inverse[name] = partial(_inverse, network, maps)
    gc.collect()
    found = [rounds(functions, chosen.pairs, device, CLOCKS[chosen.clock]) for functions in (steps, forward, inverse)]
    header = [
        "",
        "first step, s",
        "step, s",
        "images/s",
        "step: speed",
        "forward, s",
        "speed",
        "inverse, s",
        "speed",
        "inverse: of forward",
    ]
    header += ["peak memory, MB"] if peak else []
    body = []
    for name in names:
        times = [times[name] for times in found]
        median = [statistics.median(one) for one in times]
        speed = [f"{ratio(one, all_times[REFERENCE]):.2f}x" for one, all_times in zip(times, found, strict=True)]
        line = [name, f"{first[name]:.2f}", f"{median[0]:.3f}", f"{size.batch / median[0]:.0f}", speed[0]]
        line += [f"{median[1]:.3f}", speed[1], f"{median[2]:.3f}", speed[2], f"{ratio(times[2], times[1]):.2f}"]
        body.append(line + ([f"{peak[name] / 1e6:.0f}"] if peak else []))
    about = (
        f"{size.blocks} additive couplings, {size.width} filters, {'x'.join(map(str, size.shape))}, batch {size.batch}, Adamax. "
        f"Seconds of {'processor time' if chosen.clock == 'cpu' else 'time'}, medians of {chosen.pairs} rounds in which all rows "
        f"took turns; speeds are medians of the ratios to {REFERENCE} within a round, more is faster. Forward and inverse run "
        f"without gradients; the last column is the inverse's speed relative to forward.\n\n{about_machine}."
    )
    text = table(header, body, left_out)
    write("step", "Time", text, chosen, about)


if __name__ == "__main__":
    main()
