"""What latent vectors are worth to a classifier: nearest neighbours with few labels, trees, single components.

Rates are from 0 to 1. Latents are given as principal coordinates: neighbours don't mind, and trees see one axis at a
time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sklearn.tree import DecisionTreeClassifier

    from eccentric_models.data import Dataset


class Classifier(Protocol):
    """What scikit-learn calls a classifier."""

    def fit(self, x: np.ndarray, y: np.ndarray) -> Classifier:
        """Learn from rows and their labels."""
        ...

    def predict(self, x: np.ndarray) -> np.ndarray:
        """The labels of rows."""
        ...


def few_label_errors(
    train: np.ndarray, labels: np.ndarray, test: np.ndarray, test_labels: np.ndarray, count: int, k: int, subsets: int
) -> np.ndarray:
    """The error rates on the test set of the k nearest neighbours among `count` training items.

    Args:
        train, labels, test, test_labels: rows (n, d) and classes (n,).
        count: training items with labels; all of them if there are no more.
        k: neighbours.
        subsets: random subsets to draw, the same ones in every call with as many items; one if they are all items.

    Returns:
        Error rates, one per subset. Source: Table 2 of the paper.
    """
    from sklearn.neighbors import KNeighborsClassifier

    count = min(count, len(train))
    rng = np.random.default_rng(count)
    rows = [rng.choice(len(train), count, replace=False) for _ in range(subsets if count < len(train) else 1)]
    return np.array(
        [
            np.mean(KNeighborsClassifier(min(k, count)).fit(train[some], labels[some]).predict(test) != test_labels)
            for some in rows
        ]
    )


def attributes(dataset: Dataset) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Binary attributes of the training and of the test images, bool (n, a), and their names.

    Classes become one attribute each, one against the rest.

    Raises:
        ValueError: there are no labels.
    """
    train, test = dataset.train.labels, dataset.test.labels
    if train is None or test is None:
        raise ValueError(f"dataset must have labels, got {dataset.name} without")
    names = dataset.label_names
    if train.ndim == 2:
        return train, test, names or tuple(map(str, range(train.shape[1])))
    classes = np.unique(train)
    return train[:, None] == classes, test[:, None] == classes, names or tuple(map(str, classes))


def majority_errors(train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """The error rate of each attribute if all items are given what most of the training items have."""
    return np.mean(test != (np.mean(train, axis=0) > 0.5), axis=0)


def classifiers() -> dict[str, Classifier]:
    """The classifiers of Table 3 by the names that they have there, for all attributes at once.

    A tree is grown for each attribute by itself; neighbours are the same for all of them.
    """
    from sklearn.multioutput import MultiOutputClassifier
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.tree import DecisionTreeClassifier

    return {
        "DT(1)": MultiOutputClassifier(DecisionTreeClassifier(max_depth=1, random_state=0)),
        "DT(8)": MultiOutputClassifier(DecisionTreeClassifier(max_depth=8, random_state=0)),
        "KNN(20)": KNeighborsClassifier(20),
    }


def attribute_errors(
    classifier: Classifier, train: np.ndarray, labels: np.ndarray, test: np.ndarray, test_labels: np.ndarray
) -> np.ndarray:
    """The error rate on the test set of a classifier for each of the attributes (n, a)."""
    return np.mean(classifier.fit(train, labels).predict(test) != test_labels, axis=0)


@dataclass(frozen=True)
class Gain:
    """What one component, cut at one place, tells of one attribute.

    Attributes:
        attribute: its name.
        component: from 0.
        bits: how much less uncertain the attribute of a training item is on its side of the cut.
        entropy: how uncertain it is without, in bits.
        majority, accuracy: the rate of right answers on the test set, of the most frequent answer and of the most
            frequent one on each side.
        below, above: how many of the test items on that side have the attribute, as a part.
    """

    attribute: str
    component: int
    bits: float
    entropy: float
    majority: float
    accuracy: float
    below: float
    above: float


def information_gains(
    train: np.ndarray, labels: np.ndarray, test: np.ndarray, test_labels: np.ndarray, names: Sequence[str]
) -> list[Gain]:
    """For each attribute the component that tells most of it. Source: Table 4 of the paper.

    Args:
        train, test: principal coordinates (n, d).
        labels, test_labels: bool (n, a).
        names: of the a attributes.
    """
    majority = 1 - majority_errors(labels, test_labels)
    found = []
    for i, name in enumerate(names):
        stumps = [_stump(train[:, [k]], labels[:, i]) for k in range(train.shape[1])]
        bits = [_gain(stump) for stump in stumps]
        k = int(np.argmax(bits))
        tree, column, label = stumps[k].tree_, test[:, k], test_labels[:, i]
        accuracy = float(np.mean(stumps[k].predict(column[:, None]) == label))
        sides = (column <= tree.threshold[0], column > tree.threshold[0])
        parts = (float(np.mean(label[side])) if side.any() else float("nan") for side in sides)
        found.append(Gain(name, k, bits[k], float(tree.impurity[0]), float(majority[i]), accuracy, *parts))
    return found


def _stump(column: np.ndarray, label: np.ndarray) -> DecisionTreeClassifier:
    """The cut of one column that tells most of a label."""
    from sklearn.tree import DecisionTreeClassifier

    return DecisionTreeClassifier(max_depth=1, criterion="entropy", random_state=0).fit(column, label)


def _gain(stump: DecisionTreeClassifier) -> float:
    """How many bits the cut tells; 0 where there is none."""
    tree = stump.tree_
    parts = tree.weighted_n_node_samples / tree.weighted_n_node_samples[0]
    return float(tree.impurity[0] - parts[1:] @ tree.impurity[1:]) if tree.node_count > 1 else 0.0
