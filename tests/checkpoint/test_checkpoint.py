"""Checkpoints: what is saved comes back bit for bit; whatever is broken, foreign or hostile is refused and never run."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import pickle
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import FrEIA.framework as ff
import FrEIA.modules as fm
import nflows.transforms
import numpy as np
import pytest
import safetensors.torch
import tiny
import torch
from torch import Tensor, nn

from flowclf import InvertibleClassifier, Preprocessing, build_classifier, build_graph, checkpoint, load, registry, save
from flowclf.checkpoint import files
from flowclf.errors import CheckpointError, ChecksumError, FlowclfError, GraphError, UnreachableError, UsageError
from flowclf.nodes import AffineCoupling, FactorOut, SplitHead
from flowclf.priors import FactorialPrior


@pytest.fixture
def saved(image_classifier: InvertibleClassifier, tmp_path: Path) -> Path:
    return save(image_classifier, tmp_path / "model")


def outputs(clf: InvertibleClassifier) -> list[Tensor]:
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(3, *clf.input_shape, generator=generator).to(clf.dtype)
    encoding = clf(x)
    labels = torch.tensor([0, 1, 1])
    again = clf.inverse(encoding.logits, encoding.nuisance)
    return [*encoding, again, clf.log_prob(x), clf.log_prob(x, labels), clf.sample(3, labels, generator=generator)]


def set_weights(folder: Path, content: bytes) -> None:
    """Other weights, with the description's hash put right."""
    (folder / checkpoint.WEIGHTS).write_bytes(content)
    description = json.loads((folder / checkpoint.DESCRIPTION).read_text())
    description["weights"]["sha256"] = hashlib.sha256(content).hexdigest()
    (folder / checkpoint.DESCRIPTION).write_text(json.dumps(description))


def set_description(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    description = json.loads((folder / checkpoint.DESCRIPTION).read_text())
    change(description)
    (folder / checkpoint.DESCRIPTION).write_text(json.dumps(description))


# What comes back.


def test_comes_back_bit_for_bit(image_classifier: InvertibleClassifier, saved: Path) -> None:
    again = load(saved)
    assert not again.training
    assert all(map(torch.equal, outputs(again), outputs(image_classifier)))
    assert repr(again) == repr(image_classifier)
    assert again.state_dict().keys() == image_classifier.state_dict().keys()
    assert all(map(torch.equal, again.state_dict().values(), image_classifier.state_dict().values()))
    assert all(map(torch.equal, outputs(load(saved / checkpoint.DESCRIPTION)), outputs(image_classifier)))


def test_what_belongs_to_it_comes_back(tmp_path: Path) -> None:
    clf = InvertibleClassifier(
        build_graph((1, 8, 8), ["squeeze", "actnorm", {"split_head": {"logit_scale": 3.0}}], classes=3),
        preprocessing=Preprocessing((1, 6, 6), bits=5, pad=1),
        prior=FactorialPrior(3, 61, logit_mean=7.0),
        class_names=["a", "b", "ü"],
    )
    clf.initialize(torch.randn(16, 1, 8, 8))
    again = load(save(tiny.randomize(clf), tmp_path, metadata={"seed": 3}))
    assert again.class_names == ("a", "b", "ü")
    assert again.preprocessing.config() == clf.preprocessing.config()
    assert again.initialized
    assert all(map(torch.equal, outputs(again), outputs(clf.eval())))
    assert checkpoint.read_description(tmp_path)["metadata"] == {"seed": 3}


def test_a_loaded_classifier_can_be_trained_and_saved_again(saved: Path, tmp_path: Path) -> None:
    clf = load(saved)
    assert all(parameter.requires_grad and parameter.is_leaf for parameter in clf.parameters())
    optimizer = torch.optim.SGD(clf.parameters(), lr=1e-3)
    clf.log_prob(torch.randn(4, 1, 8, 8)).sum().backward()
    optimizer.step()
    assert all(map(torch.equal, outputs(load(save(clf, tmp_path / "again"))), outputs(clf)))


def test_keeps_or_casts_the_dtype(image_classifier: InvertibleClassifier, tmp_path: Path) -> None:
    clf = tiny.randomize(image_classifier.double(), 1e-3)
    save(clf, tmp_path)
    again = load(tmp_path)
    assert again.dtype == torch.float64
    assert all(map(torch.equal, outputs(again), outputs(clf)))
    assert load(tmp_path, dtype=torch.float32).dtype == torch.float32


def test_graphs_by_hand_of_registered_nodes_come_back(tmp_path: Path) -> None:
    source = ff.InputNode(8, name="vector")
    parts = ff.Node(source, FactorOut, {"keep": 5}, name="halve")
    side = ff.Node(parts.out1, AffineCoupling, {"subnet": {"dense": {"width": 4}}}, name="side")
    head = ff.Node([parts.out0, side.out0], SplitHead, {"classes": 3}, name="head")
    nodes = [source, parts, side, head, ff.OutputNode(head.out0, name="z_s"), ff.OutputNode(head.out1, name="z_n")]
    clf = tiny.randomize(InvertibleClassifier(nodes)).eval()
    assert all(map(torch.equal, outputs(load(save(clf, tmp_path))), outputs(clf)))


def test_nodes_and_subnets_of_ones_own_come_back_while_they_are_registered(tmp_path: Path, scratch_registries: None) -> None:
    @registry.subnets.register("mine")
    def mine(channels_in: int, channels_out: int, *, bias: bool = True) -> nn.Module:
        return nn.Linear(channels_in, channels_out, bias=bias)

    registry.nodes.register("shuffle")(fm.PermuteRandom)
    nodes = [{"shuffle": {"seed": 3}}, {"affine_coupling": {"subnet": {"mine": {"bias": False}}}}, "split_head"]
    clf = build_classifier((6,), nodes, classes=2).eval()
    save(clf, tmp_path)
    assert all(map(torch.equal, outputs(load(tmp_path)), outputs(clf)))
    del registry.nodes._local["shuffle"]
    with pytest.raises(CheckpointError, match="unknown node 'shuffle'"):
        load(tmp_path)


def test_the_random_state_is_left_alone(saved: Path) -> None:
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    load(saved)
    after = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]


def test_saving_twice_gives_the_same_bytes(image_classifier: InvertibleClassifier, tmp_path: Path) -> None:
    folders = [save(image_classifier, tmp_path / name) for name in "ab"]
    for name in (checkpoint.DESCRIPTION, checkpoint.WEIGHTS):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()
    assert sorted(os.listdir(folders[0])) == [checkpoint.DESCRIPTION, checkpoint.WEIGHTS]


def test_a_description_is_plain_and_names_registered_nodes_alone(saved: Path) -> None:
    description = checkpoint.read_description(saved)
    assert description["format"] == "flowclf-model"
    assert {row["kind"] for row in description["graph"]["nodes"]} <= set(registry.nodes.names())
    assert "." not in "".join(row["kind"] for row in description["graph"]["nodes"])


# What cannot be saved.


def unregistered() -> list[ff.Node]:
    source = ff.InputNode(6, name="input")
    permute = ff.Node(source, fm.PermuteRandom, {"seed": 1}, name="my permutation")
    head = ff.Node(permute, SplitHead, {"classes": 2}, name="head")
    return [source, permute, head, ff.OutputNode(head.out0, name="z_s"), ff.OutputNode(head.out1, name="z_n")]


def of_specs(*nodes: Any) -> InvertibleClassifier:
    return build_classifier((6,), [*nodes, "split_head"], classes=2)


class OwnPrior(FactorialPrior):
    """Not what a checkpoint describes."""


UNSAVABLE: dict[str, tuple[Callable[[], InvertibleClassifier], list[str]]] = {
    "unregistered node": (lambda: InvertibleClassifier(unregistered()), ["my permutation", "PermuteRandom"]),
    "function": (
        lambda: of_specs("actnorm", {"affine_coupling": {"subnet": lambda i, o: nn.Linear(i, o)}}),
        ["2_affine_coupling", "'subnet'", "function"],
    ),
    "transform": (
        lambda: of_specs({"nflows": {"transform": nflows.transforms.ReversePermutation(6)}}),
        ["1_nflows", "'transform'", "ReversePermutation"],
    ),
    "prior": (
        lambda: InvertibleClassifier(build_graph((6,), ["split_head"], classes=2), prior=OwnPrior(2, 4)),
        ["FactorialPrior", "OwnPrior"],
    ),
}


@pytest.mark.parametrize(("make", "words"), UNSAVABLE.values(), ids=UNSAVABLE)
def test_what_cannot_be_rebuilt_is_not_saved(make: Callable[[], InvertibleClassifier], words: list[str], tmp_path: Path) -> None:
    with pytest.raises((GraphError, CheckpointError)) as caught:
        save(make(), tmp_path / "model")
    assert all(word in str(caught.value) for word in words)
    assert not (tmp_path / "model").exists()


def test_a_refused_save_leaves_the_older_model(saved: Path, image_classifier: InvertibleClassifier) -> None:
    kept = {path.name: path.read_bytes() for path in saved.iterdir()}
    with pytest.raises(GraphError):
        save(InvertibleClassifier(unregistered()), saved)
    with pytest.raises(ValueError, match="JSON"):
        save(tiny.randomize(image_classifier), saved, metadata={"loss": float("nan")})
    assert json.loads(kept[checkpoint.DESCRIPTION]) == checkpoint.read_description(saved)
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == kept


# What is refused.


def test_a_flipped_bit_anywhere_in_the_weights_is_found(saved: Path) -> None:
    file = saved / checkpoint.WEIGHTS
    content = file.read_bytes()
    for position in [0, 7, 8, len(content) // 2, len(content) - 1]:
        broken = bytearray(content)
        broken[position] ^= 1
        file.write_bytes(broken)
        with pytest.raises(ChecksumError, match=r"model\.safetensors: expected SHA-256"):
            load(saved)
    file.write_bytes(content[:-1])
    with pytest.raises(ChecksumError):
        load(saved)
    file.unlink()
    with pytest.raises(UnreachableError, match=r"model\.safetensors"):
        load(saved)


def test_a_truncated_description_is_refused(saved: Path) -> None:
    file = saved / checkpoint.DESCRIPTION
    content = file.read_bytes()
    for length in range(0, len(content) - 2, 101):
        file.write_bytes(content[:length])
        with pytest.raises(CheckpointError, match=r"model\.json is not JSON"):
            load(saved)


@pytest.mark.parametrize(
    "content",
    [b"[]", b"3", b"null", b"\xff\xfe", b"[" * 100_000, b'{"a": 1}'],
    ids=["list", "number", "null", "bytes", "deep", "other"],
)
def test_what_is_no_description_is_refused(saved: Path, content: bytes) -> None:
    (saved / checkpoint.DESCRIPTION).write_bytes(content)
    with pytest.raises(CheckpointError, match=r"model\.json"):
        load(saved)


def test_a_description_has_a_largest_size(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_MAX_DESCRIPTION_BYTES", 100)
    with pytest.raises(CheckpointError, match="at most 100 bytes"):
        load(saved)


@pytest.mark.parametrize(
    ("key", "value"),
    [("format", "other"), ("format", None), ("version", 2), ("version", "1"), ("kind", "pickled"), ("kind", None)],
)
def test_another_format_version_or_kind_is_refused(saved: Path, key: str, value: Any) -> None:
    set_description(saved, lambda description: description.update({key: value}))
    with pytest.raises(CheckpointError) as caught:
        load(saved)
    assert repr(value) in str(caught.value)


def leaves(value: Any, *place: Any) -> Iterator[tuple[Any, ...]]:
    """Where every value of a JSON document is, containers too."""
    if place:
        yield place
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from leaves(item, *place, key)


def test_a_description_with_any_value_wrong_loads_or_is_refused(vector_classifier: Any, tmp_path: Path) -> None:
    """Whatever is put anywhere, nothing but flowclf's own errors comes out."""
    folder = save(vector_classifier, tmp_path)
    file = folder / checkpoint.DESCRIPTION
    description = json.loads(file.read_text())
    junk = [None, True, -1, float("inf"), "\x00", [], {"junk": 1}]
    refused = 0
    for *above, last in leaves(description):
        for value in [*junk, ...]:
            broken = copy.deepcopy(description)
            holder = broken
            for key in above:
                holder = holder[key]
            if value is ...:
                del holder[last]
            else:
                holder[last] = value
            file.write_text(json.dumps(broken))
            try:
                load(folder)
            except FlowclfError:
                refused += 1
    assert refused > 400


def test_tensors_must_be_those_of_the_graph(saved: Path) -> None:
    state = safetensors.torch.load_file(saved / checkpoint.WEIGHTS)
    name = "graph.module_list.1.bias"
    changes: dict[str, Callable[[dict[str, Tensor]], Any]] = {
        "missing": lambda tensors: tensors.pop(name),
        "extra": lambda tensors: tensors.update({"graph.more": torch.zeros(3)}),
        "shape": lambda tensors: tensors.update({name: torch.zeros(5)}),
        "integers": lambda tensors: tensors.update({name: torch.zeros(4, dtype=torch.int64)}),
    }
    for kind, change in changes.items():
        tensors = dict(state)
        change(tensors)
        set_weights(saved, safetensors.torch.save(tensors))
        with pytest.raises(CheckpointError, match=r"model\.safetensors") as caught:
            load(saved)
        assert ("graph.more" if kind == "extra" else name) in str(caught.value) or kind == "integers"


class Payload:
    """What a pickle can do to whoever opens it."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


def test_a_pickle_in_disguise_is_refused_and_does_not_run(saved: Path, tmp_path: Path) -> None:
    marker = tmp_path / "it ran"
    torch.save({"prior.mean": Payload(marker)}, tmp_path / "weights.pt")
    for content in (pickle.dumps(Payload(marker)), (tmp_path / "weights.pt").read_bytes()):
        set_weights(saved, content)
        with pytest.raises(CheckpointError, match="not a safetensors file"):
            load(saved)
        assert not marker.exists()
    pickle.loads(pickle.dumps(Payload(marker)))  # noqa: S301 - the payload does run where a pickle is opened
    assert marker.exists()


def test_weights_lie_beside_their_description(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere.safetensors").write_bytes((saved / checkpoint.WEIGHTS).read_bytes())
    names = ["../elsewhere.safetensors", str(tmp_path / "elsewhere.safetensors"), "a/../model.safetensors", "..", ".", ""]
    for name in [*names, "model.json", "model.bin", None, 3]:
        set_description(saved, lambda description, name=name: description["weights"].update(file=name))
        with pytest.raises(CheckpointError, match=r"model\.json"):
            load(saved)


def test_what_is_not_there_is_a_mistake_of_the_caller(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(UsageError, match=r"is not a model: expected a folder that holds model\.json"):
            load(path)


def test_a_place_that_cannot_hold_a_model_is_told_at_once(image_classifier: InvertibleClassifier, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    (tmp_path / "taken" / "model.json").mkdir(parents=True)
    for place, words in (
        (file, "file is not a folder"),
        (file / "model", "file is not a folder"),
        (Path("/proc/model"), "/proc/model"),
        (tmp_path / "taken", r"model\.json cannot be written: expected a file, found a folder"),
    ):
        with pytest.raises(UsageError, match=words):
            save(image_classifier, place)
    assert sorted(tmp_path.rglob("*")) == [file, tmp_path / "taken", tmp_path / "taken" / "model.json"]
    with pytest.raises(UsageError, match="expected a flowclf Classifier, found a Linear"):
        save(torch.nn.Linear(2, 2), tmp_path / "new")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="metadata: expected a mapping, found a int"):
        save(image_classifier, tmp_path / "new", metadata=3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="metadata: expected what JSON can hold: Object of type Tensor"):
        save(image_classifier, tmp_path / "new", metadata={"x": torch.zeros(1)})
    assert not (tmp_path / "new").exists()


def test_a_disk_that_fails_is_told(image_classifier: InvertibleClassifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "write_json", full)
    with pytest.raises(CheckpointError, match=r"cannot be written: .*No space left on device"):
        save(image_classifier, tmp_path / "model")


def test_a_device_or_type_that_torch_lacks(saved: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot be loaded to device 'tpu' as"):
        load(saved, device="tpu")
    for wrong in (torch.int32, "float64"):
        with pytest.raises(UsageError, match=f"computes in float32 or float64, found {wrong}"):
            load(saved, dtype=wrong)  # type: ignore[arg-type]
