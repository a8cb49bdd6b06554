"""Errors of inverses and of gradients: ``python -m benchmarks.accuracy``."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from benchmarks.measuring import arguments, batch, build, machine, prepare, rows, table, training_step, write
from benchmarks.networks import CONTENDERS, Network, Size

DEFAULT = list(CONTENDERS)


def convolutions(network: Network) -> list[nn.Conv2d]:
    """In order of execution, the same for every library."""
    return [module for module in network.modules() if isinstance(module, nn.Conv2d)]


def gradient(network: Network, x: Tensor, labels: Tensor) -> Tensor:
    """Of the loss with respect to all convolutions, in one vector, float64."""
    network.zero_grad(set_to_none=True)
    network.loss(x.clone(), labels).backward()  # type: ignore[no-untyped-call]
    grads = [value.grad for layer in convolutions(network) for value in layer.parameters()]
    return torch.cat([grad.flatten().double() for grad in grads if grad is not None])


def trained(size: Size, steps: int) -> Network:
    """Ours after some steps, so that the weights are not the ones that anybody drew."""
    network = build("flowclf, store", size)
    step = training_step(network, *batch(size))
    for _ in range(steps):
        step()
    return network


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and write."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--steps", type=int, default=20, help="training steps before the measurement")
    parser.add_argument("--emulate-bf16", action="store_true", help="measure bf16 rows where the processor has no bf16, slowly")
    chosen = parser.parse_args(argv)
    size = prepare(chosen)
    about_machine = machine()
    wanted = chosen.only or (DEFAULT if chosen.emulate_bf16 else None)
    names, left_out = rows(wanted, DEFAULT, "cpu")
    source = trained(size, chosen.steps)
    x, labels = batch(size)
    exact = gradient(copy.deepcopy(source).double(), x.double(), labels)
    body = []
    for name in names:
        network = build(name, size)
        with torch.no_grad():
            for layer, trained_layer in zip(convolutions(network), convolutions(source), strict=True):
                layer.load_state_dict(trained_layer.state_dict())
        away = float((gradient(network, x, labels) - exact).norm() / exact.norm())
        with torch.no_grad():
            again = network.decode([value.clone() for value in network.encode(x.clone())])
        error = (again - x).abs()
        body.append([name, f"{float(error.max()):.1e}", f"{float(error.mean()):.1e}", f"{away:.1e}"])
    about = (
        "Inverse: largest and mean |F⁻¹(F(x)) − x| of inputs in [-1, 1), in training mode. Gradient: distance of the whole "
        f"gradient from that in float64 with stored activations, relative to its norm. {size.blocks} additive couplings, "
        f"{size.width} filters, batch {size.batch}, the same weights in all rows, after {chosen.steps} steps.\n\n{about_machine}."
    )
    header = ["", "inverse, max", "inverse, mean", "gradient"]
    text = table(header, body, left_out)
    write("accuracy", "Accuracy", text, chosen, about)


if __name__ == "__main__":
    main()
