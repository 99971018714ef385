"""The experiment of the slimming chapter: equal shapes, equal budgets, honest intervals."""

import numpy as np
import pandas as pd
import pytest

from riceutils import config, evaluation, flops, slimcurves, slimming, study


@pytest.fixture(scope="module")
def parent(splits):
    values = {"data": "synthetic", "image_size": 32, "images_per_class": [8, 4, 6], "epochs": 2}
    return study.run("final", config.check("10_final_model", values), splits)


@pytest.fixture(scope="module")
def curves(parent, splits):
    return slimcurves.curve(parent, splits, [0.5, 0.25], epochs=1)


def test_all_ways_have_one_shape_and_one_budget(curves, parent):
    whole = flops.count(parent.model()).total
    assert curves["way"].tolist() == ["whole", *slimcurves.WAYS, *slimcurves.WAYS]
    for share, own in curves[curves["way"] != "whole"].groupby("share"):
        assert own["parameters"].nunique() == own["FLOPs"].nunique() == 1
        assert own["FLOPs"].iloc[0] <= share * whole
        assert own.set_index("way")["epochs"].to_dict() == {"apoz": 1, "l1": 1, "random": 1, "scratch": 3}
    assert curves["clean accuracy"].between(0, 1).all()
    assert curves["perturbed accuracy"].between(0, 1).all()


def test_charts_and_tables(curves, parent, splits):
    light = slimcurves.hand_made(config.check("02_cnn", {"image_size": 32, "images_per_class": [8, 4, 6], "epochs": 1}),
                                 splits, ["cnn_light"])  # fmt: skip
    both = pd.concat([curves, light], ignore_index=True)
    figure, table = slimcurves.chart(both)
    assert len(figure.axes) == 2
    assert table["way"].value_counts()["hand-made"] == 1
    assert set(slimcurves.differences(both)["model"]) == {"final"}
    network = parent.model()
    half = slimming.apply(network, slimming.select(network, splits.test.images, "l1", {"flops": 0.5}))
    _, widths = slimcurves.widths({"whole": network, "half": half})
    assert (widths.groupby("layer")["channels"].agg(lambda both: both.iloc[1] <= both.iloc[0])).all()


def test_lossless_removal_is_lossless(parent, splits):
    probe = splits.train.images
    row = slimcurves.lossless(parent, probe, splits.test.images)
    assert row["largest difference, probe"] <= 1e-5
    assert 0 <= row["parameters saved"] < 1
    assert row["removed"] <= row["channels"]


def test_of_vgg16_block_5_alone_is_cut(splits, tmp_path, monkeypatch):
    for name, value in {
        "RESULTS": tmp_path,
        "SIZE": 32,
        "SHARES": (0.5,),
        "EPOCHS": 1,
        "AFTER": 1,
        "WAYS": ("l1",),
    }.items():
        monkeypatch.setattr(slimcurves, name, value)
    monkeypatch.setattr(slimcurves.data, "load", lambda *arguments: splits)
    table = slimcurves.reference_block5("synthetic").set_index("way")
    assert table.index.tolist() == ["whole", *slimcurves.WAYS]
    whole, half = table.loc["whole"], table.loc["l1"]
    # Less than half of VGG16 is block 5: half of that leaves most of the network's FLOPs.
    assert 0.9 < half["FLOPs"] / whole["FLOPs"] < 1
    figure, _ = slimcurves.chart(slimcurves.tables()["block5"])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["l1", "whole"]


def test_what_was_measured_without_loss_is_kept(parent, splits, tmp_path, monkeypatch):
    monkeypatch.setattr(slimcurves, "RESULTS", tmp_path)
    monkeypatch.setattr(slimcurves.study, "reference", lambda source: splits)
    monkeypatch.setattr(slimcurves.runs, "counted", lambda: [parent])
    (row,) = slimcurves.reference_lossless("synthetic").to_dict("records")
    assert (row["model"], row["run"]) == ("final", parent.spec.key)
    monkeypatch.setattr(slimcurves, "lossless", lambda *arguments: pytest.fail("measured again"))
    assert len(slimcurves.reference_lossless("synthetic")) == 1
    assert "run" not in slimcurves.tables()["lossless"]


def test_the_page_says_what_went_without_loss():
    table = slimcurves.tables()["lossless"]
    measured = table.groupby("model")
    assert (table["refused"] == 0).all()
    light = measured.get_group("cnn_light")["parameters saved"]
    assert [round(100 * light.min()), round(100 * light.max())] == [6, 61]
    grew = table["largest difference, test"] / table["largest difference, probe"].clip(lower=1e-7)
    assert set(table.loc[grew > 20, "model"]) == {"googlenet_light", "final"}
    assert table.loc[(grew > 20) & (table["model"] == "final"), "seed"].tolist() == [2]
    assert (measured["different answers"].sum() == 0).all()
    assert 0.4 < measured["parameters saved"].min()["vgg_custom"] < 0.5  # "nearly half"
    assert measured["FLOPs saved"].min()["vgg_custom"] > 1 / 3
    assert measured["FLOPs saved"].max()["cnn_light"] < 0.01  # "computation stays"
    assert measured["largest difference, probe"].max().idxmax() == "final"


def test_differences_are_of_pairs():
    rows = [
        {"parent": "cnn", "way": way, "share": share, "seed": seed, "images": 100, "clean accuracy": value,
         "perturbed accuracy": value}
        for share in (0.5, 0.1)
        for seed in (0, 1)
        for way, value in zip(slimcurves.WAYS, (0.9 + seed / 100, 0.8, 0.88 + seed / 100, 0.7), strict=True)
    ]  # fmt: skip
    table = slimcurves.differences(pd.DataFrame(rows)).set_index(["model", "first", "second"])
    assert table.loc[("cnn", "apoz", "random"), "trainings"] == 2  # the shares of one training are one observation
    assert table.loc[("cnn", "apoz", "random"), "clean accuracy, difference"] == "+2.00 [+2.00, +2.00]"
    assert table.loc[("cnn", "l1", "random"), "clean accuracy, difference"].startswith("-8.50")
    assert "all" not in table.index.get_level_values("model")
    both = pd.concat([pd.DataFrame(rows), pd.DataFrame(rows).assign(parent="final")])
    both = slimcurves.differences(both).set_index(["model", "first", "second"])
    assert both.loc[("all", "apoz", "random"), "trainings"] == 4


def test_the_spread_between_parents_does_not_count():
    one, other = np.array([1.0, 2.0, 3.0]), np.array([11.0, 12.0, 13.0])
    together = evaluation.stratified([one, other])
    alone = evaluation.student(one)
    assert alone.high - alone.value == pytest.approx(4.303 / np.sqrt(3), rel=1e-3)
    assert (together.value, together.n) == (7, 6)
    assert together.high - together.value == pytest.approx(2.776 / np.sqrt(6), rel=1e-3)  # four degrees of freedom
    uneven = evaluation.stratified([one, np.array([5.0, 5.0, 5.0])])  # the spread is that of one group only
    assert uneven.high - uneven.value == pytest.approx(4.303 / np.sqrt(3) / 2, rel=1e-3)
    assert np.isnan(evaluation.stratified([one, other[:1]]).low)
    assert evaluation.points(one, other[:1]) == "+6.50"
    assert evaluation.points(one[:0]) == ""


def test_intervals():
    mean, low, high = slimcurves.interval([0.9], 100)
    assert low < mean == 0.9 < high
    mean, low, high = slimcurves.interval([0.9, 0.92, 0.94], 100)
    assert (mean, high - mean) == pytest.approx((0.92, 4.303 * 0.02 / np.sqrt(3)), rel=1e-3)
    assert mean - low == pytest.approx(high - mean)


def test_reference_experiments_are_committed_as_they_grow(tmp_path, splits, parent, monkeypatch):
    monkeypatch.setattr(slimcurves, "RESULTS", tmp_path)
    monkeypatch.setattr(slimcurves.data, "load", lambda *arguments, **options: splits)
    monkeypatch.setattr(slimcurves, "PARENTS", ("cnn_light",))
    monkeypatch.setattr(slimcurves, "HAND_MADE", ("cnn_light",))
    monkeypatch.setattr(slimcurves, "SHARES", (0.5,))
    monkeypatch.setattr(slimcurves, "SIZE", 32)
    monkeypatch.setattr(slimcurves, "EPOCHS", 1)
    monkeypatch.setattr(slimcurves, "AFTER", 1)
    assert slimcurves.tables() == {}
    made = slimcurves.reference("anything", seeds=(0,))
    pd.testing.assert_frame_equal(slimcurves.tables()["curves"], made, check_dtype=False, rtol=1e-5)
    further = slimcurves.reference("anything", seeds=(1,))
    assert set(further["seed"]) == {0, 1}  # what the table had stays
    assert len(slimcurves.reference("anything", seeds=(0,))) == len(further) == 2 * len(made)


def test_what_the_page_says_of_the_curves():
    curves = slimcurves.tables()["curves"]
    cut = curves[curves["way"].isin(slimcurves.WAYS)]
    assert set(curves["seed"]) == {0, 1, 2}
    clean, perturbed = (
        cut.pivot_table(f"{which} accuracy", ["parent", "share", "seed"], "way") for which in ("clean", "perturbed")
    )
    share = clean.index.get_level_values("share")
    near = clean[share >= 0.25]
    assert round(100 * (near.max(axis=1) - near.min(axis=1)).max(), 1) == 4.6
    whole = curves[curves["way"] == "whole"].set_index(["parent", "seed"])["clean accuracy"]
    lost = [100 * (whole["cnn", seed] - clean.loc["cnn"].xs(seed, level="seed").min().min()) for seed in (0, 1, 2)]
    assert round(max(lost), 1) == 0.4
    deep = clean[share <= 0.1].drop("cnn")
    assert [round(deep["scratch"].min(), 4), round(deep["scratch"].max(), 4)] == [0.7060, 0.9623]
    guessing = deep[["apoz", "l1", "random"]] == 0.2
    assert (guessing.size, guessing.sum().to_dict()) == (36, {"apoz": 5, "l1": 0, "random": 4})
    assert guessing.loc[("vgg_custom", 0.1)].to_numpy().tolist() == [*2 * [[True, False, False]], 3 * [False]]
    for found, ahead in ((clean, 27), (perturbed, 25)):
        behind = found[["apoz", "l1", "random"]].max(axis=1) - found["scratch"]
        assert ((behind < 0).sum(), len(behind)) == (ahead, 36)
        if found is clean:
            assert round(100 * behind.max(), 1) == 2.6
    table = slimcurves.differences(curves).set_index(["model", "first", "second"])
    told = table["clean accuracy, difference"].to_dict()
    models = ["googlenet_light", "cnn", "vgg_custom", "all"]
    chance = [told[model, "apoz", "random"] for model in models]
    assert [text.split()[0] for text in chance[:3]] == ["+5.37", "+0.04", "-15.27"]
    assert chance[2].endswith(", -4.44]")
    assert chance[3] == "-3.28 [-7.75, +1.18]"
    assert told["all", "apoz", "l1"] == "-7.67 [-13.83, -1.51]"
    assert told["all", "apoz", "scratch"] == "-15.18 [-19.20, -11.17]"
    assert table.loc[("all", "apoz", "scratch"), "perturbed accuracy, difference"] == "-11.28 [-17.17, -5.39]"
    low, high = told["cnn", "apoz", "scratch"].split("[")[1][:-1].split(", ")
    assert float(low) < 0 < float(high)
