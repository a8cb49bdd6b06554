"""Nodes that keep the logits, wherever the head reads them and however many squeezes before it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import randomize
from torch import Tensor, nn

from flowclf import build_classifier
from flowclf.errors import GraphError
from flowclf.graph import after_the_logits
from flowclf.nodes import (
    LogitActNorm,
    LogitConv1x1,
    LogitCoupling,
    LogitFold,
    LogitPlace,
    LogitReadout,
    SplitHead,
    Squeeze,
    initialize,
)
from flowclf.nodes.logit_space import LogitSpace
from flowclf.subnets.convolutional import ConditionalBottleneck, conditional_conv

PLACES = [(False, 0), (False, 1), (False, 2), (True, 0), (True, 1), (True, 2)]
every_place = pytest.mark.parametrize(("dct", "squeezes"), PLACES)
CLASSES = 5


def head(x: Tensor, dct: bool, squeezes: int) -> tuple[Tensor, Tensor]:
    """Logits and nuisances that a head reads after so many squeezes."""
    for _ in range(squeezes):
        ((x,), _) = Squeeze([tuple(x.shape[1:])])((x,))
    (logits, nuisance), _ = SplitHead([tuple(x.shape[1:])], classes=CLASSES, dct=dct).double()((x,))
    return logits, nuisance


@every_place
@settings(max_examples=10)
@given(extra=st.integers(1, 2), rows=st.integers(1, 2), columns=st.integers(1, 3), seed=st.integers(0, 1000))
def test_the_space_is_what_the_head_reads(dct: bool, squeezes: int, extra: int, rows: int, columns: int, seed: int) -> None:
    torch.manual_seed(seed)
    side = 2**squeezes
    shape = (-(-CLASSES // side**2) + extra, side * rows, side * columns)
    space = LogitSpace(shape, LogitPlace(CLASSES, dct, squeezes)).double()
    x, y = torch.randn(2, 3, *shape, dtype=torch.float64)
    close: dict[str, Any] = {"rtol": 0, "atol": 1e-12}
    logits, nuisance = head(x, dct, squeezes)
    torch.testing.assert_close(space.read(x), logits, **close)
    written = space.write(x, logits + 1)
    torch.testing.assert_close(head(written, dct, squeezes)[0], logits + 1, **close)
    torch.testing.assert_close(head(written, dct, squeezes)[1], nuisance, **close)
    torch.testing.assert_close(head(space.without(x), dct, squeezes)[0], torch.zeros_like(logits), **close)
    restored = head(space.restore(y, x), dct, squeezes)
    torch.testing.assert_close(restored[0], logits, **close)
    torch.testing.assert_close(restored[1], head(y, dct, squeezes)[1], **close)
    assert int(space.free.sum()) == x[0].numel() - CLASSES


@every_place
@pytest.mark.parametrize("kind", [LogitActNorm, LogitConv1x1, LogitCoupling])
def test_the_logits_stay_and_the_rest_moves(kind: Any, dct: bool, squeezes: int) -> None:
    shape = (6, 8, 4)
    node = randomize(kind([shape], classes=CLASSES, dct=dct, squeezes=squeezes)).double()
    x = torch.randn(3, *shape, dtype=torch.float64)
    for rev in (False, True):
        (z,), _ = node((x,), rev=rev)
        torch.testing.assert_close(head(z, dct, squeezes)[0], head(x, dct, squeezes)[0], rtol=0, atol=1e-12)
        assert not torch.allclose(head(z, dct, squeezes)[1], head(x, dct, squeezes)[1])


@every_place
def test_a_readout_changes_the_logits_alone_given_the_rest(dct: bool, squeezes: int) -> None:
    shape = (6, 8, 4)
    node = randomize(LogitReadout([shape], classes=CLASSES, dct=dct, squeezes=squeezes, logit_scale=2.0)).double()
    x = torch.randn(3, *shape, dtype=torch.float64)
    (z,), _ = node((x,))
    close: dict[str, Any] = {"rtol": 0, "atol": 1e-13 * float(node.reading(x).detach().abs().max() + 1)}
    torch.testing.assert_close(head(z, dct, squeezes)[1], head(x, dct, squeezes)[1], **close)
    torch.testing.assert_close(2 * (head(z, dct, squeezes)[0] - head(x, dct, squeezes)[0]), node.reading(x), **close)
    torch.testing.assert_close(node.reading(z), node.reading(x), rtol=1e-10, atol=0)


@every_place
def test_actnorm_is_initialised_by_what_is_not_a_logit(dct: bool, squeezes: int) -> None:
    shape = (6, 8, 4)
    node = LogitActNorm([shape], classes=CLASSES, dct=dct, squeezes=squeezes).double()
    space = LogitSpace(shape, LogitPlace(CLASSES, dct, squeezes)).double()
    x = space.write(3 + 2 * torch.randn(200, *shape, dtype=torch.float64), 100 * torch.randn(200, CLASSES, dtype=torch.float64))
    initialize(node, x)
    z = space.without(node((x,))[0][0])
    means, squares = (value.sum((0, 2, 3)) / (len(x) * space.free) for value in (z, z.square()))
    torch.testing.assert_close(means, torch.zeros_like(means), rtol=0, atol=1e-10)
    torch.testing.assert_close(squares, torch.ones_like(squares), rtol=0, atol=1e-10)


def test_scales_and_shifts_depend_on_the_class() -> None:
    node = LogitActNorm([(3, 2, 2)], classes=2, dct=False, logit_scale=50.0)
    assert node.by_class is not None
    with torch.no_grad():
        node.by_class[:3, 1] = 2.0
        node.by_class[3:, 0] = 5.0
    x = torch.ones(2, 3, 2, 2)
    x[0, 0, 0, 0] = 2.0
    x[1, 1, 0, 0] = 2.0
    (z,), log_det = node((x,))
    torch.testing.assert_close(z[:, 2, 1, 1], torch.tensor([1.0 + 5.0, torch.e**2]))
    torch.testing.assert_close(log_det, torch.tensor([0.0, 2.0 * 10]))


def test_scales_and_shifts_of_pixels_depend_on_the_class() -> None:
    node = LogitActNorm([(3, 2, 4)], classes=2, pixelwise=True, dct=False, logit_scale=50.0)
    assert node.by_class is not None
    with torch.no_grad():
        scales, shifts = (values.view(3, 2, 4, 2) for values in node.by_class.chunk(2))
        scales[2, 1, 3, 1] = 2.0
        scales[:, 0, 0] = 9.0
        shifts[2, 1, 3, 0] = 5.0
    x = torch.ones(2, 3, 2, 4)
    x[0, 0, 0, 0] = 2.0
    x[1, 1, 0, 0] = 2.0
    (z,), log_det = node((x,))
    torch.testing.assert_close(z[:, 2, 1, 3], torch.tensor([1.0 + 5.0, torch.e**2]))
    # Of the first pixel the two logits are kept, the third channel is scaled.
    torch.testing.assert_close(log_det, torch.tensor([9.0, 9.0 + 2.0]))
    assert torch.equal(z[:, :2], x[:, :2])


def test_only_what_depends_on_the_class_differs_between_pixels() -> None:
    with pytest.raises(GraphError, match="pixelwise: true needs conditional: true"):
        LogitActNorm([(3, 2, 4)], classes=2, conditional=False, pixelwise=True)


@pytest.mark.parametrize(("shape", "squeezes"), [((1, 8, 8), 2), ((3, 6, 4), 1), ((5, 2, 2), 0)])
def test_folded_logits_have_room_in_both_directions(shape: tuple[int, ...], squeezes: int) -> None:
    """Any logits are within reach of pixels that are not darker than the darkest of the two corners."""
    node = LogitFold([shape], classes=CLASSES, squeezes=squeezes)
    x = torch.rand(20, *shape)
    (z,), log_det = node((x,))
    wanted = 3 * torch.randn(20, CLASSES)
    (changed,), _ = node((node.space.write(z, wanted),), rev=True)
    assert changed.min() >= 0
    torch.testing.assert_close(node.space.read(node((changed,))[0][0]), wanted)
    assert torch.equal(log_det, torch.zeros(20))
    corner = node.space.mask.expand(1, *shape)
    assert torch.equal(z.masked_fill(corner | corner.flip(2, 3), 0), x.masked_fill(corner | corner.flip(2, 3), 0))


@pytest.mark.parametrize(("shape", "squeezes"), [((6,), 0), ((2, 6, 8), 2), ((5, 1, 4), 0)])
def test_folding_needs_two_corners(shape: tuple[int, ...], squeezes: int) -> None:
    with pytest.raises(GraphError, match="LogitFold"):
        LogitFold([shape], classes=CLASSES, squeezes=squeezes)


def test_a_convolution_may_be_shifted_by_a_map_of_the_class() -> None:
    subnet = conditional_conv(2, 3, context_channels=4, size=(5, 6), width=8, pixelwise=True)
    assert isinstance(subnet, ConditionalBottleneck)
    assert subnet.maps is not None
    nn.init.normal_(subnet.last.weight)
    x, context = torch.randn(1, 2, 5, 6).expand(4, -1, -1, -1), torch.eye(4)
    before = subnet(x, context)
    with torch.no_grad():
        # The map of the third class, at the last pixel of the first row.
        subnet.maps.weight.view(5, 6, 8, 4)[0, 5, :, 2] = 10.0
    changed = (subnet(x, context) - before).abs().amax(1) > 1e-4
    assert changed[2, :2, 4:].all()
    assert int(changed.sum()) == 4


@pytest.mark.parametrize(
    ("shape", "dct", "seen"), [((6,), True, True), ((6,), False, True), ((8, 2, 2), True, True), ((8, 2, 2), False, False)]
)
@pytest.mark.parametrize("detached", [False, True])
def test_what_a_subnet_sees_of_the_logits(shape: tuple[int, ...], dct: bool, seen: bool, detached: bool) -> None:
    """Besides their probabilities, which do not change where all logits grow alike."""
    given: list[Tensor] = []
    node = LogitCoupling([shape], classes=2, dct=dct, detach_logits=detached)
    node.subnet.register_forward_pre_hook(lambda module, inputs: given.append(inputs[0]))
    x = torch.randn(3, *shape)
    for value in (x, node.context.space.write(x, node.context.space.read(x) + 1)):
        node((value,))
    assert torch.allclose(*given, atol=1e-6) != (seen and not detached)


def test_nodes_say_which_input_does_not_fit() -> None:
    with pytest.raises(GraphError, match=r"divisible by 4, found \(3, 6, 8\)"):
        LogitActNorm([(3, 6, 8)], classes=2, squeezes=2)
    with pytest.raises(GraphError, match=r"channel for each of 5 classes, found shape \(1, 2, 2\)"):
        LogitConv1x1([(1, 2, 2)], classes=5, squeezes=1)
    with pytest.raises(GraphError, match=r"more to mix than .* found shape \(5, 1, 1\)"):
        LogitConv1x1([(5, 1, 1)], classes=5)
    with pytest.raises(GraphError, match="subnet cnn returns vectors"):
        LogitCoupling([(5, 2, 2)], classes=2, subnet="cnn")


def readout_first(dct: bool) -> list[Any]:
    place = {"dct": dct, "logit_scale": 2.0}
    given_logits = {**place, "detach_logits": True}

    def block(squeezes: int) -> list[Any]:
        here = {**given_logits, "squeezes": squeezes}
        coupling = {"subnet": {"conditional_conv": {"width": 4}}, **here}
        return [{"logit_actnorm": here}, {"logit_conv1x1": {"dct": dct, "squeezes": squeezes}}, {"logit_coupling": coupling}]

    readout = {"logit_readout": {"subnet": {"cnn": {"widths": [4]}}, "squeezes": 1, **place}}
    return ["squeeze", readout, *block(1), "squeeze", *block(0), {"split_head": place}]


@pytest.mark.parametrize("dct", [False, True])
def test_a_classifier_computes_its_logits_without_the_nodes_after_the_readout(dct: bool) -> None:
    clf = randomize(build_classifier((1, 8, 8), readout_first(dct), classes=CLASSES)).double().eval()
    x = torch.randn(4, 1, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(clf.logits(x), clf(x).logits, rtol=0, atol=1e-12)
    skipped = [node.name for node in after_the_logits(clf.graph)]
    assert len(skipped) == 6
    assert all("logit_" in name and "readout" not in name for name in skipped)


@pytest.mark.parametrize("dct", [False, True])
def test_the_likelihood_of_the_nuisances_does_not_train_the_readout(dct: bool) -> None:
    clf = randomize(build_classifier((1, 8, 8), readout_first(dct), classes=CLASSES)).double()
    encoding = clf(torch.randn(4, 1, 8, 8, dtype=torch.float64))
    (encoding.nuisance.square().sum() - encoding.log_det.sum()).backward()
    readout = next(module for module in clf.modules() if isinstance(module, LogitReadout))
    flow = [module for module in clf.modules() if isinstance(module, (LogitActNorm, LogitConv1x1, LogitCoupling))]
    assert all(parameter.grad is None or parameter.grad.abs().max() < 1e-10 for parameter in readout.parameters())
    assert all(parameter.grad is not None and parameter.grad.abs().max() > 1e-6 for node in flow for parameter in node.parameters())


def test_a_subnet_that_takes_a_context_gets_vectors_apart_from_maps() -> None:
    seen: list[tuple[int, ...]] = []

    class Seen(nn.Module):
        def forward(self, x: Tensor, context: Tensor) -> Tensor:
            seen.extend((tuple(x.shape), tuple(context.shape)))
            return x.new_zeros(len(x), 6, *x.shape[2:])

    def subnet(channels_in: int, channels_out: int, *, context_channels: int, size: tuple[int, int]) -> nn.Module:
        seen.append((channels_in, channels_out, context_channels, *size))
        return Seen()

    node = LogitCoupling([(6, 2, 3)], [(2, 2, 3), (4,)], classes=3, subnet=subnet)
    node((torch.randn(7, 6, 2, 3),), c=(torch.randn(7, 2, 2, 3), torch.randn(7, 4)))
    assert seen == [(5, 6, 7, 2, 3), (7, 5, 2, 3), (7, 7)]


def test_a_subnet_of_a_readout_is_told_the_size_of_its_maps() -> None:
    seen: list[tuple[int, ...]] = []

    def subnet(channels_in: int, channels_out: int, *, size: tuple[int, int]) -> nn.Module:
        seen.append(size)
        return nn.Conv2d(channels_in, channels_out, 1)

    LogitReadout([(6, 2, 3)], classes=3, subnet=subnet)
    assert seen == [(2, 3)]
