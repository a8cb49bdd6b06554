"""Facts: what was evaluated, how, and in what time. Values that only the run has are declared here and added by it."""

from __future__ import annotations

from flowclf.evaluation.metric import Metric, left_out

METRICS = (
    Metric("recipe", "text", "name of the recipe"),
    Metric("seed", "text", "random seed of the run"),
    Metric("protocol", "text", "how much is measured", lambda context: context.protocol_name),
    Metric("evaluation.seed", "text", "random seed of the evaluation", lambda context: context.seed),
    Metric(
        "evaluation.limit",
        "count",
        "test examples that the evaluation was limited to, with the same fraction of the training and validation data; probes find "
        "less than with all of it",
        lambda context: context.limit,
        needs=("limit",),
    ),
    Metric(
        "evaluation.limit_of",
        "count",
        "test examples that there are without the limit",
        lambda context: len(context.whole.test),
        needs=("limit",),
    ),
    Metric("evaluation.left_out", "text", "results that these data do not allow", left_out, needs=("gaps",)),
    Metric("data.name", "text", "name of the data set", lambda context: context.data.name),
    Metric("data.class_names", "list", "names of the classes, in the order of the logits", lambda c: list(c.data.class_names)),
    Metric(
        "data.bits",
        "bits",
        "depth to which pixels are reduced before noise is added",
        lambda context: context.classifier.preprocessing.bits,
        needs=("images",),
    ),
    Metric("model.kind", "text", "invertible, or plain: an ordinary network", lambda context: context.classifier.kind),
    Metric("model.parameters", "count", "trained parameters", lambda context: context.classifier.parameter_count()),
    Metric(
        "model.dimensions",
        "count",
        "dimensions of the input; logits and nuisances together have as many",
        lambda context: context.invertible.dimensions,
        needs=("inverse",),
    ),
    Metric("train.epochs", "count", "passes over the training data"),
    Metric("train.steps", "count", "optimiser steps"),
    Metric("train.kept_epoch", "count", "epoch whose weights are evaluated"),
    Metric(
        "train.best_epoch", "count", "epoch with the lowest validation error since all terms of the loss have their full weight"
    ),
    Metric("train.nuisance_cross_entropy_nats", "nats", "cross-entropy of the adversary in that epoch, on training data"),
    Metric("validation.nuisance_cross_entropy_nats", "nats", "cross-entropy of the adversary after that epoch, on validation data"),
    Metric("train.stream", "text", "numbers between nodes: float, or fixed_point"),
    Metric("train.precision", "text", "precision of the couplings' subnets in training"),
    Metric("train.class_weights", "text", "weights of the classes in the cross-entropy of the training"),
    Metric("seconds.train", "seconds", "training"),
    Metric("seconds.evaluate", "seconds", "evaluation"),
    Metric("seconds.total", "seconds", "the whole run"),
)
