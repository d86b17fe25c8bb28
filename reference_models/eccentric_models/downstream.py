"""Classifiers on latent vectors: nearest neighbours with few labels, trees, single components.

Rates are from 0 to 1. Latents are given as principal coordinates, which matters to trees, as they split along one axis
at a time, and not to neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sklearn.tree import DecisionTreeClassifier

    from eccentric_models.data import Dataset


class Classifier(Protocol):
    """A classifier of scikit-learn."""

    def fit(self, x: np.ndarray, y: np.ndarray) -> Classifier:
        """Learn from rows and their labels."""
        ...

    def predict(self, x: np.ndarray) -> np.ndarray:
        """The labels of rows."""
        ...


def few_label_errors(
    train: np.ndarray,
    test: np.ndarray,
    labels: np.ndarray,
    test_labels: np.ndarray,
    neighbours: Mapping[int, int],
    subsets: int,
) -> dict[int, np.ndarray]:
    """The error rates on the test set of nearest neighbours among few training items. Source: Table 2 of the paper.

    Args:
        train, test: rows (n, d).
        labels, test_labels: classes (n,).
        neighbours: the number of neighbours, by the number of training items with labels, at most all of them.
        subsets: the number of random subsets of each size, the same in every call with as many items; one where the
            subset is the whole set.

    Returns:
        Error rates, one per subset, by the number of labels.
    """
    from sklearn.neighbors import KNeighborsClassifier

    errors = {}
    for number, k in neighbours.items():
        count, rng = min(number, len(train)), np.random.default_rng(number)
        drawn = [rng.choice(len(train), count, replace=False) for _ in range(subsets if count < len(train) else 1)]
        fitted = (KNeighborsClassifier(min(k, count)).fit(train[rows], labels[rows]) for rows in drawn)
        errors[number] = np.array([np.mean(one.predict(test) != test_labels) for one in fitted])
    return errors


def attributes(dataset: Dataset) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Binary attributes of the training and of the test images, bool (n, a), and their names.

    Each class becomes an attribute, one against the rest.

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
    """The error rate of each attribute if the answer is always the most frequent one in training."""
    return np.mean(test != (np.mean(train, axis=0) > 0.5), axis=0)


def attribute_errors(
    train: np.ndarray, test: np.ndarray, labels: np.ndarray, test_labels: np.ndarray
) -> dict[str, np.ndarray]:
    """The error rates (a,) on the test set, one per attribute, of each of the `classifiers`. Source: Table 3.

    Args:
        train, test: principal coordinates (n, d).
        labels, test_labels: bool (n, a).
    """
    return {
        name: np.mean(classifier.fit(train, labels).predict(test) != test_labels, axis=0)
        for name, classifier in classifiers().items()
    }


def classifiers() -> dict[str, Classifier]:
    """The classifiers of Table 3 by their names there, for all attributes at once.

    Each attribute has a tree of its own; the neighbours are the same for all.
    """
    from sklearn.multioutput import MultiOutputClassifier
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.tree import DecisionTreeClassifier

    return {
        "DT(1)": MultiOutputClassifier(DecisionTreeClassifier(max_depth=1, random_state=0)),
        "DT(8)": MultiOutputClassifier(DecisionTreeClassifier(max_depth=8, random_state=0)),
        "KNN(20)": KNeighborsClassifier(20),
    }


@dataclass(frozen=True)
class Gain:
    """The information in one component, with one threshold, about one attribute.

    Attributes:
        attribute: its name.
        component: from 0.
        bits: the information gain on the training set, in bits.
        entropy: the entropy of the attribute on the training set, in bits.
        majority, accuracy: the rate of right answers on the test set, of the most frequent answer and of the most
            frequent one on each side of the threshold.
        below, above: the share of the test items on that side that have the attribute.
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
    train: np.ndarray, test: np.ndarray, labels: np.ndarray, test_labels: np.ndarray, names: Sequence[str]
) -> list[Gain]:
    """For each attribute the component with the most information about it. Source: Table 4 of the paper.

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
    """The threshold on one column with the most information about a label."""
    from sklearn.tree import DecisionTreeClassifier

    return DecisionTreeClassifier(max_depth=1, criterion="entropy", random_state=0).fit(column, label)


def _gain(stump: DecisionTreeClassifier) -> float:
    """The information gain of a threshold in bits; 0 without one."""
    tree = stump.tree_
    parts = tree.weighted_n_node_samples / tree.weighted_n_node_samples[0]
    return float(tree.impurity[0] - parts[1:] @ tree.impurity[1:]) if tree.node_count > 1 else 0.0
