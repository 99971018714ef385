"""Manifest, split, decoded images and pipelines."""

import collections
import os
import shutil

import numpy as np
import pandas as pd
import pytest
from conftest import draw, fill_folder
from hypothesis import given, settings
from hypothesis import strategies as st

from riceutils import data, files
from riceutils.manifest import manifest
from riceutils.sources import DataError, open_source

SIDES = data.SIDES


def quietly(source, *arguments, **options):
    return data.load(source, *arguments, **options)


# What is wrong is said, by name.


def test_class_with_one_image(folder):
    for path in sorted((folder / "round").iterdir())[1:]:
        path.unlink()
    with pytest.raises(DataError, match="Class 'round' has 1 usable image; 3 are needed"):
        quietly(folder, 32)


def test_more_images_asked_for_than_there_are(folder):
    with pytest.raises(DataError, match=r"Class 'long' has 12 usable images; 13 are needed.*lower images_per_class"):
        quietly(folder, 32, [8, 2, 3])


@pytest.mark.parametrize("counts", [2, [1, 1], [3, 0, 3]])
def test_impossible_counts(folder, counts):
    with pytest.raises(DataError, match="images_per_class is"):
        quietly(folder, 32, counts)


def test_text_file_named_jpg(folder):
    (folder / "round" / "notes.jpg").write_text("not a picture")
    with pytest.raises(DataError, match=r"Cannot read image round/notes\.jpg: it is not an image"):
        quietly(folder, 32)


def test_truncated_jpeg_is_named_and_skipped_only_if_asked(folder, capsys):
    path = folder / "round" / "round (5).jpg"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DataError, match=r"round/round \(5\)\.jpg: .*truncated.*Or set skip_unreadable"):
        quietly(folder, 32)
    assert "left out" not in capsys.readouterr().out
    splits = quietly(folder, 32, skip_unreadable=True)
    assert len(splits.manifest) == 23
    assert "round/round (5).jpg" not in splits.manifest["file"].tolist()
    assert "1 unreadable image left out: round/round (5).jpg" in capsys.readouterr().out


def test_several_unreadable_files_are_counted(folder, capsys):
    for number in (1, 2, 3):
        (folder / "long" / f"long ({number}).jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"long \(1\)\.jpg.*\(2 more like it\)"):
        quietly(folder, 32)
    quietly(folder, 32, skip_unreadable=True)
    assert (
        "3 unreadable images left out: long/long (1).jpg, long/long (2).jpg, long/long (3).jpg"
        in capsys.readouterr().out
    )


def test_a_class_without_a_readable_image(folder):
    for path in (folder / "round").iterdir():
        path.write_bytes(b"")
    with pytest.raises(DataError, match="Class 'round' has no readable image"):
        quietly(folder, 32, skip_unreadable=True)


def test_same_image_in_two_classes(folder):
    shutil.copy(folder / "long" / "long (3).jpg", folder / "round" / "other.jpg")
    with pytest.raises(DataError, match=r"same image lies in two classes: long/long \(3\)\.jpg and round/other\.jpg"):
        quietly(folder, 32)


def test_nothing_but_copies(tmp_path):
    folder = fill_folder(tmp_path / "grains", 3)
    for path in list(folder.rglob("*.jpg")):
        shutil.copy(path, path.with_name(f"copy of {path.name}"))
    with pytest.raises(DataError, match="'long' has so many exact duplicates that validation stays empty"):
        quietly(folder, 32)


def test_unwritable_cache_folder(folder, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("RICEUTILS_HOME", str(tmp_path / "file" / "below"))
    with pytest.raises(OSError, match=r"Cannot write to .*below: .*Set RICEUTILS_HOME"):
        quietly(folder, 32)


# Manifest and split.


def test_manifest_has_a_row_per_file(folder):
    draw("round", 50).convert("L").resize((30, 20)).save(folder / "round" / "grey.png")
    draw("round", 51).convert("RGBA").save(folder / "round" / "clear.png")
    table = manifest(open_source(folder))
    assert len(table) == 26
    assert table["sha256"].str.fullmatch("[0-9a-f]{64}").all()
    assert table.set_index("file").loc["round/grey.png", ["width", "height"]].tolist() == [30, 20]
    assert quietly(folder, 32).train.images.shape[1:] == (32, 32, 3)
    pd.testing.assert_frame_equal(table, manifest(open_source(folder)))  # from the cache


def test_split_is_stratified_and_leaves_no_file_on_two_sides(folder):
    splits = quietly(folder, 32, [7, 2, 3])
    for side, count in zip(SIDES, (7, 2, 3), strict=True):
        assert np.bincount(getattr(splits, side).labels).tolist() == [count, count]
    names = [name for side in SIDES for name in getattr(splits, side).files]
    assert len(set(names)) == len(names) == 24
    by_side = splits.manifest.groupby("split")["file"].apply(set)
    assert all(set(getattr(splits, side).files) == by_side[side] for side in SIDES)


def test_a_tenth_each_when_one_number_is_given(tmp_path):
    splits = quietly(fill_folder(tmp_path / "grains", 30), 32, 20)
    assert [len(getattr(splits, side)) for side in SIDES] == [32, 4, 4]


def test_labels_match_the_folder_of_the_file(grains_splits):
    for side in SIDES:
        split = getattr(grains_splits, side)
        assert [split.classes[label] for label in split.labels] == [name.split("/")[0] for name in split.files]


def test_split_depends_on_seed_only(folder):
    one, same, other = (quietly(folder, 32, 10, seed=seed) for seed in (0, 0, 1))
    assert one.train.files == same.train.files != other.train.files
    assert one.fingerprint == same.fingerprint != other.fingerprint
    assert quietly(folder, 16, 10).fingerprint != one.fingerprint


def separated(sides, table):
    """The contents that lie on more than one side."""
    groups = sides.groupby(table["sha256"])
    return set(groups.first().index[groups.min() != groups.max()])


@settings(max_examples=60)
@given(
    copies=st.lists(st.integers(1, 4), min_size=8, max_size=40),
    seed=st.integers(0, 2**32 - 1),
    counts=st.sampled_from([None, 6, (3, 2, 2)]),
)
def test_duplicates_stay_on_one_side(copies, seed, counts):
    rows = [("a", f"a{number}") for number, times in enumerate(copies) for _ in range(times)]
    rows += [("b", f"b{number}") for number in range(len(rows))]
    table = pd.DataFrame(rows, columns=["class", "sha256"])
    table["file"] = [f"{label}/{number}.jpg" for number, (label, _) in enumerate(rows)]
    try:
        sides = data.split(table, counts, seed)
    except DataError as error:  # eight images and more copies than fit a side
        assert "so many exact duplicates" in str(error)  # noqa: PT017
        return
    assert not separated(sides, table)
    for label in "ab":
        found = collections.Counter(sides[table["class"] == label])
        assert all(found[side] for side in SIDES)
        if counts == (3, 2, 2):
            assert all(found[side] <= count for side, count in zip(SIDES, counts, strict=True))


def test_a_naive_split_would_separate_copies_and_ours_does_not(tmp_path):
    folder = fill_folder(tmp_path / "grains", 30)
    for path in list((folder / "long").iterdir())[:20]:
        shutil.copy(path, path.with_name(f"copy of {path.name}"))
    table = quietly(folder, 16).manifest
    assert not separated(table["split"], table)
    naive = data.split(table.assign(sha256=table["file"]), None, 0)
    assert separated(naive, table)


# Decoded images.


def test_decoding_that_was_killed_leaves_nothing_to_read(folder, monkeypatch):
    calls, decode = [], data.decode

    def dying(content, name, size=None):
        calls.append(name)
        if len(calls) > 5:
            raise KeyboardInterrupt
        return decode(content, name, size)

    def kept():
        return set((files.home() / "images").glob("[!.]*"))  # a hidden lock may stay

    before = kept()
    monkeypatch.setattr(data, "decode", dying)
    with pytest.raises(KeyboardInterrupt):
        quietly(folder, 48)
    assert len(calls) > 5
    assert kept() == before
    monkeypatch.setattr(data, "decode", decode)
    assert quietly(folder, 48).train.images.min(axis=(1, 2, 3)).shape == (20,)


def test_leftovers_of_a_killed_process_are_not_read(folder):
    target = files.home() / "images" / f"{quietly(folder, 40).fingerprint}.npy"
    whole = target.read_bytes()
    target.rename(target.with_name(f".{os.getpid() + 1}-{target.name}"))
    target.with_name(f".{os.getpid()}-{target.name}").write_bytes(whole[:300])  # killed in the middle
    splits = quietly(folder, 40)
    assert target.read_bytes() == whole
    assert all(image.any() for image in splits.test.images)


def test_large_sets_are_memory_mapped(folder, monkeypatch):
    monkeypatch.setattr(data, "IN_MEMORY", 1000)
    mapped = quietly(folder, 24)
    assert isinstance(mapped.train.images.base, np.memmap) or isinstance(mapped.train.images, np.memmap)
    images, _ = next(iter(mapped.train.training(4, seed=0)))
    assert images.shape == (4, 24, 24, 3)


# Pipelines.


def test_one_pass_in_order(grains_splits):
    test = grains_splits.test
    batches = list(test.pipeline(8))
    images = np.concatenate([image.numpy() for image, _ in batches])
    labels = np.concatenate([label.numpy() for _, label in batches])
    assert images.dtype == np.float32
    assert 0 <= images.min() < images.max() <= 1
    np.testing.assert_array_equal(np.rint(images * 255).astype(np.uint8), test.images)
    np.testing.assert_array_equal(labels, np.eye(3)[test.labels])
    assert batches[-1][0].shape[0] == len(test) % 8


def batches(split, count, **options):
    pairs = list(split.training(10, **options).take(count))
    return [(images.numpy(), labels.numpy()) for images, labels in pairs]


def test_epochs_are_shuffled_by_seed_and_epoch(grains_splits):
    train = grains_splits.train
    steps = -(-len(train) // 10)
    first = batches(train, 2 * steps, seed=3)
    again = batches(train, 2 * steps, seed=3)
    for (images, labels), (same_images, same_labels) in zip(first, again, strict=True):
        np.testing.assert_array_equal(images, same_images)
        np.testing.assert_array_equal(labels, same_labels)
    assert [len(images) for images, _ in first[:steps]] == [10] * 7 + [2]
    epochs = [np.concatenate([images for images, _ in part]) for part in (first[:steps], first[steps:])]
    for number, epoch in enumerate(epochs):
        order = train.order(3, number)
        np.testing.assert_array_equal(np.rint(epoch * 255).astype(np.uint8), train.images[order])
        assert sorted(order) == list(range(len(train)))
    assert (epochs[0] != epochs[1]).any()
    assert (train.order(3, 0) != train.order(4, 0)).any()


def test_resumed_epochs_equal_uninterrupted_ones(grains_splits):
    train = grains_splits.train
    steps = -(-len(train) // 10)
    whole = batches(train, 3 * steps, seed=5)[steps:]
    resumed = batches(train, 2 * steps, seed=5, first_epoch=1)
    for (images, labels), (same_images, same_labels) in zip(whole, resumed, strict=True):
        np.testing.assert_array_equal(images, same_images)
        np.testing.assert_array_equal(labels, same_labels)


def test_augmentation_is_given_images_indices_and_epoch(grains_splits):
    train, seen = grains_splits.train, []

    def note(images, rows, epoch):
        seen.append((rows.tolist(), epoch))
        return 255 - images

    steps = -(-len(train) // 10)
    images, _ = batches(train, steps + 1, seed=0, augment=note)[0]
    np.testing.assert_array_equal(np.rint(255 - images * 255), train.images[train.order(0, 0)[:10]])
    asked = sorted(row for rows, epoch in seen if epoch == 0 for row in rows)
    assert asked == list(range(len(train)))


def test_real_zip_loads(real_zip):
    splits = quietly(real_zip, 32, [6, 3, 3])
    assert splits.classes == ["Arborio", "Basmati", "Ipsala", "Jasmine", "Karacadag"]
    assert len(splits.manifest) == 30_000
    assert splits.kind == "real"
