"""Classification: how often the right label is named - accuracy, precision, recall, F1."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Figures = dict[str, float]


def classification(predicted: NDArray[np.int64], labels: NDArray[np.int64], n_classes: int) -> Figures:
    """Return accuracy, and precision, recall and F1 as means over the classes that occur in either (macro).

    Args:
        predicted: (n,) classes, 0 ... n_classes − 1; anything else is no class, and wrong.
        labels: (n,) the right ones.
        n_classes: Number of classes.
    """
    classes = [k for k in range(n_classes) if (predicted == k).any() or (labels == k).any()]
    each = [of_class(predicted, labels, k) for k in classes]
    means = {name: float(np.mean([e[name] for e in each])) if each else math.nan for name in ("precision", "recall", "f1")}
    return {"accuracy": float(np.mean(predicted == labels)) if len(labels) else math.nan, **means}


def of_class(predicted: NDArray[np.int64], labels: NDArray[np.int64], k: int) -> Figures:
    """Return precision, recall and F1 of class `k`; 0 where it is never predicted, or never right."""
    found, wanted = predicted == k, labels == k
    hits = float((found & wanted).sum())
    return {
        "precision": hits / max(1, int(found.sum())),
        "recall": hits / max(1, int(wanted.sum())),
        "f1": 2 * hits / max(1, int(found.sum() + wanted.sum())),
    }


def answer_figures(labels: Sequence[str], answers: Sequence[str], right: Sequence[str]) -> Figures:
    """Return how well answers name the right label.

    Args:
        labels: All that can be right.
        answers: (n,) what was written, white space around it ignored; what is no label is wrong.
        right: (n,) the right labels.

    Returns:
        "accuracy", "precision", "recall", "f1" (macro), "majority" (the accuracy of always naming the label that is right most often), and
        "precision_LABEL", "recall_LABEL", "f1_LABEL" of each label.
    """
    place = {label: k for k, label in enumerate(labels)}
    predicted = np.array([place.get(a.strip(), -1) for a in answers], np.int64)
    wanted = np.array([place[r] for r in right], np.int64)
    figures = classification(predicted, wanted, len(labels))
    figures["majority"] = float(np.bincount(wanted, minlength=len(labels)).max() / len(wanted)) if len(wanted) else math.nan
    for label, k in place.items():
        figures |= {f"{name}_{label}": value for name, value in of_class(predicted, wanted, k).items()}
    return figures
