"""The Fréchet distance against closed forms, and the features that it is taken in."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eccentric_core import spectrum
from eccentric_models import frechet
from eccentric_models.data import Dataset, Split
from eccentric_models.frechet import features_for, frechet_distance, frechet_score, inception_weights, moments
from eccentric_models.safetensors_files import CheckpointError

ZERO = np.zeros(3)


def rotation(rng, dim):
    return np.linalg.qr(rng.standard_normal((dim, dim)))[0]


def covariance(rng, dim, rank):
    factor = rng.standard_normal((dim, rank))
    return factor @ factor.T


def test_a_shift_of_the_mean(rng):
    same = covariance(rng, 3, 5)
    assert frechet_distance(ZERO, same, np.array([3.0, 4.0, 0.0]), same) == pytest.approx(25, rel=1e-12)


def test_covariances_that_commute(rng):
    """sum_k (sqrt a_k - sqrt b_k)^2, in any common axes. A root is ill-conditioned at 0: eps there is 1e-8 after."""
    axes = rotation(rng, 3)
    for last, tolerance in ((1.0, 1e-12), (0.0, 1e-7)):
        a, b = np.array([4.0, 9.0, 0.25]), np.array([1.0, 16.0, last])
        found = frechet_distance(ZERO, axes @ np.diag(a) @ axes.T, ZERO, axes @ np.diag(b) @ axes.T)
        assert found == pytest.approx(1 + 1 + 0.25, rel=tolerance)


def test_two_dimensions(rng):
    """There the trace of the root of a matrix X is sqrt(tr X + 2 sqrt(det X)), and AB has the root's eigenvalues."""
    a, b = covariance(rng, 2, 2), covariance(rng, 2, 2)
    root = np.sqrt(np.trace(a @ b) + 2 * np.sqrt(np.linalg.det(a) * np.linalg.det(b)))
    expected = np.trace(a) + np.trace(b) - 2 * root
    assert expected > 0.01
    assert frechet_distance(np.zeros(2), a, np.zeros(2), b) == pytest.approx(expected, rel=1e-10)


def test_lines_in_other_directions():
    """Of rank one, |a|^2 + |b|^2 - 2 |a.b|."""
    a, b = np.array([1.0, 2.0, 0.0]), np.array([3.0, 0.0, 1.0])
    expected = 5 + 10 - 2 * 3
    assert frechet_distance(ZERO, np.outer(a, a), ZERO, np.outer(b, b)) == pytest.approx(expected, rel=1e-7)


def test_a_point_and_a_distribution(rng):
    a = covariance(rng, 3, 3)
    assert frechet_distance(ZERO, a, ZERO, np.zeros((3, 3))) == pytest.approx(np.trace(a), rel=1e-12)


@pytest.mark.parametrize("rank", [1, 5, 60, 200])
@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_equal_distributions_are_no_distance_apart(rng, rank, scale):
    """Also where the usual form, the root of a product, is complex or less than 0."""
    features = scale * (rng.standard_normal((40, rank)) @ rng.standard_normal((rank, 100)))
    mean, spread = moments(features)
    turned = spread + 1e-16 * np.trace(spread) * rng.standard_normal(spread.shape)
    for other in (spread, turned):
        found = frechet_distance(mean, spread, mean, other)
        assert isinstance(found, float)
        assert 0 <= found <= 1e-12 * np.trace(spread)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6), dim=st.integers(1, 12), ranks=st.tuples(st.integers(1, 12), st.integers(1, 12)))
def test_a_distance(seed, dim, ranks):
    """Never below 0, symmetric, invariant to rotation, and its root obeys the triangle inequality."""
    rng = np.random.default_rng(seed)
    a, b = (covariance(rng, dim, rank) for rank in ranks)
    m, n, axes = rng.standard_normal(dim), rng.standard_normal(dim), rotation(rng, dim)
    found = frechet_distance(m, a, n, b)
    tolerance = {"rel": 1e-6, "abs": 1e-7 * (np.trace(a) + np.trace(b))}
    assert found >= 0
    assert frechet_distance(n, b, m, a) == pytest.approx(found, **tolerance)
    turned = frechet_distance(axes @ m, axes @ a @ axes.T, axes @ n, axes @ b @ axes.T)
    assert turned == pytest.approx(found, **tolerance)
    origin = np.zeros(dim), np.zeros((dim, dim))
    sides = frechet_distance(m, a, *origin) ** 0.5 + frechet_distance(n, b, *origin) ** 0.5
    assert found**0.5 <= sides * (1 + 1e-9)


def test_bad_moments():
    good = np.zeros(3), np.eye(3)
    with pytest.raises(ValueError, match=r"mean_b and covariance_b must have shapes \(3,\) and \(3, 3\)"):
        frechet_distance(*good, np.zeros(2), np.eye(2))
    with pytest.raises(ValueError, match="mean_a and covariance_a must be finite"):
        frechet_distance(np.zeros(3), np.full((3, 3), np.nan), *good)
    with pytest.raises(ValueError, match="n at least 2"):
        moments(np.zeros((1, 4)))


def test_moments(rng):
    features = rng.standard_normal((30, 4)).astype(np.float32)
    mean, spread = moments(features)
    np.testing.assert_allclose(mean, features.astype(float).mean(0), rtol=1e-12)
    centred = features.astype(float) - mean
    np.testing.assert_allclose(spread, centred.T @ centred / 29, rtol=1e-12)


def toy(rng, labels):
    """Images whose brightness tells their class."""
    images = (120 * labels[:, None, None, None] + rng.integers(60, size=(len(labels), 4, 4, 1))).astype(np.uint8)
    half = len(labels) // 2
    return Dataset("toy", Split(images[:half], labels[:half]), Split(images[half:], labels[half:]))


@pytest.fixture
def without_inception(monkeypatch):
    monkeypatch.setattr(frechet, "inception_weights", lambda: None)


@pytest.mark.usefixtures("without_inception")
class TestPerceptron:
    def test_it_is_trained_once(self, rng, tmp_path, monkeypatch):
        data = toy(rng, np.arange(800) % 2)
        features = features_for(data, tmp_path)
        assert features.name == "FCD"
        assert "not FID" in features.about
        assert features.accuracy > 0.95
        train = frechet._train
        monkeypatch.setattr(frechet, "_train", lambda *_: pytest.fail("trained again"))
        again = features_for(data, tmp_path)
        np.testing.assert_array_equal(again(data.test.images), features(data.test.images))
        assert again.accuracy == features.accuracy
        monkeypatch.setattr(frechet, "_train", train)
        features_for(toy(rng, np.arange(800) % 2), tmp_path)  # other images
        assert len(list(tmp_path.iterdir())) == 2

    def test_its_features_are_those_of_the_network(self, rng, tmp_path):
        """The last hidden layer; with the output on top it gives scikit-learn's own answers."""
        data = toy(rng, np.arange(600) % 3 // 2)
        features = features_for(data, tmp_path)
        x = data.test.images.reshape(300, -1) / 255
        (first, a), (second, b), (kernel, bias) = features.weights
        hidden = (x @ first + a).clip(0)
        expected = (hidden @ second + b).clip(0)
        np.testing.assert_allclose(features(data.test.images), expected, rtol=1e-4, atol=1e-5)
        assert features(data.test.images).shape == (300, 64)
        answers = (expected @ kernel + bias)[:, 0] > 0
        assert np.mean(answers == data.test.labels) == features.accuracy

    def test_chunks(self, rng, tmp_path, monkeypatch):
        data = toy(rng, np.arange(200) % 2)
        features = features_for(data, tmp_path)
        whole = features(data.test.images)
        monkeypatch.setattr(frechet, "_CHUNK", 33)
        np.testing.assert_allclose(features(data.test.images), whole, rtol=1e-5)

    def test_attributes(self, rng, tmp_path):
        labels = np.stack([np.arange(400) % 2, np.arange(400) // 2 % 2], axis=1).astype(bool)
        data = toy(rng, np.arange(400) % 2)
        data = Dataset("toy", Split(data.train.images, labels[:200]), Split(data.test.images, labels[200:]))
        assert 0.5 < features_for(data, tmp_path).accuracy < 1  # it sees the first, not the second

    def test_no_labels(self, rng, tmp_path):
        data = toy(rng, np.arange(40) % 2)
        bare = Dataset("toy", Split(data.train.images, None), Split(data.test.images, None))
        with pytest.raises(ValueError, match="dataset must have labels"):
            features_for(bare, tmp_path)

    def test_a_damaged_file(self, rng, tmp_path):
        data = toy(rng, np.arange(80) % 2)
        features_for(data, tmp_path)
        (file,) = tmp_path.iterdir()
        file.write_bytes(file.read_bytes()[:-3])
        with pytest.raises(CheckpointError, match=r"is damaged.*remove it to train it again"):
            features_for(data, tmp_path)


def test_score():
    """Images of a decoder that gives the grey that it is told, seen by their grey: the distance of two numbers."""
    z = np.linspace(0.3, 0.7, 500)[:, None] * [1.0, 0.0]

    class Run:
        settings = SimpleNamespace(seed=0)
        test = z
        spectrum = spectrum(z)

        def model(self):
            return SimpleNamespace(decode=lambda rows: np.broadcast_to(rows[:, :1, None, None], (len(rows), 4, 4, 1)))

    def grey(images):
        assert images.dtype == np.uint8
        return np.stack([images.mean(axis=(1, 2, 3)), np.zeros(len(images))], axis=1)

    reference = np.array([0.5 * 255 + 10, 0.0]), np.diag([0.0, 0.0])
    deviation = 255 * np.std(z[:, 0])
    assert frechet_score(Run(), grey, reference) == pytest.approx(100 + deviation**2, rel=0.1)


def test_inception_needs_package_and_weights(tmp_path, monkeypatch):
    import torch

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    file = tmp_path / "checkpoints" / "weights-inception-2015-12-05-6726825d.pth"
    file.parent.mkdir()
    file.write_bytes(b"")
    monkeypatch.setattr(frechet.importlib.util, "find_spec", lambda name: None if name == "torch_fidelity" else name)
    assert inception_weights() is None
    monkeypatch.setattr(frechet.importlib.util, "find_spec", lambda name: name)
    assert inception_weights() == file
    file.unlink()
    assert inception_weights() is None


def test_inception(rng, tmp_path, monkeypatch):
    """With a network in its place: three channels, channels first, in chunks, and the name FID."""
    import torch

    class Extractor(torch.nn.Module):
        def __init__(self, name, features, *, feature_extractor_weights_path):
            super().__init__()
            assert (name, features) == ("inception-v3-compat", ["2048"])
            assert feature_extractor_weights_path == str(tmp_path / "weights")

        def forward(self, batch):
            assert batch.dtype == torch.uint8
            assert batch.shape[1:] == (3, 4, 4)
            return (batch.double().mean(dim=(2, 3)),)

    extractor = ModuleType("torch_fidelity.feature_extractor_inceptionv3")
    extractor.FeatureExtractorInceptionV3 = Extractor
    monkeypatch.setitem(sys.modules, "torch_fidelity", ModuleType("torch_fidelity"))
    monkeypatch.setitem(sys.modules, extractor.__name__, extractor)
    monkeypatch.setattr(frechet, "inception_weights", lambda: tmp_path / "weights")
    data = toy(rng, np.arange(240) % 2)
    features = features_for(data, tmp_path)
    assert features.name == "FID"
    found = features(data.test.images)
    np.testing.assert_allclose(found, np.repeat(data.test.images.mean(axis=(1, 2)), 3, axis=1), rtol=1e-12)
    colour = rng.integers(256, size=(7, 4, 4, 3), dtype=np.uint8)
    np.testing.assert_allclose(features(colour), colour.mean(axis=(1, 2)), rtol=1e-12)
    assert not list(tmp_path.iterdir())
