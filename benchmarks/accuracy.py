"""Errors of inverses and of gradients: ``python -m benchmarks.accuracy``."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from benchmarks.measuring import arguments, batch, build, machine, prepare, rows, table, training_step, write
from benchmarks.networks import CONTENDERS, Network, Size
from flowclf import InvertibleClassifier, zoo
from flowclf.data import load
from flowclf.losses import CrossEntropy, FactorialPriorMLE, Loss
from flowclf.nodes import set_subnet_dtype
from flowclf.training.precision import native_bf16

DEFAULT = list(CONTENDERS)
TRAINED = "mnist-ce"
LOSSES: dict[str, Callable[[], Loss]] = {"cross-entropy": CrossEntropy, "likelihood": FactorialPriorMLE}
WAYS: dict[str, tuple[Literal["store", "recompute"], torch.dtype | None]] = {
    "store": ("store", None),
    "recompute": ("recompute", None),
    "store, bf16 subnets": ("store", torch.bfloat16),
    "recompute, bf16 subnets": ("recompute", torch.bfloat16),
}


def convolutions(network: Network) -> list[nn.Conv2d]:
    """List the convolutions in order of execution, which is the same for every library."""
    return [module for module in network.modules() if isinstance(module, nn.Conv2d)]


def gradient(network: Network, x: Tensor, labels: Tensor) -> Tensor:
    """Compute the gradient of the loss with respect to all convolutions, as one float64 vector."""
    network.zero_grad(set_to_none=True)
    network.loss(x.clone(), labels).backward()  # type: ignore[no-untyped-call]
    grads = [value.grad for layer in convolutions(network) for value in layer.parameters()]
    return torch.cat([grad.flatten().double() for grad in grads if grad is not None])


def trained(size: Size, steps: int) -> Network:
    """Train our network for some steps, so that its weights are no longer the random initial ones."""
    network = build("flowclf, store", size)
    step = training_step(network, *batch(size))
    for _ in range(steps):
        step()
    return network


def whole_gradient(
    classifier: InvertibleClassifier, loss: Loss, x: Tensor, labels: Tensor, way: tuple[Literal["store", "recompute"], Any]
) -> Tensor:
    """Compute the gradient of a loss with respect to all parameters in the precision of ``x``, as one float64 vector."""
    trained = copy.deepcopy(classifier).to(x.dtype).train()
    trained.activations, dtype = way
    set_subnet_dtype(trained, dtype)
    loss.bind(trained)(trained(x), labels).total.backward()  # type: ignore[no-untyped-call]
    return torch.cat([value.grad.flatten().double() for value in trained.parameters() if value.grad is not None])


def trained_errors(name: str, count: int, ways: Iterable[str] = WAYS) -> dict[str, dict[str, float]]:
    """Measure errors of a trained classifier's gradient, by way and loss.

    An error is the distance from the gradient in float64 with stored activations, relative to the norm of that gradient.

    Args:
        name: name of a zoo classifier that was trained on MNIST.
        count: training images in the batch.
        ways: names of the ways to measure.
    """
    classifier = zoo.load(name)
    assert isinstance(classifier, InvertibleClassifier)
    part = load("mnist").train.head(count)
    x = classifier.preprocessing.dequantize(part.inputs, torch.Generator().manual_seed(1))
    found: dict[str, dict[str, float]] = {way: {} for way in ways}
    for title, loss in LOSSES.items():
        exact = whole_gradient(classifier, loss(), x.double(), part.labels, WAYS["store"])
        for way, errors in found.items():
            own = whole_gradient(classifier, loss(), x, part.labels, WAYS[way])
            errors[title] = float((own - exact).norm() / exact.norm())
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark and write its table."""
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
    text = f"{table(header, body, left_out)}\n\n{_trained_table(size.batch, chosen.emulate_bf16)}"
    write("accuracy", "Accuracy", text, chosen, about)


def _trained_table(count: int, emulate: bool) -> str:
    native = native_bf16(torch.device("cpu"))
    ways = [way for way in WAYS if native or emulate or "bf16" not in way]
    errors = trained_errors(TRAINED, count, ways)
    body = [[way, *(f"{errors[way][loss]:.1e}" for loss in LOSSES)] for way in ways]
    about = (
        f"The same of the trained network {TRAINED} of the zoo, on {count} training images of MNIST: distance of the whole "
        "gradient of either loss from that in float64 with stored activations."
    )
    return f"{about}\n\n{table(['', *(f'gradient, {loss}' for loss in LOSSES)], body)}"


if __name__ == "__main__":
    main()
