"""Architectures: plain lists of specs, each of which builds a classifier that inverts, saves and loads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from flowclf import build_classifier, load, registry, save
from flowclf.architectures.firevnet import firevnet, firevnet_fc
from flowclf.architectures.firevnet48 import firevnet48
from flowclf.errors import GraphError, UsageError

REGISTERED = registry.models.names()
PLAIN = {"plain_cnn"}  # have a file of their own
SMALL = {"blocks": 1, "width": 4}
FIRST = {"order": "readout_first", "readout": {"cnn": {"widths": [3, 4], "convolutions": 1}}, "logit_scale": 2.0}
CASES: dict[str, tuple[str, tuple[int, ...], dict[str, Any]]] = {
    "default": ("firevnet", (1, 8, 8), {"width": 8}),
    "additive, lu": ("firevnet", (1, 8, 8), {**SMALL, "coupling": "additive", "mixing": "lu"}),
    "factored out": ("firevnet", (3, 8, 8), {"stages": 3, **SMALL, "factor_out": True}),
    "batch norm": ("firevnet", (1, 8, 8), {**SMALL, "normalization": "batch", "logit_couplings": 1}),
    "logit couplings": ("firevnet", (1, 8, 8), {**SMALL, "logit_couplings": 2, "logit_scale": 2.0, "logit_mean": 4.0}),
    "readout": ("firevnet", (1, 8, 8), {**SMALL, "readout_width": 4, "logit_couplings": 1, "logit_scale": 2.0}),
    "pixels": ("firevnet", (1, 4, 4), {"stages": 1, **SMALL, "dct": False}),
    "pixels, logit couplings": ("firevnet", (1, 8, 8), {**SMALL, "dct": False, "readout_width": 4, "logit_couplings": 1}),
    "readout first": ("firevnet", (1, 8, 8), {**SMALL, **FIRST}),
    "readout first, corner": (
        "firevnet",
        (3, 8, 8),
        {
            "blocks": [2, 1],
            "width": [4, 6],
            **FIRST,
            "dct": False,
        },
    ),
    "readout first, pixelwise": ("firevnet", (1, 8, 8), {**SMALL, **FIRST, "pixelwise": True}),
    "readout first, corner, pixelwise": ("firevnet", (3, 8, 8), {**SMALL, **FIRST, "dct": False, "pixelwise": True}),
    "readout first, fold": ("firevnet", (1, 8, 8), {**SMALL, **FIRST, "dct": False, "fold": True}),
    "readout first, gaussianize": ("firevnet", (1, 8, 8), {**SMALL, **FIRST, "dct": False, "gaussianize": True}),
    "permutations": ("firevnet", (1, 8, 8), {**SMALL, "coupling": "additive", "mixing": "permutation", "actnorm": False}),
    "splines": ("firevnet", (1, 8, 8), {**SMALL, "coupling": "rational_quadratic"}),
    "lists": ("firevnet", (1, 8, 8), {"blocks": [2, 1], "width": [4, 8]}),
    "photographs": ("firevnet48", (3, 8, 8), {"input_squeezes": 1, "blocks": [2, 3], "width": [4, 6]}),
    "photographs, no norm": (
        "firevnet48",
        (1, 8, 8),
        {"blocks": 1, "width": [4], "normalization": "none", "affine_stages": 0, "logit_couplings": 1, "logit_scale": 2.0},
    ),
    "vectors": ("firevnet_fc", (7,), {"width": 8}),
    "vectors, permutations": ("firevnet_fc", (7,), {**SMALL, "mixing": "permutation"}),
    "vectors, splines": ("firevnet_fc", (7,), {**SMALL, "coupling": "rational_quadratic"}),
    "vectors, affine": ("firevnet_fc", (7,), {**SMALL, "coupling": "affine", "actnorm": True, "mixing": "lu"}),
}
every_case = pytest.mark.parametrize(("name", "shape", "arguments"), CASES.values(), ids=CASES)


def test_every_registered_architecture_has_a_case() -> None:
    assert {name for name, _, _ in CASES.values()} | PLAIN == set(REGISTERED)


@every_case
def test_builds_a_classifier_that_inverts(name: str, shape: tuple[int, ...], arguments: dict[str, Any]) -> None:
    specs = registry.models.get(name)(**arguments)
    clf = tiny.randomize(build_classifier(shape, specs, classes=4), 0.1).double()
    x = torch.randn(8, *shape, dtype=torch.float64)
    clf(x)
    clf.eval()
    encoding = clf(x)
    torch.testing.assert_close(clf.inverse(encoding.logits, encoding.nuisance), x, atol=1e-10, rtol=0)
    jacobian = torch.autograd.functional.jacobian(lambda point: torch.cat(clf(point)[:2], dim=1)[0], x[:1])
    expected = torch.linalg.slogdet(jacobian.reshape(clf.dimensions, -1)).logabsdet
    torch.testing.assert_close(encoding.log_det[0], expected, atol=1e-8, rtol=0)
    assert float(clf.prior.logit_mean) == arguments.get("logit_mean", 25.0)


@every_case
def test_is_plain_data_that_can_be_saved(name: str, shape: tuple[int, ...], arguments: dict[str, Any], tmp_path: Path) -> None:
    specs = registry.models.get(name)(**arguments)
    assert json.loads(json.dumps(specs)) == specs
    clf = tiny.randomize(build_classifier(shape, specs, classes=4), 0.1).eval()
    x = torch.randn(2, *shape)
    assert all(map(torch.equal, load(save(clf, tmp_path))(x), clf(x)))


def test_the_plan_of_the_default() -> None:
    kinds = [row.kind for row in build_classifier((1, 28, 28), firevnet(width=4), classes=10).node_rows()]
    block = ["actnorm", "invertible_conv1x1", "affine_coupling"]
    assert kinds == ["squeeze", *block * 4, "squeeze", *block * 4, "actnorm", "split_head"]


def test_a_plan_for_a_stream_in_fixed_point() -> None:
    arguments = {"stages": 1, "coupling": "additive", "mixing": "permutation", "actnorm": False, "dct": False}
    clf = build_classifier((1, 8, 8), firevnet(blocks=1, width=4, **arguments), classes=4, stream="fixed_point")
    assert [row.kind for row in clf.node_rows()] == ["squeeze", "permutation", "additive_coupling", "split_head"]


def test_the_plan_of_couplings_given_the_logits() -> None:
    clf = build_classifier((1, 8, 8), firevnet(blocks=1, width=4, readout_width=4, logit_couplings=2), classes=4)
    kinds = [row.kind for row in clf.node_rows()]
    assert kinds[kinds.index("logit_readout") :] == ["logit_readout", *["logit_coupling"] * 4, "split_head"]


def test_the_plan_of_a_readout_first() -> None:
    block = ["logit_actnorm", "logit_conv1x1", "logit_coupling"]
    plan = ["logit_readout", "squeeze", *block, "squeeze", *block]
    for options, more in (({}, []), ({"pixelwise": True}, ["logit_actnorm"])):
        rows = build_classifier((1, 8, 8), firevnet(**SMALL, **FIRST, **options), classes=4).node_rows()
        assert [row.kind for row in rows] == [*plan, *more, "split_head"]


def test_the_plan_of_the_network_for_photographs() -> None:
    rows = build_classifier((3, 224, 224), firevnet48(), classes=1000).node_rows()
    stages = [*["additive_coupling"] * 4, "squeeze"] * 3 + ["affine_coupling"] * 4
    assert [row.kind for row in rows] == ["squeeze", "squeeze", *stages, "split_head"]
    assert [row.shapes_out[0] for row in rows if row.kind == "squeeze"][1:] == [
        (48, 56, 56),
        (192, 28, 28),
        (768, 14, 14),
        (3072, 7, 7),
    ]
    assert sum(row.parameters for row in rows) == pytest.approx(22.9e6, rel=0.01)


def test_logits_for_photographs_are_averaged_channels() -> None:
    """Appendix B.3: the lowest frequency of an orthonormal DCT-II is the mean times sqrt(H W)."""
    clf = tiny.randomize(
        build_classifier((3, 32, 32), firevnet48(input_squeezes=1, blocks=2, width=[8, 8, 8]), classes=20), 0.1
    ).eval()
    maps: list[torch.Tensor] = []
    head = clf.graph.module_list[-1] if hasattr(clf.graph, "module_list") else None
    assert head is not None
    head.register_forward_pre_hook(lambda module, inputs: maps.append(inputs[0][0]))
    with torch.no_grad():
        logits = clf(torch.randn(5, 3, 32, 32)).logits
    assert maps[0].shape == (5, 192, 4, 4)
    torch.testing.assert_close(logits, maps[0].mean((2, 3))[:, :20] * 4, atol=1e-5, rtol=0)


def test_more_affine_stages_than_stages_are_refused() -> None:
    with pytest.raises(UsageError, match="affine_stages: expected at most 2, the number of widths, found 3"):
        firevnet48(width=[4, 4], affine_stages=3)


def test_blocks_and_widths_are_by_stage() -> None:
    clf = build_classifier((1, 8, 8), firevnet(blocks=[1, 2], width=[4, 6]), classes=4)
    widths = [module.out_channels for module in clf.modules() if isinstance(module, torch.nn.Conv2d)]
    assert widths[1::3] == [4, 6, 6]


def test_additive_couplings_keep_volume() -> None:
    clf = build_classifier((7,), firevnet_fc(width=8, logit_scale=1.0), classes=3)
    tiny.randomize(clf)
    torch.testing.assert_close(clf(torch.randn(4, 7)).log_det, torch.zeros(4), atol=1e-6, rtol=0)


@pytest.mark.parametrize("arguments", [{"blocks": [1, 2, 3]}, {"width": [8]}])
def test_lists_of_another_length_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"firevnet: .* entries for 2 stages"):
        firevnet(**arguments)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("readout", {"readout": "cnn"}),
        ("pixelwise", {"pixelwise": True}),
        ("fold", {"fold": True}),
        ("gaussianize", {"gaussianize": True}),
        ("readout_width", {**FIRST, "readout_width": 4}),
        ("readout_blocks", {**FIRST, "readout_blocks": 3}),
        ("coupling", {**FIRST, "coupling": "additive"}),
        ("mixing", {**FIRST, "mixing": "permutation"}),
        ("factor_out", {**FIRST, "factor_out": True}),
    ],
)
def test_what_an_order_does_not_use_is_refused(name: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=rf"firevnet: {name}: .* does not fit order: readout_(first|last)"):
        firevnet(**arguments)


@pytest.mark.parametrize("name", ["fold", "gaussianize"])
def test_nodes_for_pixels_need_a_head_that_reads_pixels(name: str) -> None:
    with pytest.raises(UsageError, match=f"firevnet: {name}: True needs dct: False"):
        firevnet(**FIRST, **{name: True})


def test_a_coupling_that_is_not_there_is_refused_when_the_graph_is_built() -> None:
    with pytest.raises(GraphError, match="unknown transformer 'afine'; did you mean 'affine'"):
        build_classifier((1, 8, 8), firevnet(coupling="afine"), classes=4)
