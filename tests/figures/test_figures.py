from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread

from flowclf.errors import UsageError
from flowclf.evaluation import Evaluation
from flowclf.figures import (
    calibration_diagram,
    interpolation_grid,
    metamer_grid,
    plane_panels,
    sample_grid,
    save_figure,
    style,
    training_curves,
    write_figures,
    writing,
)

NAMES = ("zero", "one", "a very long class name")
ROWS = [
    {"epoch": 1, "step": 10, "learning_rate": 0.1, "train.loss": 2.0, "train.cross_entropy_nats": 1.0, "seconds.train": 3.0},
    {"epoch": 2, "step": 20, "learning_rate": 0.05, "train.loss": 1.0, "train.cross_entropy_nats": 0.5, "validation.error": 0.25},
]


def arrays(channels: int = 1) -> dict[str, dict[str, np.ndarray[Any, Any]]]:
    random = np.random.default_rng(0)

    def pictures(*shape: int) -> np.ndarray[Any, Any]:
        return random.integers(0, 256, (*shape, channels, 8, 8), dtype=np.uint8)

    labels = {"logits_of_label": np.array([0, 1, 2]), "nuisance_of_label": np.array([1, 2, 0])}
    return {
        "metamers": {
            "logits_of": pictures(3),
            "metamer": pictures(3),
            "nuisance_of": pictures(3),
            "logits_of_prediction": np.array([0, 1, 1]),
            "metamer_prediction": np.array([0, 2, 1]),
            "nuisance_of_prediction": np.array([1, 2, 0]),
            **labels,
        },
        "interpolations": {"steps": pictures(5, 3), "target": pictures(3), **labels},
        "samples": {"samples": pictures(3, 4)},
        "calibration": {
            "counts": np.array([0.0, 10, 90]),
            "confidence": np.array([0, 0.5, 0.9]),
            "accuracy": np.array([0, 0.6, 0.9]),
        },
    }


def captions(figure: Any) -> list[str]:
    return [text.get_text().replace("\n", " ") for text in figure.axes[0].texts]


def colours(figure: Any) -> dict[str, str]:
    return {text.get_text().replace("\n", " "): text.get_color() for text in figure.axes[0].texts}


def test_a_metamer_grid_has_the_papers_rows_and_says_what_is_read() -> None:
    figure = metamer_grid(arrays()["metamers"], NAMES)
    assert captions(figure) == [
        *("logits from", "zero", "one", "a very long…, read as one"),
        *("metamer", "reads zero", "reads a very long…", "reads one"),
        *("nuisances from", "one", "a very long…", "zero"),
    ]
    shown = [image.get_array() for image in figure.axes[0].images]
    drawn = arrays()["metamers"]
    expected = [picture[0] for name in ("logits_of", "metamer", "nuisance_of") for picture in drawn[name]]
    assert all(np.array_equal(one, other) for one, other in zip(shown, expected, strict=True))


def test_captions_are_no_wider_than_their_pictures() -> None:
    figure = metamer_grid(arrays()["metamers"], ("n02099601", "n0213844", "red hyena"))
    figure.canvas.draw()
    pictures = [image.get_window_extent() for image in figure.axes[0].images]
    boxes = [text.get_window_extent() for text in figure.axes[0].texts if text.get_va() == "top"]
    assert len(boxes) == len(pictures) == 9
    for box, picture in zip(boxes, pictures, strict=True):
        assert box.width <= picture.width + 8
        assert box.y1 <= picture.y0
    rows = [boxes[start : start + 3] for start in (0, 3, 6)]
    assert all(box.y0 >= pictures[3 * (row + 1)].y1 for row in (0, 1) for box in rows[row])


def test_what_is_misread_is_red() -> None:
    found = colours(metamer_grid(arrays()["metamers"], NAMES))
    assert found["reads zero"] != found["reads a very long…"] == found["a very long…, read as one"]
    assert found["reads one"] == found["zero"] == found["reads zero"]


def test_a_metamer_grid_without_labels_has_predictions() -> None:
    unlabelled = {name: array for name, array in arrays()["metamers"].items() if not name.endswith("_label")}
    assert captions(metamer_grid(unlabelled, NAMES))[:4] == ["logits from", "zero", "one", "one"]


def test_interpolations_go_down_the_column() -> None:
    figure = interpolation_grid(arrays()["interpolations"], NAMES)
    assert [text for text in captions(figure) if text not in ("zero", "one", "a very long…")] == [
        *("original", "25 %", "50 %", "75 %", "metamer", "target")
    ]
    assert len(figure.axes[0].images) == 18


def test_samples_are_named_by_class() -> None:
    figure = sample_grid(arrays()["samples"], NAMES)
    assert captions(figure) == ["zero", "one", "a very long…"]
    assert len(figure.axes[0].images) == 12


def test_the_png_shows_the_pixels(tmp_path: Path) -> None:
    samples = np.zeros((2, 1, 1, 8, 8), dtype=np.uint8)
    samples[0, 0, 0], samples[1, 0, 0] = 200, 50
    save_figure(sample_grid({"samples": samples}, ("a", "b")), tmp_path / "s.png", {"samples": samples})
    png = (255 * imread(tmp_path / "s.png")[..., :3]).round().astype(int)
    column = png[:, png.shape[1] * 3 // 4]
    assert column[0].tolist() == [255, 255, 255]
    grey = [pixel[0] for pixel in column.tolist() if pixel[0] == pixel[1] == pixel[2]]
    assert grey.count(200) == grey.count(50) == 80


@pytest.mark.parametrize("channels", [1, 3])
def test_every_figure_is_written_with_its_data(tmp_path: Path, channels: int) -> None:
    drawn = arrays(channels)
    files = write_figures(tmp_path / "figures", Evaluation({}, drawn, NAMES), ROWS)
    assert [file.path.name for file in files] == [
        f"{name}.png" for name in ("metamers", "interpolations", "samples", "calibration", "training")
    ]
    for file in files:
        assert file.caption.endswith(".")
        assert file.path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
        height, width, _ = imread(file.path).shape
        assert min(height, width) > 250
    for name, expected in drawn.items():
        with np.load(tmp_path / "figures" / f"{name}.npz", allow_pickle=False) as saved:
            assert set(saved) == set(expected)
            assert all(np.array_equal(saved[key], array) for key, array in expected.items())
    assert json.loads((tmp_path / "figures" / "training.json").read_text()) == ROWS
    assert sorted(path.suffix for path in (tmp_path / "figures").iterdir()) == [".json", *[".npz"] * 4, *[".png"] * 5]


def test_vectors_and_odd_channels_have_no_pictures(tmp_path: Path) -> None:
    vectors = Evaluation({}, {"calibration": arrays()["calibration"]}, NAMES)
    assert [file.path.stem for file in write_figures(tmp_path, vectors)] == ["calibration"]
    assert [file.path.stem for file in write_figures(tmp_path, Evaluation({}, arrays(5), NAMES))] == ["calibration"]
    assert [file.path.stem for file in write_figures(tmp_path, None, ROWS)] == ["training"]
    assert write_figures(tmp_path, None) == []


def test_training_curves_have_a_panel_for_each_quantity() -> None:
    figure = training_curves(ROWS)
    panels = {axis.get_title(): axis for axis in figure.axes}
    assert list(panels) == ["error, %", "cross entropy, nats", "loss", "learning rate"]
    error = panels["error, %"].lines[0]
    assert error.get_label() == "validation"
    assert np.isnan(error.get_ydata()[0])
    assert error.get_ydata()[1] == 25
    assert panels["loss"].lines[0].get_xdata().tolist() == [1, 2]
    with pytest.raises(UsageError, match="at least one row"):
        training_curves([])


def test_cross_entropies_have_a_line_at_chance() -> None:
    row = {"train.nuisance_cross_entropy_nats": 0.1, "validation.nuisance_cross_entropy_nats": 3.0, "train.loss": 1.0}
    panels = {axis.get_title(): axis.lines for axis in training_curves([row], classes=7).axes}
    assert [line.get_label() for line in panels["nuisance cross entropy, nats"]] == ["training", "validation", "chance"]
    assert panels["nuisance cross entropy, nats"][2].get_ydata()[0] == pytest.approx(np.log(7))
    assert len(panels["loss"]) == 1


def test_an_error_is_not_drawn_below_zero() -> None:
    (axis,) = training_curves([{"validation.error": 0.0}, {"validation.error": 0.0}]).axes
    assert axis.get_ylim()[0] == 0
    (axis,) = training_curves([{"validation.error": 0.5}, {"validation.error": 0.4}]).axes
    assert 30 < axis.get_ylim()[0] < 40


def test_terms_of_a_users_own_loss_are_drawn() -> None:
    titles = [axis.get_title() for axis in training_curves([{"train.margin": 1.0, "train.total.margin": 2.0}]).axes]
    assert titles == ["margin"]


def test_the_calibration_diagram_says_the_calibration_error() -> None:
    figure = calibration_diagram(arrays()["calibration"])
    assert figure.axes[0].get_title() == "calibration error 1.00 %"


def test_the_confusion_chart_shows_each_number_in_its_cell(tmp_path: Path) -> None:
    counts = np.array([[8, 2, 0], [0, 12, 0], [1, 0, 0]])
    (file,) = write_figures(tmp_path, Evaluation({}, {"confusion": {"counts": counts}}, NAMES))
    assert file.path.name == "confusion.png"
    assert np.array_equal(np.load(file.path.with_suffix(".npz"))["counts"], counts)
    figure = writing.confusion_chart({"counts": counts}, NAMES)
    shown = {text.get_position(): text.get_text() for text in figure.axes[0].texts}
    # Columns are predicted classes, rows the classes.
    assert shown == {(0, 0): "8", (1, 0): "2", (1, 1): "12", (0, 2): "1"}
    colours = figure.axes[0].images[0].get_array()
    assert np.isnan(np.ma.getdata(colours).diagonal()).all()
    assert colours[0, 1] == 0.2
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["zero", "one", "a very long…"]
    # A class without examples, and no errors at all.
    writing.confusion_chart({"counts": np.diag([3, 0, 4])}, NAMES)


def test_python_objects_are_never_pickled(tmp_path: Path) -> None:
    figure = calibration_diagram(arrays()["calibration"])
    with pytest.raises(UsageError, match="objects in \\['bad'\\]"):
        save_figure(figure, tmp_path / "x.png", {"bad": np.array([object()])})
    assert not list(tmp_path.iterdir())


def test_rgb_is_drawn_in_its_colours(tmp_path: Path) -> None:
    samples = np.zeros((2, 1, 3, 8, 8), dtype=np.uint8)
    samples[0, 0, 0], samples[1, 0, 2] = 255, 255
    save_figure(sample_grid({"samples": samples}, ("red", "blue")), tmp_path / "s.png", {"samples": samples})
    png = (255 * imread(tmp_path / "s.png")[..., :3]).round().astype(int)
    column = png[:, png.shape[1] * 3 // 4].tolist()
    assert column.count([255, 0, 0]) == column.count([0, 0, 255]) == 80
    assert column.index([255, 0, 0]) < column.index([0, 0, 255])


def plane_data(classes: int = 2, oracle: bool = True) -> dict[str, np.ndarray[Any, Any]]:
    """A classifier that reads u, a probe that reads v, and an oracle that reads the radius."""
    axis = np.linspace(-12, 12, 31, dtype=np.float32)
    u, v = np.meshgrid(axis, axis)
    more = [np.full_like(u, -20.0)] * (classes - 2)
    said = {"classifier": [-u, u, *more], "probe": [-v, v, *more], "oracle": [5.5 - np.hypot(u, v), np.hypot(u, v) - 5.5, *more]}
    judges = [*said][: 3 if oracle else 2]
    found: dict[str, np.ndarray[Any, Any]] = {}
    for plane in ("pair", "metamer"):
        found |= {f"{plane}.{judge}": np.stack(said[judge], axis=-1) for judge in judges}
        found[f"{plane}.axis"] = axis
        found[f"{plane}.points"] = np.array([[1.0, 0.0], [0.0, 10.0]])
        found[f"{plane}.points_label"] = np.array([0, 1 if oracle else -1])
        found[f"{plane}.circles"] = np.array([[0, 0, 1.0], [0, 0, 10.0]])[: 2 if oracle else 0]
    found["path.points"] = np.linspace([1.0, 0.0], [0.0, 10.0], 5)
    return found


def test_plane_panels_are_the_papers_four() -> None:
    figure = plane_panels(plane_data(), NAMES[:2])
    assert len(figure.axes) == 4
    titles = [axis.get_title().splitlines()[0] for axis in figure.axes]
    assert titles == [f"{judge}, {plane}" for judge in ("classifier on the logits", "probe of the nuisances")
                      for plane in ("plane of two data points", "plane of x and its metamer")]  # fmt: skip
    for axis in figure.axes:
        assert [(patch.get_center(), patch.get_radius()) for patch in axis.patches] == [((0, 0), 1), ((0, 0), 10)]
    wrong = [int(axis.get_title().split("unlike the oracle on ")[1].split()[0]) for axis in figure.axes]
    data = plane_data()
    share = 100 * (data["pair.classifier"].argmax(-1) != data["pair.oracle"].argmax(-1)).mean()
    assert wrong[:2] == [round(share)] * 2
    texts = [text.get_text() for text in figure.axes[1].texts]
    assert texts == ["x (zero)", "$x_{met}$ (one)"]
    words = [text.get_text() for text in figure.legends[0].get_texts()]
    assert words == [
        *("decides zero", "decides one", "its boundary", "the oracle's boundary", "unlike the oracle"),
        *("where zero lies", "where one lies", "latent path, projected"),
    ]


def test_plane_colours_are_the_decisions(tmp_path: Path) -> None:
    save_figure(plane_panels(plane_data(), NAMES[:2]), tmp_path / "p.png", plane_data())
    assert set(np.load(tmp_path / "p.npz")) == set(plane_data())
    figure = plane_panels(plane_data(), NAMES[:2])
    shown = figure.axes[2].images[0].get_array()
    assert np.array_equal(shown, plane_data()["pair.probe"].argmax(-1))
    assert figure.axes[2].images[0].origin == "lower"


def test_plane_panels_of_many_classes_without_an_oracle() -> None:
    figure = plane_panels(plane_data(classes=3, oracle=False), NAMES)
    assert not any(axis.patches for axis in figure.axes)
    assert figure.axes[0].get_title() == "classifier on the logits, plane of two data points"
    assert [text.get_text() for text in figure.axes[1].texts] == ["x (zero)", "$x_{met}$"]


def test_planes_are_among_the_figures_of_a_run(tmp_path: Path) -> None:
    evaluation = Evaluation({}, {"planes": plane_data(), "calibration": arrays()["calibration"]}, NAMES[:2])
    assert [file.path.name for file in write_figures(tmp_path, evaluation)] == ["planes.png", "calibration.png"]


def test_names_with_dollars_and_other_scripts_are_drawn_as_they_are(tmp_path: Path) -> None:
    figure = style.new_figure(3, 2)
    title = figure.text(0.5, 0.5, style.short("cost_$x"))
    figure.text(0.5, 0.2, style.short("猫_$犬$"))
    style.save_figure(figure, tmp_path / "f.png", {"a": np.zeros(1)})
    assert (tmp_path / "f.png").stat().st_size > 1000
    assert title.get_text() == r"cost_\$x"


def test_a_figure_that_fails_is_a_warning_and_the_others_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ValueError("no ink")

    rows = [{"epoch": 1, "train.loss": 2.0}, {"epoch": 2, "train.loss": 1.0}]
    evaluation = Evaluation({}, {"calibration": {"counts": np.ones(2)}}, ("a", "b"))
    monkeypatch.setitem(writing._FIGURES, "calibration", (fail, "Calibration", "How to read it."))
    with pytest.warns(UserWarning, match=r"the figure calibration.png cannot be drawn and is left out: no ink"):
        files = writing.write_figures(tmp_path, evaluation, rows)
    assert [file.path.name for file in files] == ["training.png"]
