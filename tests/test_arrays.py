"""Data sets that come as arrays: how they are split, and what is said of a file that does not fit."""

import numpy as np
import pytest

from riceutils import arrays, data
from riceutils.sources import DataError

RNG = np.random.default_rng(0)


def content(**changes):
    """Arrays as Keras's loaders return them: ten colour pictures of each of three classes, five of each to test."""
    labels = {"y_train": np.repeat(np.arange(3), 10)[:, None], "y_test": np.repeat(np.arange(3), 5)[:, None]}
    images = {f"x_{side}": RNG.integers(0, 256, (n, 8, 8, 3), np.uint8) for side, n in (("train", 30), ("test", 15))}
    return images | labels | changes


def write(path, **changes):
    np.savez(path, **{name: array for name, array in content(**changes).items() if array is not None})
    return path


def test_digits_are_embedded_and_split_like_any_source():
    splits = data.load("digits", 16, [20, 5, 10])
    assert [len(side) for side in (splits.train, splits.validation, splits.test)] == [200, 50, 100]
    assert splits.classes == [str(digit) for digit in range(10)]
    assert splits.train.images.shape == (200, 16, 16, 3)
    assert splits.kind == "real"


def test_a_file_keeps_its_own_test_images(tmp_path):
    path = write(tmp_path / "mine.npz")
    splits = data.load(path, 8, None)
    stored = np.load(path)
    assert [len(side) for side in (splits.train, splits.validation, splits.test)] == [27, 3, 15]
    ours = {image.tobytes() for image in splits.test.images}
    assert ours == {image.tobytes() for image in stored["x_test"]}
    theirs = {image.tobytes() for image in stored["x_train"]}
    assert {image.tobytes() for image in np.concatenate([splits.train.images, splits.validation.images])} == theirs


def test_a_training_image_that_is_also_a_test_image_is_not_trained_on(tmp_path):
    arrays_ = content()
    arrays_["x_train"][0] = arrays_["x_test"][0]
    np.savez(tmp_path / "twin.npz", **arrays_)
    splits = data.load(tmp_path / "twin.npz", 8, [6, 2, 5])
    twin = arrays_["x_test"][0].tobytes()
    assert twin in {image.tobytes() for image in splits.test.images}
    assert twin not in {image.tobytes() for image in (*splits.train.images, *splits.validation.images)}


def test_mnist_gets_a_border_and_words_come_from_the_name(tmp_path):
    grey = RNG.integers(1, 256, (45, 28, 28), np.uint8)
    path = write(tmp_path / "mnist.npz", x_train=grey[:30], x_test=grey[30:])
    padded = data.load(path, 32, [4, 2, 2]).train.images
    assert not padded[:, :2].any()
    assert not padded[:, :, -2:].any()
    assert padded[:, 2:-2, 2:-2].all()
    kinds = np.arange(30) % 10
    source = arrays.open_source(write(tmp_path / "cifar10_part.npz", y_train=kinds, y_test=kinds[:15]), 8)
    assert source.classes == arrays.CIFAR10


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y_test": None}, "has no array 'y_test'"),
        ({"x_train": np.zeros((30, 8, 8, 3), np.float32)}, "x_train is float32; expected uint8"),
        ({"x_test": np.zeros((15, 8, 9, 3), np.uint8)}, r"x_test has shape \(15, 8, 9, 3\)"),
        ({"x_test": np.zeros((15, 8, 8, 1), np.uint8)}, r"expected \(N, S, S\) or \(N, S, S, 3\)"),
        ({"x_test": np.zeros((15, 9, 9, 3), np.uint8)}, "images of different shapes"),
        ({"y_train": np.zeros(29, int)}, "expected 30 integers"),
        ({"y_train": np.zeros(30)}, "y_train is float64"),
        ({"y_test": np.full(15, 3)}, "label 3 in y_test is out of range; 3 classes are 0 to 2"),
        ({"y_train": np.repeat([-1, 0, 1], 10)}, "label -1 in y_train is out of range"),
        ({"y_train": np.zeros(30, int), "y_test": np.zeros(15, int)}, "y_train knows a single class"),
    ],
)
def test_a_file_that_does_not_fit_is_named(tmp_path, changes, message):
    path = write(tmp_path / "bad.npz", **changes)
    with pytest.raises(DataError, match=message) as error:
        arrays.open_source(path, 8)
    assert "bad.npz" in str(error.value)


def test_a_missing_and_a_damaged_file(tmp_path):
    with pytest.raises(DataError, match="No such file"):
        arrays.open_source(tmp_path / "none.npz", 8)
    (tmp_path / "cut.npz").write_bytes(write(tmp_path / "whole.npz").read_bytes()[:500])
    with pytest.raises(DataError, match=r"not a whole \.npz file"):
        arrays.open_source(tmp_path / "cut.npz", 8)
    np.savez_compressed(tmp_path / "packed.npz", **np.load(tmp_path / "whole.npz"))
    content = bytearray((tmp_path / "packed.npz").read_bytes())
    content[80:140] = bytes(60)
    (tmp_path / "packed.npz").write_bytes(content)
    with (tmp_path / "one.npz").open("wb") as stream:
        np.save(stream, np.zeros(3))
    for name in ("packed", "one"):
        with pytest.raises(DataError, match=rf"{name}.npz is not a whole \.npz file"):
            arrays.open_source(tmp_path / f"{name}.npz", 8)


def test_too_few_of_a_class_says_how_many_of_each_kind(tmp_path):
    with pytest.raises(DataError, match="10 to train and validate, 5 to test"):
        data.load(write(tmp_path / "few.npz"), 8, [4, 2, 6])


@pytest.mark.parametrize("counts", [None, 6, [6, 2, 5]])
def test_a_class_without_an_image_to_test_is_named(tmp_path, counts):
    path = write(tmp_path / "gap.npz", y_test=np.arange(15) % 2)
    with pytest.raises(DataError, match="Class '2' has no image among the set's own test images"):
        data.load(path, 8, counts)


@pytest.mark.parametrize("name", ["mnist", "cifar10", "cifar100_coarse"])
def test_without_a_network_the_local_way_is_named(name, monkeypatch):
    from keras.src.datasets import cifar10, cifar100, mnist

    def unreachable(*args, **options):
        raise Exception("URL fetch failure")

    for module in (mnist, cifar10, cifar100):
        monkeypatch.setattr(module, "get_file", unreachable)
    with pytest.raises(ConnectionError, match=f"{name} could not be downloaded.*Give the path of an .npz file"):
        arrays.open_source(name, 32)
