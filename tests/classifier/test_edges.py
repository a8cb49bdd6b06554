"""Empty batches, precisions, deep graphs and padding on some sides."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from torch import Tensor

import flowclf
from flowclf import InvertibleClassifier, Preprocessing
from flowclf.architectures.firevnet import firevnet
from flowclf.architectures.nuisance_classifiers import ConvolutionalProbe
from flowclf.errors import GraphError, UsageError

SPLINES: list[Any] = [
    "squeeze",
    "permutation",
    {"coupling": {"transformer": "rational_quadratic", "subnet": "dense"}},
    {"coupling": {"transformer": "rational_quadratic"}},
    "split_head",
]


def _all() -> list[InvertibleClassifier]:
    splines = flowclf.build_classifier((1, 8, 8), SPLINES, 4).eval()
    grid = flowclf.build_classifier(
        (1, 8, 8), ["squeeze", "additive_coupling", {"split_head": {"dct": False}}], 4, stream="fixed_point"
    )
    readout = {"order": "readout_first", "readout": {"cnn": {"widths": [4]}}, "blocks": 1, "width": 4}
    first = [firevnet(**readout), firevnet(**readout, dct=False, fold=True, pixelwise=True)]
    readouts = [flowclf.build_classifier((1, 8, 8), specs, 4).eval() for specs in first]
    return [tiny.image_classifier(), tiny.vector_classifier(), splines, grid.eval(), *readouts]


@pytest.mark.parametrize("activations", ["store", "recompute"])
def test_an_empty_batch_gives_empty_results(activations: Any) -> None:
    for clf in _all():
        clf.activations = activations
        size, classes = clf.dimensions, clf.classes
        x = torch.zeros(0, *clf.input_shape, requires_grad=True)
        encoding = clf(x)
        assert [tuple(value.shape) for value in encoding] == [(0, classes), (0, size - classes), (0,)]
        sum(value.sum() for value in encoding).backward()
        assert x.grad is not None
        encoding = encoding.detach()
        again = clf.inverse(encoding.logits.requires_grad_(), encoding.nuisance)
        assert again.shape == x.shape
        again.sum().backward()
        images = torch.zeros(0, *clf.preprocessing.image_shape)
        assert clf.logits_only()(images).shape == (0, classes)
        assert clf.log_prob(x).shape == clf.log_prob(x, torch.zeros(0, dtype=torch.int64)).shape == (0,)
        assert flowclf.metamers.metamer(clf, x, x).shape == x.shape
        maps = clf.nuisance_maps(encoding.nuisance)
        assert [tuple(part.shape) for part in maps] == [
            (0, *part.shape[1:]) for part in clf.nuisance_maps(torch.zeros(1, size - classes))
        ]
        if len(clf.input_shape) == 3:
            assert ConvolutionalProbe(clf, classes).eval()(encoding.nuisance).shape == (0, classes)
        with pytest.raises(UsageError, match="initialize: expected at least one input"):
            clf.initialize(x)


def test_an_empty_batch_of_a_plain_network() -> None:
    clf = flowclf.plain_classifier((1, 8, 8), {"plain_cnn": {"widths": [4, 8], "hidden": 8}}, 4).eval()
    assert clf.logits_only()(torch.zeros(0, 1, 8, 8)).shape == (0, 4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float8_e4m3fn, torch.int32, torch.complex64])
def test_other_precisions_are_refused_when_a_model_is_loaded(dtype: torch.dtype, tmp_path: Path) -> None:
    folder = flowclf.save(tiny.image_classifier(), tmp_path)
    with pytest.raises(UsageError, match=f"float32 or float64, found {dtype} for its parameters.*inverse does not restore"):
        flowclf.load(folder, dtype=dtype)
    assert flowclf.load(folder, dtype=torch.float64).sample(2).dtype == torch.float64


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_other_precisions_are_refused_in_a_call(dtype: torch.dtype) -> None:
    clf = tiny.image_classifier()
    x = torch.rand(2, 1, 8, 8)
    with pytest.raises(UsageError, match=f"{dtype} for its inputs"):
        clf(x.to(dtype))
    clf.to(dtype)
    for call in (lambda: clf.sample(2), lambda: clf.logits_only()(x.to(dtype)), lambda: clf.log_prob(x)):
        with pytest.raises(UsageError, match=f"float32 or float64, found {dtype}"):
            call()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_plain_network_runs_in_16_bits(dtype: torch.dtype, tmp_path: Path) -> None:
    clf = flowclf.plain_classifier((1, 8, 8), {"plain_cnn": {"widths": [4, 8], "hidden": 8}}, 4)
    again = flowclf.load(flowclf.save(clf, tmp_path), dtype=dtype)
    assert again.logits_only()(torch.rand(2, 1, 8, 8, dtype=dtype)).dtype == dtype
    with pytest.raises(UsageError, match=r"16 bits or more, found torch\.int8"):
        flowclf.load(tmp_path, dtype=torch.int8)


def _deep() -> InvertibleClassifier:
    pair = ["actnorm", {"additive_coupling": {"subnet": {"dense": {"width": 2, "hidden_layers": 0}}}}]
    clf = flowclf.build_classifier((4,), [{"repeat": 500, "nodes": pair}, "split_head"], 2)
    return tiny.randomize(clf, 0.01).eval()


def _saved_by_torch(clf: InvertibleClassifier) -> Any:
    file = io.BytesIO()
    torch.save(clf, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("make", [_deep, tiny.image_classifier])
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda clf: pickle.loads(pickle.dumps(clf)), _saved_by_torch])  # noqa: S301
def test_a_graph_of_any_depth_is_copied(make: Callable[[], InvertibleClassifier], copied: Callable[[Any], Any]) -> None:
    clf = make()
    x = torch.rand(2, *clf.input_shape)
    again = copied(clf)
    for found, expected in zip(again(x), clf(x), strict=True):
        assert torch.equal(found, expected)
    assert repr(again) == repr(clf)
    own = {id(parameter) for parameter in clf.parameters()}
    assert own.isdisjoint(id(parameter) for parameter in again.parameters())
    # The nodes run the copied modules, in which weights are loaded.
    assert [node.module for node in again.graph.node_list if node.module is not None] == list(again.graph.module_list)


def test_a_graph_is_copied_alone() -> None:
    graph = _deep().graph
    assert [node.name for node in copy.deepcopy(graph).node_list] == [node.name for node in graph.node_list]


def test_a_given_graph_stays_as_it_is() -> None:
    given = tiny.vector_classifier().graph
    before = list(given.node_list)
    clf = InvertibleClassifier(given)
    assert clf.graph is not given
    assert given.node_list == before
    assert list(clf.graph.module_list) == list(given.module_list)


@pytest.mark.parametrize("image_shape", [(1, 27, 27), (3, 29, 31), (1, 28, 28)])
@pytest.mark.parametrize("stages", [1, 3])
def test_the_error_names_the_padding_that_helps(image_shape: tuple[int, ...], stages: int) -> None:
    nodes = firevnet(stages=stages, blocks=1, width=4)
    padding: Any = 0
    try:
        flowclf.build_classifier(image_shape, nodes, 4)
    except GraphError as error:
        text = str(error).partition("pad: [")[2].partition("]")[0]
        padding = [int(side) for side in text.split(",")]
        assert max(padding) > 0
    else:
        assert image_shape == (1, 28, 28)
        assert stages == 1
    preprocessing = Preprocessing(image_shape, bits=4, pad=padding)
    clf = flowclf.build_classifier(preprocessing.input_shape, nodes, 4, preprocessing=preprocessing)
    images = torch.rand(2, *image_shape)
    torch.testing.assert_close(clf.preprocessing.inverse(clf.preprocessing(images)), images)


def test_padding_does_not_help_where_nothing_is_missing() -> None:
    with pytest.raises(GraphError, match=r"divisible by 2, found \(4,\)$"):
        flowclf.build_classifier((4,), ["squeeze", "split_head"], 2)


def _sides(x: Tensor) -> Tensor:
    return x[..., 3:30, 1:28]


def test_padding_on_some_sides_is_noise_and_left_out(tmp_path: Path) -> None:
    preprocessing = Preprocessing((1, 27, 27), bits=3, pad=[1, 3, 4, 2])
    assert preprocessing.input_shape == (1, 32, 32)
    pixels = torch.full((5, 1, 27, 27), 255, dtype=torch.uint8)
    x = preprocessing.dequantize(pixels, torch.Generator().manual_seed(0))
    inside = torch.zeros(32, 32, dtype=torch.bool)
    _sides(inside)[:] = True
    assert x[..., inside].min() >= 0.75
    assert x[..., ~inside].max() < -0.75
    torch.testing.assert_close(_sides(preprocessing(pixels / 255)), torch.full((5, 1, 27, 27), 0.875))
    assert preprocessing.inverse(x).shape == preprocessing.outside(x).shape == pixels.shape
    assert preprocessing.bits_per_dim(torch.zeros(1)).item() == pytest.approx(2 * 32 * 32 / 27**2)
    clf = flowclf.build_classifier((1, 32, 32), ["squeeze", "split_head"], 4, preprocessing=preprocessing)
    assert flowclf.load(flowclf.save(clf, tmp_path)).preprocessing.config() == preprocessing.config()
    assert repr(Preprocessing((1, 8, 8), pad=[2, 2, 2, 2])) == repr(Preprocessing((1, 8, 8), pad=2))


@pytest.mark.parametrize("pad", [-1, [1, 2], [0, 0, 0, -1], [0.5] * 4])
def test_padding_is_four_numbers_of_pixels(pad: Any) -> None:
    with pytest.raises(UsageError, match="0 or more pixels, or four such numbers"):
        Preprocessing((1, 8, 8), pad=pad)
