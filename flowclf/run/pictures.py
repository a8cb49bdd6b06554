"""Image files in, classes or metamers out: ``flowclf predict`` and ``flowclf metamers``."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from flowclf import zoo
from flowclf.classifier import Classifier, InvertibleClassifier, require_invertible
from flowclf.classifier.typical import TypicalBits
from flowclf.data import read_image
from flowclf.errors import CheckpointError, FlowclfError, UsageError
from flowclf.evaluation import Arrays, check_fits, metamer_pictures
from flowclf.evaluation.metamers import draw_pairs, metamer, quantized
from flowclf.figures import metamer_grid, save_arrays, save_figure
from flowclf.files import atomic_write, check_writable
from flowclf.modes import evaluating
from flowclf.recipe.run_folder import RunFolder
from flowclf.run.opening import check_png, image_shape, open_data, open_model
from flowclf.strict_json import json_object

_GRID_COLUMNS = 12


def predict(model: str, images: Sequence[Path], device: str = "auto") -> list[dict[str, Any]]:
    """Classify image files.

    Args:
        model, device: as for :func:`flowclf.run.evaluate_model`.
        images: paths of the files.

    Returns:
        For each image ``file``, ``class``, ``probability``, and ``probabilities``, those of all classes by name; for an invertible
        classifier also ``log_likelihood_nats`` of the network's input, ``bits_per_dim``, and ``unusual``: whether these are far
        above ``bits_per_dim_typical``, that is above ``bits_per_dim_limit`` (:class:`flowclf.classifier.typical.TypicalBits`). The
        last three are None if the model has no record of its data. An unusual image also raises a warning.

    Raises:
        DataError: if a file is not an image; nothing is returned for the others.
    """
    classifier = open_model(model, device).classifier
    typical = _typical_bits(model, classifier)
    names = classifier.class_names
    # A name may occur twice in a user's arrays.
    keys = names if len(set(names)) == len(names) else [f"{number}: {name}" for number, name in enumerate(names)]
    answers = []
    with evaluating(classifier):
        for path in images:
            pixels = _read(classifier, path)
            encoding = classifier(classifier.preprocessing(pixels))
            probabilities = encoding.logits.softmax(1)[0].tolist()
            label = int(encoding.logits.argmax(1))
            answer: dict[str, Any] = {"file": str(path), "class": names[label], "probability": probabilities[label]}
            answer["probabilities"] = dict(zip(keys, probabilities, strict=True))
            if isinstance(classifier, InvertibleClassifier):
                log_prob = classifier.prior.log_prob(encoding.logits, encoding.nuisance) + encoding.log_det
                answer["log_likelihood_nats"] = float(log_prob)
                answer |= _bits_per_dim(classifier, typical, pixels, path)
            answers.append(answer)
    return answers


def metamers(
    model: str,
    logits_of: Path | None = None,
    nuisance_of: Path | None = None,
    out: Path = Path("metamers.png"),
    device: str = "auto",
    *,
    data: str | None = None,
    data_root: Path | None = None,
    seed: int = 0,
    bare: bool = False,
) -> dict[str, Any]:
    """Draw metamers of test images, or the metamer of two image files.

    Args:
        model, device, data, data_root: as for :func:`flowclf.run.evaluate_model`.
        logits_of: image that provides the logits; both images or neither.
        nuisance_of: image that provides the nuisances.
        out: PNG file to write. Beside it, as ``.npz``, are the 8-bit pictures (P, C, H, W) that are drawn, with the labels and
            predictions (P,); and in float32 the images without loss: ``logits_of_raw``, ``nuisance_of_raw`` and ``metamer_raw``,
            in [0, 1] but for metamers, ``metamer_clipped`` and ``metamer_requantized``, each with its ``_logits`` (P, K).
        seed: random seed for the pairs of test images.
        bare: write only the metamers, each in a file of its own and as large as the network's images: ``out`` for two images,
            otherwise ``out`` with a number before ``.png``.

    Returns:
        ``file`` (with ``bare`` and no images, the first), ``files``, ``arrays``; ``logit_change``, the largest change of a logit
        by the inverse; and ``metamers``, for each its ``file`` if bare, the classes ``logits_of`` and ``nuisance_of`` (labels of
        test images, predictions of files) and ``prediction``, the class of the metamer as an 8-bit picture. For two images
        ``prediction`` stands at the top, too.

    Raises:
        UsageError: if only one image is given, or images together with data; ``out`` is not a .png file or cannot be written; or
            the model does not exist or is not invertible.
    """
    if (logits_of is None) != (nuisance_of is None):
        raise UsageError("--logits-of and --nuisance-of belong together: give both images, or neither for a grid of test images")
    if logits_of is not None and (data is not None or data_root is not None):
        raise UsageError("--data and --data-root choose test images and cannot be combined with --logits-of and --nuisance-of")
    check_png(out)
    count = _GRID_COLUMNS if logits_of is None else 1
    files = [out] if count == 1 or not bare else [out.with_stem(f"{out.stem}-{number:02d}") for number in range(1, count + 1)]
    for file in files:
        check_writable(file, "--out")
    opened = open_model(model, device)
    classifier = require_invertible(opened.classifier, "metamers")
    image_shape(classifier)
    labels: Arrays = {}
    if logits_of is None or nuisance_of is None:
        chosen = open_data(opened, data, data_root)
        check_fits(classifier, chosen, ("test",))
        test = chosen.test.to(classifier.device)
        pairs = [indices.to(classifier.device) for indices in draw_pairs(test.labels, count, seed=seed)]
        first, second = (test.take(indices).inputs.to(classifier.dtype) / 255 for indices in pairs)
        names = ("logits_of_label", "nuisance_of_label")
        labels = {name: test.labels[indices].cpu().numpy() for name, indices in zip(names, pairs, strict=True)}
    else:
        first, second = _read(classifier, logits_of), _read(classifier, nuisance_of)
        typical = _typical_bits(model, classifier)
        with evaluating(classifier):
            for pixels, path in ((first, logits_of), (second, nuisance_of)):
                _bits_per_dim(classifier, typical, pixels, path)
    x1, x2 = classifier.preprocessing(first), classifier.preprocessing(second)
    arrays = metamer_pictures(classifier, x1, x2) | labels | _lossless(classifier, first, second)
    if bare:
        save_arrays(arrays, out.with_suffix(".npz"))
        for file, picture in zip(files, arrays["metamer"], strict=True):
            with atomic_write(file) as temporary:
                Image.fromarray(picture.transpose(1, 2, 0).squeeze()).save(temporary, format="png")
    else:
        save_figure(metamer_grid(arrays, classifier.class_names), out, arrays)
    change = float(np.abs(arrays["metamer_raw_logits"] - arrays["logits_of_raw_logits"]).max())
    classes = {name: arrays.get(f"{name}_label", arrays[f"{name}_prediction"]) for name in ("logits_of", "nuisance_of")}
    named = {
        name: [classifier.class_names[label] for label in values]
        for name, values in {**classes, "prediction": arrays["metamer_prediction"]}.items()
    }
    rows: list[dict[str, Any]] = [dict(zip(named, values, strict=True)) for values in zip(*named.values(), strict=True)]
    if bare:
        rows = [{"file": str(file), **row} for file, row in zip(files, rows, strict=True)]
    results = {"file": str(files[0]), "arrays": str(out.with_suffix(".npz")), "logit_change": change}
    if count == 1:
        results["prediction"] = rows[0]["prediction"]
    return {**results, "files": list(map(str, files)), "metamers": rows}


def _read(classifier: Classifier, path: Path) -> Tensor:
    """Read an image file as an image in [0, 1], (1, C, H, W), of the classifier's size."""
    pixels = read_image(path, image_shape(classifier))[None].to(classifier.device)
    return pixels.to(classifier.dtype) / 255


def _typical_bits(model: str, classifier: Classifier) -> TypicalBits | None:
    """What the training measured, or else what the run or the zoo reports; None if nothing is known."""
    if not isinstance(classifier, InvertibleClassifier) or classifier.typical_bits is not None:
        return getattr(classifier, "typical_bits", None)
    results = RunFolder(model).results
    try:
        reported = zoo.info(model).reported if not Path(model).exists() else json_object(results, str(results), CheckpointError)
    except FlowclfError:
        return None
    mean = reported.get("test.bits_per_dim")
    return TypicalBits.around(mean) if isinstance(mean, int | float) and math.isfinite(mean) else None


def _lossless(classifier: InvertibleClassifier, first: Tensor, second: Tensor) -> Arrays:
    """The images in [0, 1] without rounding, the metamers' also outside, and the logits of each."""
    with evaluating(classifier):
        x_met = metamer(classifier, classifier.preprocessing(first), classifier.preprocessing(second))
        raw = classifier.preprocessing.inverse(x_met)
        images = {
            "logits_of_raw": first,
            "nuisance_of_raw": second,
            "metamer_raw": raw,
            "metamer_clipped": raw.clamp(0, 1),
            "metamer_requantized": quantized(classifier, x_met),
        }
        inputs = {name: classifier.preprocessing(image) for name, image in images.items()} | {"metamer_raw": x_met}
        logits = {f"{name}_logits": classifier.logits(x) for name, x in inputs.items()}
    return {name: values.float().cpu().numpy() for name, values in (images | logits).items()}


def _bits_per_dim(classifier: InvertibleClassifier, typical: TypicalBits | None, pixels: Tensor, path: Path) -> dict[str, Any]:
    """The bits per dimension of an image in [0, 1], and what is typical; warns if they are far above that."""

    def bits_of(image: Tensor) -> float:
        return float(classifier.preprocessing.bits_per_dim(classifier.log_prob(classifier.preprocessing(image))))

    bits = bits_of(pixels)
    if typical is None:
        return {"bits_per_dim": bits, "bits_per_dim_typical": None, "bits_per_dim_limit": None, "unusual": None}
    if unusual := typical.is_unusual(bits):
        inverted = bits_of(1 - pixels)
        hint = f"; with light and dark exchanged it has {inverted:.3g}" if not typical.is_unusual(inverted) else ""
        warnings.warn(
            f"{path}: {bits:.3g} bits/dim is far above the {typical.median:.3g} of the model's own data (the limit is "
            f"{typical.limit:.3g}): the image is unlike those that the model knows, and its class means little{hint}",
            stacklevel=3,
        )
    return {
        "bits_per_dim": bits,
        "bits_per_dim_typical": typical.median,
        "bits_per_dim_limit": typical.limit,
        "unusual": unusual,
    }
