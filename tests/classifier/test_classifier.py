"""InvertibleClassifier: a bijection, a density that integrates to 1, samples that follow it, and an ordinary module."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import tiny
import torch
from torch import Tensor, nn

import flowclf
from flowclf import Encoding, InvertibleClassifier, Preprocessing, build_classifier, build_graph
from flowclf.errors import GraphError, UsageError
from flowclf.losses import FactorialPriorMLE
from flowclf.nodes import set_subnet_dtype
from flowclf.priors import FactorialPrior


def test_the_contract(image_classifier: InvertibleClassifier) -> None:
    clf = image_classifier
    assert (clf.input_shape, clf.classes, clf.dimensions) == ((1, 8, 8), 4, 64)
    assert clf.class_names == ("0", "1", "2", "3")
    assert clf.device == torch.device("cpu")
    assert clf.dtype == torch.float32
    images = torch.rand(5, 1, 8, 8)
    x = clf.preprocessing(images)
    encoding = clf(x)
    assert isinstance(encoding, Encoding)
    assert (encoding.logits.shape, encoding.nuisance.shape, encoding.log_det.shape) == ((5, 4), (5, 60), (5,))
    again = clf.inverse(encoding.logits, encoding.nuisance)
    torch.testing.assert_close(again, x, atol=1e-4, rtol=0)
    torch.testing.assert_close(clf.preprocessing.inverse(again), images, atol=1e-4, rtol=0)
    assert all(map(torch.equal, clf.latents(x), encoding[:2]))
    assert [value.shape for value in clf.nuisance_maps(encoding.nuisance)] == [(5, 8, 2, 2), (5, 2, 4, 4)]


def test_latents_go_back_and_there_in_double_precision(image_classifier: InvertibleClassifier) -> None:
    clf = image_classifier.double()
    logits, nuisance = torch.randn(5, 4, dtype=torch.float64), torch.randn(5, 60, dtype=torch.float64)
    encoding = clf(clf.inverse(logits, nuisance))
    torch.testing.assert_close(encoding.logits, logits, atol=1e-10, rtol=0)
    torch.testing.assert_close(encoding.nuisance, nuisance, atol=1e-10, rtol=0)


def test_the_log_det_is_autograds(image_classifier: InvertibleClassifier) -> None:
    clf = image_classifier.double()
    x = torch.randn(1, 1, 8, 8, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda point: torch.cat(clf(point)[:2], dim=1)[0], x)
    expected = torch.linalg.slogdet(jacobian.reshape(64, 64)).logabsdet
    torch.testing.assert_close(clf(x).log_det[0], expected, atol=1e-8, rtol=0)


def test_the_prior_follows_the_head() -> None:
    clf = build_classifier((6,), [{"split_head": {"logit_scale": 3.0}}], classes=2)
    assert float(clf.prior.logit_mean) == 9.0
    clf = build_classifier((6,), [{"split_head": {"logit_scale": 3.0, "logit_mean": 5.0}}], classes=2)
    assert float(clf.prior.logit_mean) == 5.0


# The density.


def plane_classifier() -> InvertibleClassifier:
    """Two classes in the plane: a third entry leaves at once, and is Gaussian by itself."""
    nodes: list[Any] = [{"factor_out": {"keep": 2}}]
    for swap in (False, True):
        coupling = {"affine_coupling": {"subnet": tiny.DENSE, "bound": 0.5, "swap": swap}}
        nodes += ["actnorm", "invertible_conv1x1", coupling]
    clf = build_classifier((3,), [*nodes, {"split_head": {"logit_scale": 1.5, "logit_mean": 3.0}}], classes=2)
    return tiny.randomize(clf).double().eval()


def plane(clf: InvertibleClassifier, n: int = 500) -> tuple[Tensor, float, float]:
    """A grid over 9 deviations with the third entry at its mean, (n^2, 3); a cell's area; log-density of the third entry."""
    drawn = clf.sample(4000, generator=torch.Generator().manual_seed(5))
    axes = [
        torch.linspace(float(values.mean() - 9 * values.std()), float(values.mean() + 9 * values.std()), n)
        for values in drawn[:, :2].T
    ]
    area = float((axes[0][1] - axes[0][0]) * (axes[1][1] - axes[1][0]))
    third = clf.prior.mean[0].detach()
    points = torch.cartesian_prod(*axes).double()
    log_density = -math.log(2 * math.pi) / 2 - float(clf.prior.log_std[0].detach())
    return torch.cat((points, third.expand(n**2, 1)), dim=1), area, log_density


@torch.no_grad()
def densities(clf: InvertibleClassifier) -> tuple[Tensor, dict[int | None, Tensor]]:
    """Points in the plane and the probability of their cells: marginal, and given each class."""
    points, area, log_density = plane(clf)
    labels: list[int | None] = [None, 0, 1]
    weights = {}
    for label in labels:
        given = None if label is None else torch.full((len(points),), label)
        weights[label] = (clf.log_prob(points, given) - log_density).exp() * area
    return points[:, :2], weights


def test_log_prob_integrates_to_1_in_the_plane() -> None:
    _, weights = densities(plane_classifier())
    for total in (float(weight.sum()) for weight in weights.values()):
        assert abs(total - 1) < 1e-3


@torch.no_grad()
def test_log_prob_integrates_to_1_in_three_dimensions() -> None:
    nodes: list[Any] = [
        "actnorm",
        "invertible_conv1x1",
        {"affine_coupling": {"subnet": tiny.DENSE, "bound": 0.5}},
        {"affine_coupling": {"subnet": tiny.DENSE, "bound": 0.5, "swap": True}},
        "split_head",
    ]
    clf = tiny.randomize(build_classifier((3,), nodes, classes=2)).eval()
    drawn = clf.sample(4000)
    n, mean, reach = 90, drawn.mean(0), 7 * drawn.std(0)
    axes = [torch.linspace(float(m - r), float(m + r), n) for m, r in zip(mean, reach, strict=True)]
    points = torch.cartesian_prod(*axes)
    cell = math.prod(float(axis[1] - axis[0]) for axis in axes)
    total = sum(float(clf.log_prob(part).double().exp().sum()) for part in points.split(100_000))
    assert abs(total * cell - 1) < 1e-3


@pytest.mark.parametrize("label", [None, 0, 1])
def test_samples_have_the_moments_of_the_density(label: int | None) -> None:
    """First and second moments of 20000 samples against the integral, within five standard errors, which the integral gives."""
    clf = plane_classifier()
    points, weights = densities(clf)
    n = 20_000
    drawn = clf.sample(n, label, generator=torch.Generator().manual_seed(11))[:, :2]

    def moments(values: Tensor) -> Tensor:
        first, second = values[:, :1], values[:, 1:]
        return torch.cat((values, first**2, first * second, second**2), dim=1)

    weight = (weights[label] / weights[label].sum())[:, None]
    expected = (weight * moments(points)).sum(0)
    variance = (weight * moments(points) ** 2).sum(0) - expected**2
    assert ((moments(drawn).mean(0) - expected).abs() <= 5 * (variance / n).sqrt()).all()


def test_marginal_and_posterior_follow_from_the_class_densities(image_classifier: InvertibleClassifier) -> None:
    clf = image_classifier.double()
    x = torch.randn(6, 1, 8, 8, dtype=torch.float64)
    given_class = torch.stack([clf.log_prob(x, torch.full((6,), label)) for label in range(4)], dim=1)
    torch.testing.assert_close(clf.log_prob(x), torch.logsumexp(given_class, dim=1) - math.log(4))
    torch.testing.assert_close(given_class.softmax(1), clf(x).logits.softmax(1), atol=1e-11, rtol=0)


# Samples.


def test_the_generator_decides_the_samples(image_classifier: InvertibleClassifier) -> None:
    clf = image_classifier
    state = torch.get_rng_state()
    first, again, other = (clf.sample(6, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert first.shape == (6, 1, 8, 8)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not first.requires_grad


@pytest.mark.parametrize("labels", [2, [2] * 5, torch.full((5,), 2), torch.full((5,), 2, dtype=torch.int32), torch.tensor(2)])
def test_labels_in_any_form(image_classifier: InvertibleClassifier, labels: Any) -> None:
    clf = image_classifier
    cold = clf.sample(5, labels, temperature=0.0)
    encoding = clf(cold)
    expected = float(clf.prior.logit_mean) * torch.eye(4)[2].expand(5, 4)
    torch.testing.assert_close(encoding.logits, expected, atol=1e-3, rtol=0)
    torch.testing.assert_close(encoding.nuisance, clf.prior.mean.detach().expand(5, -1), atol=1e-3, rtol=0)


def test_classes_are_drawn_from_the_class_prior() -> None:
    """Each class is drawn 1/4 of 8000 times, within five standard errors."""
    clf = build_classifier((8,), [{"split_head": {"logit_mean": 400.0}}], classes=4)
    counts = clf(clf.sample(8000, generator=torch.Generator().manual_seed(0))).logits.argmax(1).bincount(minlength=4)
    assert ((counts - 2000).abs() <= 5 * math.sqrt(8000 * 0.25 * 0.75)).all()


@pytest.mark.parametrize(
    ("n", "labels"),
    [(0, None), (-1, None), (3, 4), (3, -1), (3, [0, 1]), (3, 1.0), (3, torch.zeros(3)), (2, []), (3, [0, 1, 4])],
)
def test_samples_that_cannot_be_are_refused(image_classifier: InvertibleClassifier, n: int, labels: Any) -> None:
    with pytest.raises(UsageError, match="sample: expected"):
        image_classifier.sample(n, labels)


# An ordinary module.


def test_logits_only_is_a_plain_classifier(image_classifier: InvertibleClassifier) -> None:
    clf = image_classifier
    images = torch.rand(5, 1, 8, 8)
    plain = clf.logits_only()
    assert isinstance(plain, nn.Module)
    assert torch.equal(plain(images), clf.logits(clf.preprocessing(images)))
    assert torch.equal(clf.logits_only(preprocess=False)(images), clf.logits(images))
    assert [id(value) for value in plain.parameters()] == [id(value) for value in clf.parameters()]
    images.requires_grad_()
    plain(images).sum().backward()
    assert images.grad is not None
    assert images.grad.any()


KEEPING: list[Any] = [{"logit_coupling": {"subnet": tiny.CONV, "swap": swap}} for swap in (True, False)]


@pytest.mark.parametrize(
    ("nodes", "left_out"),
    [
        (["squeeze", "squeeze", "actnorm", *KEEPING, "split_head"], 2),
        (["squeeze", "squeeze", *KEEPING, "actnorm", *KEEPING, "split_head"], 2),
        (["squeeze", "squeeze", "actnorm", *KEEPING, {"split_head": {"dct": False}}], 0),
        (["squeeze", "factor_out", "squeeze", *KEEPING, "split_head"], 2),
        (["squeeze", "squeeze", *KEEPING, "logit_readout", "split_head"], 0),
    ],
    ids=["two", "the last two", "no dct", "factored out", "read after"],
)
def test_logits_alone_do_without_what_only_changes_nuisances(nodes: list[Any], left_out: int) -> None:
    clf = tiny.randomize(build_classifier((1, 8, 8), nodes, classes=4), 0.1).eval()
    x = torch.randn(3, 1, 8, 8)
    ran: list[nn.Module] = []
    keeping = [node for node in clf.modules() if getattr(node, "preserves_logits", None)]
    for node in keeping:
        node.register_forward_hook(lambda node, given, result: ran.append(node))
    logits = clf.logits(x)
    assert len(ran) == len(keeping) - left_out
    torch.testing.assert_close(logits, clf(x).logits, atol=1e-4, rtol=0)
    assert clf(x).nuisance.shape == (3, 60)


@pytest.mark.parametrize("activations", ["store", "recompute"])
def test_logits_alone_have_the_gradient_of_the_whole(activations: Any) -> None:
    nodes = ["squeeze", "squeeze", "actnorm", {"affine_coupling": {"subnet": tiny.CONV}}, *KEEPING, "split_head"]
    clf = tiny.randomize(build_classifier((1, 8, 8), nodes, classes=4), 0.1).double()
    clf.activations = activations
    x = torch.randn(3, 1, 8, 8, dtype=torch.float64)
    clf.initialize(x)
    gradients = []
    for encode in (clf.logits, lambda x: clf(x).logits):
        clf.zero_grad()
        encode(x).square().sum().backward()
        gradients.append(torch.cat([value.grad.flatten() for value in clf.parameters() if value.grad is not None]))
    assert gradients[0].any()
    # Where nodes are left out, their parameters have no gradient; where they run, it is zero up to rounding.
    lengths = [len(gradient) for gradient in gradients]
    torch.testing.assert_close(gradients[0], gradients[1][: lengths[0]], atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(gradients[1][lengths[0] :], torch.zeros(lengths[1] - lengths[0]).double(), atol=1e-9, rtol=0)


def test_gradients_reach_every_parameter(image_classifier: InvertibleClassifier) -> None:
    clf = image_classifier.train()
    clf.log_prob(torch.randn(8, 1, 8, 8), torch.arange(8) % 4).sum().backward()
    assert all(value.grad is not None and value.grad.any() for value in clf.parameters())
    assert clf.parameter_count() == sum(value.numel() for value in clf.parameters())
    clf.prior.requires_grad_(False)
    assert clf.parameter_count() == sum(value.numel() for value in clf.graph.parameters())


def test_gradients_flow_through_the_inverse(image_classifier: InvertibleClassifier) -> None:
    logits, nuisance = torch.randn(2, 4, requires_grad=True), torch.randn(2, 60, requires_grad=True)
    image_classifier.inverse(logits, nuisance).square().sum().backward()
    assert logits.grad is not None
    assert nuisance.grad is not None
    assert logits.grad.any()
    assert nuisance.grad.any()


def test_moves_between_dtypes(image_classifier: InvertibleClassifier) -> None:
    clf = image_classifier
    x = torch.randn(3, 1, 8, 8)
    single = clf(x)
    double = clf.double()(x.double())
    assert {value.dtype for value in double} == {torch.float64}
    assert clf.dtype == torch.float64
    torch.testing.assert_close(double.logits.float(), single.logits, atol=1e-4, rtol=1e-4)
    assert clf.sample(2).dtype == torch.float64
    assert clf.inverse(*double[:2]).dtype == torch.float64
    back = clf.float()(x)
    assert all(map(torch.equal, back, single))


def test_moves_to_another_device(image_classifier: InvertibleClassifier) -> None:
    device = "cuda" if torch.cuda.is_available() else "meta"
    x = torch.randn(3, 1, 8, 8)
    expected = image_classifier(x)
    clf = copy.deepcopy(image_classifier).to(device)
    assert clf.device.type == device
    assert {value.device.type for value in (*clf.parameters(), *clf.buffers())} == {device}
    if device == "cuda":
        encoding = clf(x.to(device))
        assert {value.device.type for value in encoding} == {device}
        for value, other in zip(encoding, expected, strict=True):
            torch.testing.assert_close(value.cpu(), other, atol=1e-3, rtol=1e-3)
        assert clf.sample(2, [0, 1]).device.type == device


def test_someone_elses_autocast_changes_nothing(image_classifier: InvertibleClassifier) -> None:
    clf = image_classifier.train()
    x = torch.randn(3, 1, 8, 8)
    expected = clf(x)
    again = clf.inverse(*expected[:2])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = clf(x)
        inside_again = clf.inverse(*inside[:2])
    assert {value.dtype for value in inside} == {torch.float32}
    assert all(map(torch.equal, inside, expected))
    assert torch.equal(inside_again, again)


def test_initialisation_does_not_see_an_autocast_either() -> None:
    x = torch.randn(64, 1, 8, 8)
    outside = build_classifier((1, 8, 8), tiny.IMAGE_NODES, classes=4)
    inside = copy.deepcopy(outside)
    outside.initialize(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside.initialize(x)
    assert outside.initialized
    assert all(map(torch.equal, outside.state_dict().values(), inside.state_dict().values()))


def test_subnets_in_bf16_leave_the_stream_in_float32(image_classifier: InvertibleClassifier) -> None:
    clf = image_classifier
    x = torch.randn(3, 1, 8, 8)
    expected = clf(x)
    set_subnet_dtype(clf, torch.bfloat16)
    assert all(map(torch.equal, clf(x), expected))
    clf.train()
    rounded = clf(x)
    assert {value.dtype for value in rounded} == {torch.float32}
    assert not torch.equal(rounded.logits, expected.logits)
    torch.testing.assert_close(rounded.logits, expected.logits, atol=0.2, rtol=0.1)


def test_inference_first_training_later() -> None:
    clf = build_classifier((1, 6, 10), [{"squeeze": {}}, "affine_coupling", "split_head"], classes=3)
    with torch.inference_mode():
        clf(torch.randn(2, 1, 6, 10))
    clf(torch.randn(2, 1, 6, 10)).nuisance.sum().backward()


def test_initialises_all_actnorms_once(image_classifier: InvertibleClassifier) -> None:
    clf = build_classifier((1, 8, 8), tiny.IMAGE_NODES, classes=4)
    assert not clf.initialized
    clf(torch.randn(4, 1, 8, 8))
    assert not clf.initialized
    clf.initialize(torch.randn(64, 1, 8, 8))
    assert clf.initialized
    kept = copy.deepcopy(clf.state_dict())
    clf.initialize(100 * torch.randn(64, 1, 8, 8))
    assert all(map(torch.equal, clf.state_dict().values(), kept.values()))
    with pytest.raises(UsageError, match=r"\(B, 1, 8, 8\)"):
        clf.initialize(torch.randn(4, 3, 8, 8))


def test_state_dicts_round_trip(image_classifier: InvertibleClassifier) -> None:
    torch.manual_seed(99)
    other = build_classifier((1, 8, 8), tiny.IMAGE_NODES, classes=4).eval()
    other.load_state_dict(image_classifier.state_dict(), strict=True)
    x = torch.randn(3, 1, 8, 8)
    assert all(map(torch.equal, other(x), image_classifier(x)))
    assert torch.equal(other.log_prob(x), image_classifier.log_prob(x))


def test_deep_copies_are_equal_and_apart(image_classifier: InvertibleClassifier) -> None:
    clf = image_classifier
    again = copy.deepcopy(clf)
    x = torch.randn(3, 1, 8, 8)
    expected = clf(x)
    assert type(again) is InvertibleClassifier
    assert all(map(torch.equal, again(x), expected))
    assert torch.equal(again.inverse(*expected[:2]), clf.inverse(*expected[:2]))
    assert again.node_rows() == clf.node_rows()
    assert repr(again) == repr(clf)
    assert {id(value) for value in again.parameters()}.isdisjoint(id(value) for value in clf.parameters())
    tiny.randomize(again)
    assert all(map(torch.equal, clf(x), expected))
    assert not torch.equal(again(x).logits, expected.logits)
    # What runs are the copied nodes: every module of the copy's graph is one of its own.
    assert all(node.module in again.modules() for node in again.graph.node_list if node.module is not None)


def test_long_graphs_can_be_copied() -> None:
    """A node of FrEIA refers to its successor, so that copying recurses."""
    nodes = [{"repeat": 400, "nodes": ["actnorm"]}, "split_head"]
    clf = build_classifier((4,), nodes, classes=2)
    again = copy.deepcopy(clf)
    assert again.node_rows() == clf.node_rows()


def test_a_copied_loss_is_bound_to_the_copied_classifier(vector_classifier: InvertibleClassifier) -> None:
    loss = FactorialPriorMLE().bind(vector_classifier)
    classifier, copied = copy.deepcopy((vector_classifier, loss))
    assert copied.binding.prior is classifier.prior
    assert copied.binding.prior is not vector_classifier.prior


def test_the_repr_tells_the_architecture(image_classifier: InvertibleClassifier) -> None:
    lines = repr(image_classifier).splitlines()
    assert "1x8x8 -> 4 logits + 60 nuisances" in lines[0]
    assert f"{image_classifier.parameter_count():,} parameters" in lines[0]
    assert "Preprocessing" in lines[1]
    table = lines[2:-1]
    assert len(table) == len(image_classifier.node_rows()) == 14
    assert table[0].split() == ["1_squeeze", "1x8x8", "->", "4x4x4", "0"]
    assert table[-1].split() == ["14_split_head", "8x2x2", "+", "2x4x4", "->", "4", "+", "60", "0"]
    assert "FactorialPrior" in lines[-1]


# Mistakes.


@pytest.mark.parametrize(
    "x", [torch.randn(2, 8, 8), torch.randn(2, 3, 8, 8), torch.randn(2, 64), torch.zeros(2, 1, 8, 8, dtype=torch.uint8)]
)
def test_wrong_inputs_are_refused(image_classifier: InvertibleClassifier, x: Tensor) -> None:
    for function in (image_classifier, image_classifier.latents, image_classifier.log_prob):
        with pytest.raises(UsageError, match=r"\(B, 1, 8, 8\), found") as caught:
            function(x)
        assert str(tuple(x.shape)) in str(caught.value)


@pytest.mark.parametrize("shapes", [((2, 4), (2, 59)), ((2, 5), (2, 60)), ((2, 4), (3, 60)), ((2, 4, 1), (2, 60))])
def test_wrong_latents_are_refused(image_classifier: InvertibleClassifier, shapes: tuple[Any, Any]) -> None:
    with pytest.raises(UsageError, match=r"logits \(B, 4\) and nuisances \(B, 60\)"):
        image_classifier.inverse(*(torch.randn(shape) for shape in shapes))


@pytest.mark.parametrize("labels", [torch.tensor([1]), torch.tensor([0, 1, 2, 3]), torch.tensor(2)])
def test_labels_are_never_broadcast(image_classifier: InvertibleClassifier, labels: Tensor) -> None:
    with pytest.raises(UsageError, match="labels"):
        image_classifier.log_prob(torch.randn(3, 1, 8, 8), labels)


def test_parts_that_do_not_fit_the_graph_are_refused() -> None:
    graph = build_graph((1, 8, 8), ["squeeze", "split_head"], classes=4)
    with pytest.raises(UsageError, match=r"\(1, 6, 6\).*\(1, 8, 8\)"):
        InvertibleClassifier(graph, preprocessing=Preprocessing((1, 6, 6)))
    with pytest.raises(UsageError, match=r"5 logits and 59 nuisances.*4 and 60"):
        InvertibleClassifier(graph, prior=FactorialPrior(5, 59))
    with pytest.raises(UsageError, match="4 class names, found 2"):
        InvertibleClassifier(graph, class_names=["cat", "dog"])
    clf = InvertibleClassifier(graph, preprocessing=Preprocessing((1, 6, 6), pad=1), class_names=list("abcd"))
    assert clf.class_names == ("a", "b", "c", "d")
    with pytest.raises(GraphError):
        build_classifier((1, 8, 8), ["squeeze"], classes=4)


def test_everything_public_is_where_it_is_promised() -> None:
    assert flowclf.InvertibleClassifier is InvertibleClassifier
    assert flowclf.build_classifier is build_classifier


@pytest.mark.parametrize("dct", [False, True])
def test_the_inverse_keeps_channels_last_like_the_forward(dct: bool) -> None:
    """In another memory format convolutions take twice as long or more; so does a backward pass that recomputes activations."""
    subnet = {"conv": {"width": 4}}
    pair = [{"additive_coupling": {"subnet": subnet, "swap": swap}} for swap in (False, True)]
    clf = flowclf.build_classifier(
        (3, 16, 16), ["squeeze", *pair, "factor_out", "squeeze", *pair, {"split_head": {"dct": dct}}], 10
    )
    formats: list[bool] = []
    for module in clf.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_pre_hook(lambda _, args: formats.append(args[0].stride(1) == 1))
    clf.activations = "recompute"
    logits, nuisance = clf.latents(torch.randn(2, 3, 16, 16))
    (logits.sum() + nuisance.square().sum()).backward()
    clf.inverse(logits.detach(), nuisance.detach())
    assert len(formats) == 3 * 3 * 4
    assert all(formats)
