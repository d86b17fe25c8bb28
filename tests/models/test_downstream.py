"""Classifiers on latents, where the answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from eccentric_models import downstream
from eccentric_models.data import Dataset, Split
from eccentric_models.downstream import (
    attribute_errors,
    attributes,
    classifiers,
    few_label_errors,
    information_gains,
    majority_errors,
)

IMAGES = np.zeros((6, 4, 4, 1), np.uint8)


def dataset(train, test, names=()):
    return Dataset("toy", Split(IMAGES, train), Split(IMAGES, test), names)


class TestFewLabels:
    def test_three_classes_far_apart(self, rng):
        labels = np.arange(300) % 3
        rows = 10.0 * labels[:, None] + rng.random((300, 2))
        errors = few_label_errors(rows[:240], rows[240:], labels[:240], labels[240:], {60: 5}, 4)[60]
        np.testing.assert_array_equal(errors, np.zeros(4))
        others = (labels[240:] + 1) % 3
        wrong = few_label_errors(rows[:240], rows[240:], labels[:240], others, {60: 5}, 4)[60]
        np.testing.assert_array_equal(wrong, np.ones(4))

    def test_one_label(self):
        """All test items are given the one class that was drawn: two thirds of three classes are wrong."""
        rows, labels = np.arange(9.0)[:, None], np.arange(9) % 3
        errors = few_label_errors(rows, rows, labels, labels, {1: 15}, 7)[1]
        np.testing.assert_allclose(errors, np.full(7, 2 / 3))

    def test_all_labels_are_one_subset(self, rng):
        rows, labels = rng.random((20, 2)), np.arange(20) % 2
        errors = few_label_errors(rows, rows, labels, labels, {20: 1, 21: 1}, 20)
        assert {number: found.tolist() for number, found in errors.items()} == {20: [0.0], 21: [0.0]}

    def test_subsets_differ_and_come_again(self, rng):
        rows, labels = rng.standard_normal((200, 2)), rng.integers(2, size=200)
        first, again = (few_label_errors(rows, rows, labels, labels, {20: 1}, 10)[20] for _ in range(2))
        np.testing.assert_array_equal(first, again)
        assert len(set(first)) > 3

    def test_how_many_neighbours(self):
        """One of class 1 is nearest, two of class 0 come next."""
        rows, labels, test = np.array([[0.0], [1.0], [1.1]]), np.array([1, 0, 0]), np.array([[0.1]])
        errors = few_label_errors(rows, test, labels, np.array([1]), {3: 1, 4: 3}, 1)
        assert (errors[3], errors[4]) == ([0.0], [1.0])


class TestAttributes:
    def test_classes_one_against_the_rest(self):
        train, test, names = attributes(dataset(np.array([2, 5, 5, 7, 2, 2]), np.array([7, 7, 2, 5, 5, 2])))
        assert names == ("2", "5", "7")
        np.testing.assert_array_equal(train.sum(axis=0), [3, 2, 1])
        np.testing.assert_array_equal(train.argmax(axis=1), [0, 1, 1, 2, 0, 0])
        np.testing.assert_array_equal(test.argmax(axis=1), [2, 2, 0, 1, 1, 0])

    def test_as_they_are(self, rng):
        labels = rng.integers(2, size=(6, 2)).astype(bool)
        train, test, names = attributes(dataset(labels, ~labels, ("Smiling", "Male")))
        assert names == ("Smiling", "Male")
        np.testing.assert_array_equal(train, labels)
        np.testing.assert_array_equal(test, ~labels)

    def test_none(self):
        with pytest.raises(ValueError, match="dataset must have labels, got toy without"):
            attributes(dataset(None, None))

    def test_majority(self):
        """Decided on the training items, counted on the others."""
        train = np.array([[1, 0, 1], [1, 0, 0], [0, 0, 0]], bool)
        test = np.array([[1, 0, 1], [0, 0, 1], [0, 1, 1], [0, 1, 1]], bool)
        np.testing.assert_allclose(majority_errors(train, test), [0.75, 0.5, 1.0])

    def test_classifiers(self, rng):
        """A threshold is learned by all three, a chequerboard by the deep tree and the neighbours."""
        rows, test = rng.uniform(-1, 1, (4000, 2)), rng.uniform(-1, 1, (1000, 2))

        def labels(x):
            return np.stack([x[:, 0] > 0.1, (x[:, 0] > 0) ^ (x[:, 1] > 0)], axis=1)

        errors = attribute_errors(rows, test, labels(rows), labels(test))
        assert list(errors) == ["DT(1)", "DT(8)", "KNN(20)"]
        assert all(of[0] < 0.02 for of in errors.values())
        assert errors["DT(1)"][1] > 0.35
        assert errors["DT(8)"][1] < 0.1
        assert errors["KNN(20)"][1] < 0.05

    def test_depths_and_neighbours(self):
        made = classifiers()
        depths = [made[name].estimator.max_depth for name in ("DT(1)", "DT(8)")]
        assert [*depths, made["KNN(20)"].n_neighbors] == [1, 8, 20]

    def test_attributes_do_not_share_a_tree(self, rng):
        """One stump each: two attributes that depend on two columns are both learned."""
        rows = rng.standard_normal((500, 2))
        errors = attribute_errors(rows, rows, rows > 0, rows > 0)
        assert np.all(errors["DT(1)"] < 0.01)


class TestGains:
    def test_a_component_that_tells_all(self, rng):
        rows = rng.standard_normal((1000, 3))
        labels = np.stack([rows[:, 2] > 0, rows[:, 0] < 0], axis=1)
        first, second = information_gains(rows[:600], rows[600:], labels[:600], labels[600:], ("a", "b"))
        assert (first.attribute, first.component, second.attribute, second.component) == ("a", 2, "b", 0)
        for gain in (first, second):
            assert gain.bits == pytest.approx(gain.entropy, rel=1e-9)
            assert gain.entropy == pytest.approx(1, abs=0.02)
            assert gain.majority == pytest.approx(0.5, abs=0.08)
            assert gain.accuracy > 0.98
        assert first.below < 0.05
        assert first.above > 0.95
        assert second.below > 0.95
        assert second.above < 0.05

    def test_known_bits(self):
        """Of 8 items, cut into 4 of which 1 has the attribute, and 4 of which 3 have it: 1 - h(1/4) bits."""
        column = np.repeat([0.0, 1.0], 4)[:, None]
        label = np.array([1, 0, 0, 0, 0, 1, 1, 1], bool)[:, None]
        (gain,) = information_gains(column, column, label, label, ("a",))
        h = -(0.25 * np.log2(0.25) + 0.75 * np.log2(0.75))
        assert gain.bits == pytest.approx(1 - h, rel=1e-12)
        assert (gain.entropy, gain.majority, gain.accuracy) == (1.0, 0.5, 0.75)
        assert (gain.below, gain.above) == (0.25, 0.75)

    def test_nothing_to_tell(self, rng):
        """Every item has the attribute."""
        rows, labels = rng.standard_normal((50, 2)), np.ones((50, 1), bool)
        (gain,) = information_gains(rows, rows, labels, labels, ("all",))
        assert (gain.bits, gain.entropy, gain.majority, gain.accuracy) == (0.0, 0.0, 1.0, 1.0)

    def test_the_gain_is_that_of_a_sweep_over_all_cuts(self, rng):
        column, label = rng.standard_normal(60), rng.integers(2, size=60).astype(bool)

        def entropy(part):
            rates = np.array([np.mean(part), 1 - np.mean(part)])
            return -sum(rate * np.log2(rate) for rate in rates if rate)

        best = max(
            entropy(label)
            - np.mean(column <= cut) * entropy(label[column <= cut])
            - np.mean(column > cut) * entropy(label[column > cut])
            for cut in np.sort(column)[:-1]
        )
        assert downstream._gain(downstream._stump(column[:, None], label)) == pytest.approx(best, rel=1e-9)
