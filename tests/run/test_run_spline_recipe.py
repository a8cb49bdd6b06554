"""A classifier of spline couplings from a recipe: it trains, saves, loads and inverts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from flowclf import load, save
from flowclf.nodes import Coupling, RationalQuadratic
from flowclf.recipe import loads, resolved
from flowclf.recipe.building import build_trainer

BLOCK = """
  - squeeze
  - repeat: 2
    nodes:
      - actnorm
      - invertible_conv1x1
      - coupling: {transformer: {rational_quadratic: {bins: 4, bound: 4.0}}, subnet: {conv: {width: 8}}}
  - factor_out
  - squeeze
  - coupling: {transformer: rational_quadratic, subnet: {dense: {width: 16}}, swap: true}
  - split_head"""
MODELS = {"nodes": BLOCK, "firevnet": "{name: firevnet, blocks: 1, width: 8, coupling: rational_quadratic}"}
RECIPE = """
name: splines
data: {{name: mnist, batch_size: 64, train_limit: 256, bits: 4}}
model: {model}
loss: [{{name: cross_entropy}}, {{name: factorial_prior_mle, weight: 0.1}}]
train: {{epochs: 1, optimizer: {{name: adam, lr: 0.005}}, precision: bf16, activations: {activations}}}
"""


@pytest.mark.parametrize("activations", ["store", "recompute"])
@pytest.mark.parametrize("model", MODELS)
def test_it_trains_saves_loads_and_inverts(model: str, activations: str, tmp_path: Path) -> None:
    recipe = loads(RECIPE.format(model=MODELS[model], activations=activations)).recipe
    assert "rational_quadratic" in str(resolved(recipe)["model"])
    trainer = build_trainer(recipe, torch.device("cpu"))
    clf, images = trainer.classifier, trainer.data.test.inputs[:64]
    splines = [node for node in clf.modules() if isinstance(node, Coupling)]
    assert all(isinstance(node.transformer, RationalQuadratic) for node in splines)
    before = [node.subnet[-1].weight.clone() for node in splines]
    trainer.run()
    trainer.finish()
    assert all((node.subnet[-1].weight - start).abs().max() > 1e-3 for node, start in zip(splines, before, strict=True))
    again = load(save(clf, tmp_path))
    x = clf.preprocessing.dequantize(images)
    with torch.no_grad():
        encoding = again(x)
        assert all(map(torch.equal, encoding, clf(x)))
        torch.testing.assert_close(again.inverse(encoding.logits, encoding.nuisance), x, atol=2e-3, rtol=0)
        exact = again.double()
        encoding = exact(x.double())
        torch.testing.assert_close(exact.inverse(encoding.logits, encoding.nuisance), x.double(), atol=1e-8, rtol=0)
