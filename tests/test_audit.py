"""The audit names what is wrong and goes on; the checks particular to rice find what is there."""

import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from conftest import draw
from PIL import Image

from riceutils import audit, baseline, dataset, shortcuts
from riceutils.sources import open_source


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory):
    """Two classes of 12, and: an unreadable and a truncated file, copies, a re-encoded copy, a grey, a larger one."""
    from conftest import fill_folder

    folder = fill_folder(tmp_path_factory.mktemp("audit") / "grains")
    (folder / "long" / "notes.jpg").write_text("not a picture")
    whole = (folder / "long" / "long (1).jpg").read_bytes()
    (folder / "long" / "cut.jpg").write_bytes(whole[:-300])
    for number in range(5):
        shutil.copy(folder / "round" / "round (2).jpg", folder / "round" / f"copy {number}.jpg")
    Image.open(folder / "round" / "round (3).jpg").save(folder / "round" / "again.jpg", quality=70)
    draw("round", 90).convert("L").save(folder / "round" / "grey.png")
    draw("round", 91, size=100).save(folder / "round" / "larger.jpg")
    return folder


@pytest.fixture(scope="module")
def report(spoilt):
    return audit.audit(spoilt)


def test_unreadable_files_are_named_not_raised(report):
    assert report.unreadable["file"].tolist() == ["long/cut.jpg", "long/notes.jpg"]
    cut, notes = report.unreadable["error"]
    assert "truncated" in cut
    assert "it is not an image" in notes


def test_counts_sizes_and_modes(report):
    table = report.classes
    assert table["files"].tolist() == [14, 20]
    assert table["unreadable"].tolist() == [2, 0]
    assert table["copies"].tolist() == [0, 5]
    assert table.loc["long", ["sizes", "modes"]].tolist() == ["64×64", "RGB"]
    assert table.loc["round", ["sizes", "modes"]].tolist() == ["64×64 (19), 100×100 (1)", "RGB (19), L (1)"]
    assert len(report.files) == 34


def test_duplicates_are_grouped(report):
    assert report.duplicates["group"].tolist() == [1] * 6
    assert set(report.duplicates["file"]) == {
        "round/round (2).jpg",
        *(f"round/copy {number}.jpg" for number in range(5)),
    }
    assert len(set(report.duplicates["split"])) == 1
    row = report.separated.loc["groups of exact duplicates"]
    assert row["in all"] == 1
    assert row["separated by ours"] == 0


def test_near_duplicates_are_found_and_nothing_else_is(report):
    row = report.near_duplicates.iloc[0]
    assert len(report.near_duplicates) == 1
    assert {row["first"], row["second"]} == {"round/again.jpg", "round/round (3).jpg"}
    assert 0 < row["difference"] < audit.NEAR
    across = report.separated.loc["near-duplicate pairs", "separated by ours"]
    assert across == (row["split"] != row["other split"])


def test_text_has_it_all(report):
    text = str(report)
    for part in ("34 files in 2 classes", "long/notes.jpg", "1 groups, 0 of them in more than one class", "1 pairs"):
        assert part in text


def test_same_image_in_two_classes_is_reported(folder):
    shutil.copy(folder / "long" / "long (3).jpg", folder / "round" / "other.jpg")
    text = str(audit.audit(folder))
    assert "1 groups, 1 of them in more than one class" in text
    assert "No split is possible. The same image lies in two classes" in text


def test_a_clean_folder(folder):
    report = audit.audit(folder)
    assert report.unreadable.empty
    assert report.duplicates.empty
    assert report.near_duplicates.empty
    assert "Unreadable files: 0" in str(report)


def test_nothing_readable(folder):
    for path in folder.rglob("*.jpg"):
        path.write_bytes(b"")
    assert len(audit.audit(folder).unreadable) == 24


def test_near_pairs_equal_brute_force(monkeypatch):
    monkeypatch.setattr(audit, "BLOCK", 7)
    rng = np.random.default_rng(0)
    base = rng.integers(0, 255, (40, 32, 32, 3), dtype=np.uint8)
    noisy = np.clip(base[:20] + rng.normal(0, rng.uniform(0.5, 5, (20, 1, 1, 1)), base[:20].shape), 0, 255)
    images = np.concatenate([base, noisy.astype(np.uint8), base[:3]])
    floats = images.astype(np.float64)
    expected = {
        (a, b)
        for a in range(len(images))
        for b in range(a + 1, len(images))
        if np.sqrt(((floats[a] - floats[b]) ** 2).mean()) <= 3
    }
    assert {(a, b) for a, b, _ in audit.near_pairs(images, 3.0)} == expected
    assert 3 < len(expected) < 26


def test_black_images_are_all_near_each_other():
    assert len(audit.near_pairs(np.zeros((30, 32, 32, 3), np.uint8))) == 30 * 29 // 2


def test_the_real_zip_has_73_pairs_in_ipsala(real_zip):
    source = open_source(real_zip)
    members = {"Ipsala": source.members["Ipsala"], "Jasmine": source.members["Jasmine"][:100]}
    report = audit.audit(type(source)("part", members, source.read, "part"))
    assert report.duplicates.groupby("group").size().tolist() == [2] * 73
    assert report.classes["copies"].tolist() == [73, 0]
    assert report.near_duplicates.empty
    ours, naive = (report.separated[f"separated by {whose}"].iloc[0] for whose in ("ours", "a naive split"))
    assert ours == 0 < naive


# Checks on the table of features.


def features_table(**columns):
    count = len(next(iter(columns.values())))
    base = {"file": [f"a/Rice ({number + 1}).jpg" for number in range(count)], "class": "Jasmine"}
    return pd.DataFrame(base | {"area": 1.0, "R": 200.0, "G": 200.0, "B": 200.0} | columns)


def test_file_numbers():
    names = pd.Series(["a/Rice (12).jpg", "a/7.png", "b 3/img_0040.jpeg", "a/rice.jpg", "a/2 rice.jpg"])
    np.testing.assert_array_equal(shortcuts.file_numbers(names), [12, 7, 40, np.nan, np.nan])


def test_two_populations_are_cut_where_they_meet():
    rng = np.random.default_rng(0)
    area = np.r_[rng.normal(5400, 280, 700), rng.normal(9600, 890, 200)]
    table = features_table(area=area).sample(frac=1, random_state=0)
    result = shortcuts.populations(table)
    assert result["images"].tolist() == [700, 200]
    assert result["first"].tolist() == [1, 701]
    assert result["last"].tolist() == [700, 900]
    assert result["area mean"].tolist() == pytest.approx([5400, 9600], rel=0.02)
    assert result["explained"].min() > 0.85
    assert shortcuts.populations(features_table(area=rng.normal(5400, 280, 900)))["explained"].max() < 0.05


def test_order_effects_per_class():
    rng = np.random.default_rng(0)
    falling = features_table(area=np.arange(800, 500, -1) + rng.normal(0, 30, 300)).assign(**{"class": "falling"})
    result = shortcuts.order_effects(pd.concat([falling, features_table(area=rng.random(300))]))
    assert result.loc["falling", "rank correlation"] < -0.9
    assert abs(result.loc["Jasmine", "rank correlation"]) < 0.2
    assert result["images"].tolist() == [300, 300]


def test_files_without_numbers_give_empty_results():
    table = features_table(area=np.arange(100.0)).assign(file=[f"a/rice {'x' * n}.jpg" for n in range(100)])
    assert shortcuts.order_effects(table).empty
    assert shortcuts.populations(table).empty


def test_shortcut_is_found_where_there_is_one():
    rng = np.random.default_rng(0)
    labels = np.repeat(["a", "b"], 200)
    size = rng.normal(3000, 100, 400) + 400 * (labels == "b")
    table = pd.DataFrame({"class": labels, "bytes": size, "background": rng.random(400)})
    result = shortcuts.shortcut(table)
    assert result.loc["file size", "accuracy"] > 0.95
    assert result.loc["both", "accuracy"] > 0.95
    assert result.loc["background mean", "low"] < 0.5 < result.loc["background mean", "high"]
    assert (result["chance"] == 0.5).all()


def test_shortcut_says_which_class_is_too_small():
    table = pd.DataFrame({"class": ["a"] * 9 + ["b"] * 3, "bytes": 1, "background": 0.0})
    with pytest.raises(ValueError, match="Class 'b' has 3 images; 5 folds need 5"):
        shortcuts.shortcut(table)


def test_checks_run_on_a_users_folder(grains_folder):
    table = baseline.table(grains_folder)
    assert shortcuts.order_effects(table)["images"].tolist() == [40, 40, 40]
    assert shortcuts.populations(table, "round")["images"].sum() == 40
    assert shortcuts.shortcut(table)["images"].tolist() == [120] * 3


def test_what_was_measured_of_a_source_is_not_taken_for_another_with_the_same_split(grains_splits, monkeypatch):
    audited, check = [], audit.audit
    monkeypatch.setattr(dataset.audit, "audit", lambda source: audited.append(source) or check(source))
    other = replace(grains_splits, source=replace(grains_splits.source, signature="one more file"))
    for splits in (grains_splits, other, other):
        dataset.measurements(splits)
    assert audited == [grains_splits.source, other.source]
