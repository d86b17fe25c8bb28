"""The data sets as their user gets them: real ones where they are at hand, small ones in the same files elsewhere."""

from __future__ import annotations

import errno
import gzip
import hashlib
import os
import subprocess
import sys
import threading
from dataclasses import FrozenInstanceError
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from urllib.error import URLError

import numpy as np
import pytest
import sklearn.datasets
from PIL import Image
from sklearn.utils import Bunch

from eccentric_models import data, files
from eccentric_models.data import DataError, celeba, idx, load

IDX_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def refuse(load_it, *parts):
    """Assert that loading fails with one line that has all these parts in it."""
    with pytest.raises(DataError) as caught:
        load_it()
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert str(part) in message
    return message


def test_public_names():
    assert data.__all__ == ["NAMES", "DataError", "Dataset", "Split", "load"]
    assert data.NAMES == ("digits", "mnist", "fashion-mnist", "olivetti", "celeba")


def test_bad_arguments(tmp_path):
    with pytest.raises(ValueError, match=r"name must be one of digits, mnist, .*, got 'cifar'"):
        load("cifar")
    with pytest.raises(ValueError, match=r"folder must be None for digits, .*, got"):
        load("digits", tmp_path)
    refuse(lambda: load("mnist", tmp_path / "no"), tmp_path / "no", "not a folder", "files of mnist")


def test_splits_are_frozen():
    digits = load("digits")
    with pytest.raises(FrozenInstanceError):
        digits.train = digits.test
    with pytest.raises(FrozenInstanceError):
        digits.test.labels = None


def test_import_is_light():
    code = "import eccentric_models.data, sys; print({'sklearn', 'PIL', 'pooch', 'joblib', 'rich'} & {*sys.modules})"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert result.stdout == "set()\n"


class TestDigits:
    def test_split(self):
        digits = load("digits")
        assert digits.name == "digits"
        for split, n in ((digits.train, 1500), (digits.test, 297)):
            assert split.images.shape == (n, 28, 28, 1)
            assert split.images.dtype == np.uint8
            assert split.labels.shape == (n,)
            assert split.labels.dtype == np.int64
            assert np.bincount(split.labels).min() > n / 15  # shuffled: every digit is on both sides
        assert digits.train.labels[:10].tolist() == [2, 8, 2, 6, 6, 7, 1, 9, 8, 5]  # the same split for ever

    def test_enlarged_once_each(self):
        digits, original = load("digits"), sklearn.datasets.load_digits()
        images = np.concatenate([digits.train.images, digits.test.images])[..., 0]
        labels = np.concatenate([digits.train.labels, digits.test.labels])
        centres = images[:, 3:27:3, 3:27:3].reshape(-1, 64)  # each small pixel is the middle of 3 x 3 large ones
        expected = np.rint(original.images * 255 / 16).reshape(-1, 64)
        actual = np.column_stack([centres, labels])
        expected = np.column_stack([expected, original.target])
        assert np.array_equal(actual[np.lexsort(actual.T)], expected[np.lexsort(expected.T)])
        halves = (images[:, 3, 4].astype(int) * 3 - 2 * centres[:, 0].astype(int)) - centres[:, 1]
        assert np.abs(halves).max() <= 3  # a third of the way, up to rounding
        assert not images[:, [0, -1]].any()
        assert not images[:, :, [0, -1]].any()


def idx_bytes(array):
    array = np.asarray(array, np.uint8)
    return bytes((0, 0, 8, array.ndim)) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


@pytest.fixture
def small(rng):
    """Four IDX files with 6 and 3 images of 5 x 4, by name."""
    arrays = (rng.integers(256, size=(6, 5, 4)), np.arange(6) % 3, rng.integers(256, size=(3, 5, 4)), [2, 9, 0])
    return {name: idx_bytes(array) for name, array in zip(IDX_FILES, arrays, strict=True)}


@pytest.fixture
def idx_folder(small, tmp_path):
    folder = tmp_path / "idx"
    folder.mkdir()
    for number, (name, content) in enumerate(small.items()):
        if number % 2:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content))
        else:
            (folder / name).write_bytes(content)
    return folder


def check_small(dataset, small):
    for split, n, part in ((dataset.train, 6, "train"), (dataset.test, 3, "t10k")):
        assert split.images.shape == (n, 5, 4, 1)
        assert split.images.dtype == np.uint8
        assert split.labels.dtype == np.int64
        assert split.images.tobytes() == small[f"{part}-images-idx3-ubyte"][16:]
        assert split.labels.tolist() == list(small[f"{part}-labels-idx1-ubyte"][8:])


class TestIdxFolder:
    def test_compressed_or_not(self, idx_folder, small):
        dataset = load("mnist", idx_folder)
        check_small(dataset, small)
        assert dataset.name == "mnist"
        assert dataset.label_names == ()

    def test_fashion_has_names_for_its_own_classes(self, idx_folder):
        assert load("fashion-mnist", idx_folder).label_names[9] == "Ankle boot"
        (idx_folder / "train-labels-idx1-ubyte.gz").write_bytes(idx_bytes([0, 1, 2, 3, 4, 10]))
        assert load("fashion-mnist", idx_folder).label_names == ()

    @pytest.mark.parametrize("name", IDX_FILES)
    def test_missing(self, idx_folder, name):
        for path in idx_folder.glob(f"{name}*"):
            path.unlink()
        refuse(lambda: load("mnist", idx_folder), idx_folder / name, "is missing", "four files train-images")

    def test_unreadable(self, idx_folder):
        (idx_folder / IDX_FILES[0]).unlink()
        (idx_folder / IDX_FILES[0]).mkdir()
        refuse(lambda: load("mnist", idx_folder), idx_folder / IDX_FILES[0], "can't be read")

    @pytest.mark.parametrize(
        ("change", "says"),
        [
            (lambda _: b"", "got 0 bytes from nothing"),
            (lambda good: good[:4], "got 4 bytes"),
            (lambda good: good[:15], "got 15 bytes"),
            (lambda good: b"PK\x03\x04" + good[4:], "first bytes 00 00 08 03 and the sizes), got 136 bytes from 50 4b"),
            (lambda good: b"\0\0\x0d\x03" + good[4:], "IDX file of unsigned bytes"),
            (lambda _: idx_bytes([1, 2, 3]), "with 3 axes"),
            (lambda good: good[:-1], "(6, 5, 4), 136 bytes, got 135"),
            (lambda good: good + b"\0", "136 bytes, got 137"),
            (lambda _: idx_bytes(np.zeros((0, 5, 4))), "one or more items"),
            (lambda _: b"\0\0\x08\x03" + b"\xff" * 12, "4294967295"),
            (lambda _: bytes.fromhex("00000803 80000000 80000000 00000004"), "18446744073709551632 bytes, got 16"),
            (lambda good: gzip.compress(good)[:-9], "is damaged"),
            (lambda good: gzip.compress(good)[:-8] + bytes(8), "is damaged"),
            (lambda good: b"\x1f\x8b" + good, "is damaged"),
            (lambda good: gzip.compress(good)[:10] + b"\xff" * 20, "is damaged"),
        ],
    )
    def test_malformed(self, idx_folder, small, change, says):
        path = idx_folder / IDX_FILES[0]
        path.write_bytes(change(small[IDX_FILES[0]]))
        refuse(lambda: load("mnist", idx_folder), path, says)

    def test_labels_must_fit(self, idx_folder):
        path = idx_folder / "t10k-labels-idx1-ubyte.gz"
        path.write_bytes(idx_bytes([1, 2, 3, 4]))
        refuse(lambda: load("mnist", idx_folder), path, "a label for each of the 3 images", "got 4 labels")

    def test_sizes_must_fit(self, idx_folder):
        (idx_folder / "t10k-images-idx3-ubyte").write_bytes(idx_bytes(np.zeros((3, 5, 5))))
        refuse(lambda: load("mnist", idx_folder), idx_folder, "images of 5 x 4 and t10k", "of 5 x 5")


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def mirrors(small, tmp_path, monkeypatch):
    """Two mirrors of the small files, as folders that a local server serves."""
    root = tmp_path / "mirrors"
    for mirror, level in (("one", 9), ("two", 1)):  # compressed differently, as mirrors do
        (root / mirror).mkdir(parents=True)
        for name, content in small.items():
            (root / mirror / f"{name}.gz").write_bytes(gzip.compress(content, level))
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=root))
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    base = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setitem(idx.MIRRORS, "mnist", (f"{base}/one/", f"{base}/two/"))
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in small.items()}
    monkeypatch.setitem(idx.SHA256, "mnist", digests)
    yield root
    server.shutdown()
    server.server_close()


@pytest.mark.usefixtures("mirrors")
class TestDownload:
    def test_from_each_mirror(self, mirrors, small, tmp_path):
        check_small(load("mnist", cache=tmp_path / "first"), small)
        for path in (mirrors / "one").iterdir():
            path.unlink()
        check_small(load("mnist", cache=tmp_path / "second"), small)
        for cache in ("first", "second"):
            assert {path.name for path in (tmp_path / cache / "mnist").iterdir()} == {*IDX_FILES}

    def test_into_the_users_cache(self, small, tmp_path, monkeypatch):
        monkeypatch.setattr("pooch.os_cache", lambda project: tmp_path / "user" / project)
        load("mnist")
        assert (tmp_path / "user" / "eccentric" / "mnist" / IDX_FILES[0]).read_bytes() == small[IDX_FILES[0]]

    @pytest.mark.parametrize(
        "wrong",
        [b"no such page", gzip.compress(b"other digits"), gzip.compress(b"cut")[:-4]],
        ids=["a page", "other digits", "cut short"],  # by default the bytes, which hold the time of compression
    )
    def test_a_mirror_with_wrong_bytes_is_passed_over(self, mirrors, small, tmp_path, wrong):
        for path in (mirrors / "one").iterdir():
            path.write_bytes(wrong)
        check_small(load("mnist", cache=tmp_path), small)

    def test_only_once(self, small, tmp_path, monkeypatch):
        load("mnist", cache=tmp_path)
        monkeypatch.setitem(idx.MIRRORS, "mnist", ())
        check_small(load("mnist", cache=tmp_path), small)

    def test_a_damaged_copy_is_fetched_again(self, small, tmp_path):
        load("mnist", cache=tmp_path)
        path = tmp_path / "mnist" / IDX_FILES[0]
        path.write_bytes(small[IDX_FILES[0]][:-1])
        check_small(load("mnist", cache=tmp_path), small)
        assert path.read_bytes() == small[IDX_FILES[0]]

    def test_every_mirror_fails(self, mirrors, tmp_path, monkeypatch):
        one, two = idx.MIRRORS["mnist"]
        with ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
            closed = f"http://127.0.0.1:{server.server_port}/"
        monkeypatch.setitem(idx.MIRRORS, "mnist", (closed, one, two))
        name = f"{IDX_FILES[1]}.gz"
        (mirrors / "one" / name).unlink()
        (mirrors / "two" / name).write_bytes(b"else")
        message = refuse(
            lambda: load("mnist", cache=tmp_path),
            f"{IDX_FILES[1]} of mnist",
            "give their folder",
            f"{two}{name}: other bytes than the published ones",
        )
        assert "refused" in message.partition(f"{closed}{name}: ")[2]
        assert "404" in message.partition(f"{one}{name}: ")[2]
        assert not (tmp_path / "mnist" / IDX_FILES[1]).exists()

    def test_cache_that_cannot_be_written(self, tmp_path):
        (tmp_path / "file").touch()
        refuse(lambda: load("mnist", cache=tmp_path / "file"), tmp_path / "file", "can't be written", "another cache")

    @pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
    def test_public_files(self, name):
        assert len(idx.MIRRORS[name]) >= 2
        assert all(mirror.startswith("http") and mirror.endswith("/") for mirror in idx.MIRRORS[name])
        assert tuple(idx.SHA256[name]) == IDX_FILES
        assert {len(digest) for digest in idx.SHA256[name].values()} == {64}


@pytest.fixture
def faces(rng):
    """Four hundred small faces that aren't, in no order, that know their number."""
    images = np.zeros((400, 64, 64), np.uint8)
    images[:, 0, 0], images[:, 0, 1] = np.arange(400) // 256, np.arange(400) % 256
    images[:, 1, 1] = 242
    return {"images": images, "person": rng.permutation(np.repeat(np.arange(40), 10))}


def numbers(images):
    return images[:, 0, :2, 0] @ np.array([256, 1])


class TestOlivetti:
    def test_the_last_two_of_each_person_are_for_test(self, tmp_path, faces):
        np.savez_compressed(tmp_path / "olivetti_64.npz", **faces)
        dataset = load("olivetti", tmp_path)
        assert dataset.train.images.shape == (320, 64, 64, 1)
        assert dataset.test.images.shape == (80, 64, 64, 1)
        for split in (dataset.train, dataset.test):
            assert split.images.dtype == np.uint8
            assert split.labels.dtype == np.int64
            assert np.array_equal(faces["person"][numbers(split.images)], split.labels)
        for person in range(40):
            ten = np.flatnonzero(faces["person"] == person)
            assert numbers(dataset.train.images[dataset.train.labels == person]).tolist() == ten[:8].tolist()
            assert numbers(dataset.test.images[dataset.test.labels == person]).tolist() == ten[8:].tolist()

    @pytest.mark.parametrize(
        ("change", "says"),
        [
            ({"person": None}, "person"),
            ({"images": np.zeros((400, 64, 32), np.uint8)}, "got uint8 (400, 64, 32)"),
            ({"images": np.zeros((400, 64, 64), np.float32)}, "got float32 (400, 64, 64)"),
            ({"person": np.arange(400) // 10 + 1}, "0 to 39"),
            ({"person": np.arange(400) // 10 / 1}, "got float64"),
            ({"person": np.zeros(400, int)}, "0 to 39"),
            ({"person": np.arange(390) // 10}, "(390,)"),
            ({"person": np.array([None] * 400)}, "must hold the arrays"),
        ],
    )
    def test_other_arrays(self, tmp_path, faces, change, says):
        arrays = {name: array for name, array in {**faces, **change}.items() if array is not None}
        np.savez(tmp_path / "olivetti_64.npz", **arrays)
        refuse(lambda: load("olivetti", tmp_path), tmp_path / "olivetti_64.npz", says)

    @pytest.mark.parametrize("cut", [0, 10, -1000, -10])
    def test_damaged(self, tmp_path, faces, cut):
        path = tmp_path / "olivetti_64.npz"
        np.savez_compressed(path, **faces)
        path.write_bytes(path.read_bytes()[:cut])
        refuse(lambda: load("olivetti", tmp_path), path, "must hold the arrays images and person")

    def test_damaged_header(self, tmp_path, faces):
        path = tmp_path / "olivetti_64.npz"
        np.savez(path, **faces)
        path.write_bytes(path.read_bytes().replace(b"), }", b"), ("))
        refuse(lambda: load("olivetti", tmp_path), path, "must hold the arrays images and person")

    def test_not_an_archive(self, tmp_path):
        path = tmp_path / "olivetti_64.npz"
        with path.open("wb") as file:
            np.save(file, np.zeros(3))
        refuse(lambda: load("olivetti", tmp_path), path, "must hold the arrays images and person")

    def test_missing(self, tmp_path):
        refuse(lambda: load("olivetti", tmp_path), tmp_path / "olivetti_64.npz", "is missing", "scikit-learn")

    def test_fetched_faces_are_the_same(self, tmp_path, faces, monkeypatch, capsys):
        def fetch(data_home):
            assert data_home == tmp_path
            print("downloading")  # noqa: T201
            return Bunch(images=faces["images"] / np.float32(242), target=np.arange(400) // 10)

        monkeypatch.setattr("sklearn.datasets.fetch_olivetti_faces", fetch)
        dataset = load("olivetti", cache=tmp_path)
        assert dataset.train.images.dtype == np.uint8
        assert np.array_equal(
            dataset.train.images[..., 0], faces["images"].reshape(40, 10, 64, 64)[:, :8].reshape(-1, 64, 64)
        )
        assert dataset.test.labels.tolist() == np.repeat(range(40), 2).tolist()
        assert capsys.readouterr().out == ""

    def test_no_network(self, monkeypatch):
        def fetch(**_):
            raise URLError("no route\nto host")

        monkeypatch.setattr("sklearn.datasets.fetch_olivetti_faces", fetch)
        refuse(lambda: load("olivetti"), "no route to host", "give a folder with olivetti_64.npz")


# Neither contiguous nor in the order of the names.
PARTITION = {f"{i:06}.jpg": "021012020100"[i % 12] for i in (2, 1, *range(3, 13))}
TRAIN = [name for name, part in PARTITION.items() if part == "0"]
TEST = [name for name, part in PARTITION.items() if part == "2"]


def face(number, width=178, height=218):
    """A smooth picture in colour, its own for each number."""
    y, x = np.mgrid[:height, :width] / max(width, height)
    pixels = np.stack([x, y, (x + y) / 2], -1) * 150 + np.array([number * 8, 0, 96 - number * 8])
    return Image.fromarray(pixels.astype(np.uint8))


def write_lists(folder):
    rows = [f"{i:06}.jpg {'1' if i % 2 else '-1':>2} {'1' if i > 6 else '-1':>2}\n" for i in range(1, 13)]
    (folder / celeba.ATTRIBUTES).write_text(f"{len(rows)}\nSmiling Young \n{''.join(rows)}")
    (folder / celeba.PARTITION).write_text("".join(f"{name} {part}\n" for name, part in PARTITION.items()))


@pytest.fixture
def celeba_folder(tmp_path):
    folder = tmp_path / "celeba"
    (folder / celeba.IMAGES).mkdir(parents=True)
    for name in PARTITION:
        face(int(name[:6])).save(folder / celeba.IMAGES / name, quality=95)
    write_lists(folder)
    return folder


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def forbid(*_):
    raise AssertionError("this must not be decoded again")


def expected_faces(folder, names, box=(19, 39, 159, 179)):
    images = [Image.open(folder / celeba.IMAGES / name).crop(box) for name in names]
    return np.stack([np.asarray(image.resize((64, 64), Image.Resampling.LANCZOS)) for image in images])


def check_celeba(dataset, folder):
    for split, names in ((dataset.train, TRAIN), (dataset.test, TEST)):
        assert isinstance(split.images, np.memmap)
        assert split.images.dtype == np.uint8
        assert np.array_equal(split.images, expected_faces(folder, names))
        assert split.labels.dtype == np.bool_
        assert split.labels.tolist() == [[int(name[:6]) % 2 == 1, int(name[:6]) > 6] for name in names]
    assert dataset.label_names == ("Smiling", "Young")


class TestCelebA:
    def test_images_and_attributes(self, celeba_folder, cache):
        dataset = load("celeba", celeba_folder, cache=cache)
        assert dataset.name == "celeba"
        check_celeba(dataset, celeba_folder)
        (path,) = cache.iterdir()  # nothing else is left
        assert path.suffix == ".npy"
        assert dataset.train.images.base is not None  # slices of one map, no copies
        assert dataset.train.images.filename == dataset.test.images.filename == path

    def test_on_all_cores(self, celeba_folder, cache, monkeypatch):
        monkeypatch.setattr(celeba, "CHUNK", 3)
        monkeypatch.setattr("joblib.cpu_count", lambda: 2)
        check_celeba(load("celeba", celeba_folder, cache=cache), celeba_folder)
        path = celeba_folder / celeba.IMAGES / TRAIN[-1]
        path.write_bytes(path.read_bytes()[:700])
        refuse(lambda: load("celeba", celeba_folder, cache=cache), path, "can't be decoded", "truncated", "unpack")
        assert len([*cache.iterdir()]) == 1

    def test_decoded_once(self, celeba_folder, cache, monkeypatch):
        load("celeba", celeba_folder, cache=cache)
        monkeypatch.setattr(celeba, "_decode", forbid)
        check_celeba(load("celeba", celeba_folder, cache=cache), celeba_folder)

    @pytest.mark.parametrize("change", ["image", "attributes", "partition", "folder", "crop"])
    def test_decoded_again_after_a_change(self, celeba_folder, cache, monkeypatch, change):
        load("celeba", celeba_folder, cache=cache)
        if change == "image":
            face(0).save(celeba_folder / celeba.IMAGES / TRAIN[1], quality=90)
        elif change == "attributes":
            path = celeba_folder / celeba.ATTRIBUTES
            path.write_text(path.read_text().replace("Young", "Happy"))
        elif change == "partition":
            path = celeba_folder / celeba.PARTITION
            path.write_text(path.read_text().replace(f"{TRAIN[0]} 0", f"{TRAIN[0]} 1"))
        elif change == "folder":
            celeba_folder = celeba_folder.rename(celeba_folder.with_name("other"))
        else:
            monkeypatch.setattr(celeba, "CROP", 130)
        images = load("celeba", celeba_folder, cache=cache).train.images
        assert len([*cache.iterdir()]) == 2
        names, box = TRAIN[change == "partition" :], (24, 44, 154, 174) if change == "crop" else (19, 39, 159, 179)
        assert np.array_equal(images, expected_faces(celeba_folder, names, box))

    def test_into_the_users_cache(self, celeba_folder, cache, monkeypatch):
        monkeypatch.setattr("pooch.os_cache", lambda project: cache / project)
        load("celeba", celeba_folder)
        assert len([*(cache / "eccentric").iterdir()]) == 1

    @pytest.mark.parametrize(
        "change",
        [lambda _: b"", lambda b: b[:-1], lambda b: b + b"\0", lambda b: b[:10] + b"?" + b[11:], lambda b: b[::-1]],
    )
    def test_a_damaged_cache_is_built_again(self, celeba_folder, cache, change):
        load("celeba", celeba_folder, cache=cache)
        (path,) = cache.iterdir()
        good = path.read_bytes()
        path.write_bytes(change(good))
        check_celeba(load("celeba", celeba_folder, cache=cache), celeba_folder)
        assert path.read_bytes() == good

    def test_a_full_disk_leaves_nothing(self, celeba_folder, cache, monkeypatch):
        def fsync(_):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(files.os, "fsync", fsync)
        refuse(
            lambda: load("celeba", celeba_folder, cache=cache), f"{cache}/celeba-", "No space left", "free some space"
        )
        assert not [*cache.iterdir()]

    def test_an_interrupt_leaves_nothing(self, celeba_folder, cache, monkeypatch):
        def fsync(_):
            raise KeyboardInterrupt

        monkeypatch.setattr(files.os, "fsync", fsync)
        with pytest.raises(KeyboardInterrupt):
            load("celeba", celeba_folder, cache=cache)
        assert not [*cache.iterdir()]

    def test_no_folder(self):
        refuse(lambda: load("celeba"), "can't be downloaded", "img_align_celeba/", "https://")

    @pytest.mark.parametrize("name", [celeba.ATTRIBUTES, celeba.PARTITION])
    @pytest.mark.parametrize("change", ["missing", "binary"])
    def test_unreadable_list(self, celeba_folder, cache, name, change):
        path = celeba_folder / name
        path.unlink()
        if change == "binary":
            path.write_bytes(b"\xff\xd8\xff\xe0")
        refuse(lambda: load("celeba", celeba_folder, cache=cache), path, "can't be read", "give the folder with")

    @pytest.mark.parametrize(
        ("name", "old", "new", "says"),
        [
            (celeba.PARTITION, "000003.jpg 0", "000003.jpg 3", "line 3, must be"),
            (celeba.PARTITION, "000003.jpg 0", "000003.jpg", "got '000003.jpg'"),
            (celeba.PARTITION, "000003.jpg 0", "000002.jpg 0", "line 3, must be a new image name"),
            (celeba.PARTITION, "000003.jpg 0", "", "line 3"),
            (celeba.ATTRIBUTES, "12\n", "13\n", "it has lines for 12), and"),
            (celeba.ATTRIBUTES, "12\nSmiling Young \n", "12\n\n", "0 names"),
            (celeba.ATTRIBUTES, "000003.jpg  1 -1", "000003.jpg  1", "line 5, must be"),
            (celeba.ATTRIBUTES, "000003.jpg  1 -1", "000003.jpg  1 -1 1", "2 times 1 or -1"),
            (celeba.ATTRIBUTES, "000003.jpg  1 -1", "000003.jpg  1  0", "line 5"),
            (celeba.ATTRIBUTES, "000003.jpg  1 -1", "000002.jpg  1 -1", "line 5, must be a new image name"),
            (celeba.ATTRIBUTES, "000003.jpg  1 -1", "", "line 5"),
            (celeba.ATTRIBUTES, "000003.jpg", "000013.jpg", "has 000003.jpg, which list_attr_celeba.txt has not"),
            (celeba.PARTITION, "000003.jpg", "000000.jpg", "has 000000.jpg, which list_attr_celeba.txt has not"),
            (celeba.PARTITION, "000003.jpg", "000013.jpg", "has 000003.jpg, which list_eval_partition.txt has not"),
        ],
    )
    def test_wrong_list(self, celeba_folder, cache, name, old, new, says):
        path = celeba_folder / name
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))
        at_fault = celeba_folder if "has not" in says else path
        refuse(lambda: load("celeba", celeba_folder, cache=cache), at_fault, says.replace("), and", ")"))

    @pytest.mark.parametrize("name", [celeba.ATTRIBUTES, celeba.PARTITION])
    def test_empty_list(self, celeba_folder, cache, name):
        (celeba_folder / name).write_text("")
        refuse(lambda: load("celeba", celeba_folder, cache=cache), celeba_folder, name)

    @pytest.mark.parametrize(("part", "says"), [("0", "0 (training)"), ("2", "2 (test)")])
    def test_empty_partition(self, celeba_folder, cache, part, says):
        path = celeba_folder / celeba.PARTITION
        path.write_text(path.read_text().replace(f"jpg {part}", "jpg 1"))
        refuse(lambda: load("celeba", celeba_folder, cache=cache), path, f"no image in partition {says}")

    def test_missing_images(self, celeba_folder, cache):
        path = celeba_folder / celeba.IMAGES / "000004.jpg"
        path.unlink()
        refuse(lambda: load("celeba", celeba_folder, cache=cache), path, "is missing", celeba.PARTITION)
        path.parent.rename(celeba_folder / "elsewhere")
        refuse(lambda: load("celeba", celeba_folder, cache=cache), path.parent, "can't be read")

    def test_images_that_no_list_has(self, celeba_folder, cache):
        path = celeba_folder / celeba.IMAGES / "000013.jpg"
        for ignored in ("._000001.jpg", "Thumbs.db"):  # what desktops leave in folders
            path.with_name(ignored).touch()
        load("celeba", celeba_folder, cache=cache)
        face(13).save(path)
        refuse(lambda: load("celeba", celeba_folder, cache=cache), path, "is not in list_eval_partition.txt", "remove")

    @pytest.mark.parametrize("damage", [lambda _: b"", lambda b: b[:700], lambda b: b"GIF89a" + b[6:]])
    def test_corrupt_image(self, celeba_folder, cache, damage):
        path = celeba_folder / celeba.IMAGES / TEST[0]
        path.write_bytes(damage(path.read_bytes()))
        refuse(lambda: load("celeba", celeba_folder, cache=cache), path, "can't be decoded", "img_align_celeba.zip")
        assert not [*cache.iterdir()]

    @pytest.mark.parametrize(
        ("size", "box"),
        [
            ((178, 218), (19, 39, 159, 179)),
            ((200, 160), (30, 10, 170, 150)),
            ((140, 140), (0, 0, 140, 140)),
            ((139, 300), (15, 95, 124, 204)),
            ((128, 128), (13, 13, 114, 114)),
            ((64, 64), (7, 7, 57, 57)),
            ((178, 120), (29, 0, 149, 120)),
            ((1, 1), (0, 0, 1, 1)),
        ],
    )
    def test_any_size(self, size, box):
        image = face(5, *size)
        expected = image.crop(box).resize((64, 64), Image.Resampling.LANCZOS)
        assert np.array_equal(celeba.crop_and_resize(image), expected)

    def test_grey_image(self):
        grey = celeba.crop_and_resize(face(5).convert("L"))
        assert np.asarray(grey).shape == (64, 64, 3)
