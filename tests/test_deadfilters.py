"""Black by numbers: what the tables of the chapter on dead filters say of a network whose dead filters are known."""

import numpy as np
import pandas as pd
import pytest

from riceutils import activations, config, deadfilters, filtercharts, models, runs, study

VALUES = {"data": "synthetic", "image_size": 32, "images_per_class": [8, 4, 6], "epochs": 1}


@pytest.fixture(scope="module")
def run(splits):
    return study.run("cnn_light", config.check("03_cnn_light", VALUES), splits)


@pytest.fixture
def spoilt(run, splits, monkeypatch):
    """The run with one filter of its first convolution dead, and one that is always on and everywhere the same."""
    model = run.model()
    layer = activations.convolutions(model)[0]
    kernel, bias = (np.array(value) for value in layer.get_weights())
    kernel[..., :2], bias[:2] = 0, (-1, 1)
    layer.set_weights([kernel, bias])
    monkeypatch.setattr(type(run), "model", lambda self: model)
    monkeypatch.setitem(run.__dict__, "filters", activations.measure(model, splits.test.images))
    return run


def test_what_never_fires_is_counted(spoilt):
    (row,) = deadfilters.totals([spoilt]).to_dict("records")
    census = deadfilters.census([spoilt])
    assert row["never fire"] == census["never fire"].sum() >= 1
    assert row["filters"] == census["filters"].sum() == 24
    assert row["fires on at most"] == pytest.approx(1 - 0.05 ** (1 / 30))
    assert census["depth"].iloc[0] == 0
    assert census["depth"].iloc[-1] == 1
    figure, table = filtercharts.by_depth(census)
    (panel,) = figure.axes
    (dashed,) = [line for line in panel.lines if line.get_linestyle() == "--"]
    assert dashed.get_ydata()[-1] == pytest.approx(census["black maps"].iloc[-1])
    assert panel.get_title() == census["model"].iloc[0]
    assert len(table) == len(census)
    module = pd.DataFrame({"depth": 1.0, "filters": [30, 10], "never fire": [3, 1], "black maps": [0.1, 0.5]})
    assert filtercharts.along(module).loc[0].to_dict() == {"depth": 1, "filters": 40, "never fire": 4, "black": 8}
    several = pd.concat([census.assign(model=name) for name in "abcd"])
    panels = [axis for axis in filtercharts.by_depth(several)[0].axes if axis.axison]
    assert [axis.get_title() for axis in panels] == list("abcd")


def test_what_looks_black_need_not_be(spoilt, splits):
    first = deadfilters.looks(spoilt, splits.test.images).iloc[0]
    assert first["looks black"] >= 2 / first["filters"]  # a constant map has no contrast: it is drawn black
    assert 1 / first["filters"] <= first["black"] < first["looks black"]
    assert first["of those dead"] < 1
    table = deadfilters.looks(spoilt, splits.test.images)
    (whole,) = deadfilters.impressions(table).to_dict("records")
    assert whole["filters"] == 24
    assert whole["looks black"] == pytest.approx((table["looks black"] * table["filters"]).sum() / 24)
    dead = (table["of those dead"] * table["looks black"] * table["filters"]).sum()
    assert whole["of those dead"] == pytest.approx(dead / (whole["looks black"] * 24))
    maps = activations.maps(spoilt.model(), splits.test.images[:1])
    layer, outputs = next(iter(maps.items()))
    fires = spoilt.filters.set_index("layer").loc[layer, "fires"].to_numpy()
    _, table = filtercharts.impression(outputs[0], fires, layer)
    assert table.loc[0, ["looks black", "looks black, one scale"]].all()
    assert table.loc[1, "looks black"]


def test_more_images_leave_fewer_dead_filters(spoilt, splits):
    table = deadfilters.growth(spoilt, splits.test.images)
    assert table["images"].tolist() == [1, 2, 5, 10, 20, 30]
    assert table["never fire"].is_monotonic_decreasing
    assert table["never fire"].iloc[-1] == deadfilters.totals([spoilt])["never fire"].iloc[0]
    assert (table["low"] <= table["never fire"]).all()
    assert (table["never fire"] <= table["high"]).all()
    assert filtercharts.growing(table)[0].axes


def test_probe_sets_are_compared_with_the_first(spoilt, splits):
    table = deadfilters.stability(spoilt, deadfilters.probes(splits)).set_index("probe")
    assert list(table.index) == ["test", "validation", "perturbed"]
    assert table.loc["test", "rank correlation"] == pytest.approx(1)
    assert (table["in both"] <= table["never fire"]).all()
    assert table.loc["test", "in both"] == table.loc["test", "never fire"]


def test_twins_and_old_tables(run, spoilt, splits):
    (row,) = deadfilters.twins([spoilt]).to_dict("records")
    assert row["filters that fire"] == 24 - deadfilters.totals([spoilt])["never fire"].iloc[0]
    assert 0 <= row["correlated above 0.95"] <= 1
    assert filtercharts.redundancy(spoilt.filters)[0].axes
    old = spoilt.filters.drop(columns=["redundancy", "nearest", "p99"])
    spoilt.__dict__["filters"] = old
    assert deadfilters.twins([spoilt]).empty
    assert "redundancy" in deadfilters.filters(spoilt, splits.test.images)


def test_the_reference_runs_have_a_census():
    counted = runs.counted()
    table = deadfilters.totals(counted)
    assert len(table) == len(counted) > 0
    assert table["share"].between(table["low"], table["high"]).all()
    seeds = deadfilters.over_seeds(counted)
    assert set(seeds["model"]) == set(table.loc[table["model"].duplicated(), "model"])
    assert (seeds["never fire, fewest"] <= seeds["never fire, most"]).all()
    spread = table.groupby("model")["never fire"].agg(["min", "max"]).loc[seeds["model"].unique()]
    assert (seeds.groupby("model")["never fire, fewest"].sum() <= spread["min"]).all()
    assert (seeds.groupby("model")["never fire, most"].sum() >= spread["max"]).all()


def test_the_pretrained_trunk_is_measured_as_it_comes(splits):
    images = splits.test.images[:4]
    table = deadfilters.trunk(images).set_index("layer")
    assert list(table.index[[0, -1]]) == ["block1_conv1", "block5_conv3"]
    assert table["filters"].sum() == 4224
    network = models.build("vgg16", (32, 32, 3), weights="hed")
    maps = activations.maps(network, images, list(table.index), "caffe")
    for layer, outputs in maps.items():
        assert table.loc[layer, "never fire"] == (outputs <= 0).all(axis=(0, 1, 2)).sum()
    assert set(table["images"]) == {4}
    assert table["weights"].str.startswith("hed ").all()


def test_what_the_page_says_of_the_pretrained_trunk():
    table = deadfilters.committed()["trunk"].set_index("layer")
    last = [table.loc[f"block{block}_conv{2 if block < 3 else 3}", "never fire"] for block in range(1, 6)]
    assert last == [0, 63, 57, 3, 1]
    assert table["never fire"].idxmax() == "block5_conv1"
    assert table["never fire"].max() == 215
    assert 0.58 < table.loc["block1_conv1", "correlated above 0.95"] < 2 / 3


def test_what_the_page_says_of_depth_and_of_other_images():
    custom = deadfilters.census([runs.reference("vgg_custom")])
    blocks = custom.groupby(custom["layer"].str[:6])[["never fire", "filters"]].sum()
    shares = blocks["never fire"] / blocks["filters"]
    assert shares["block2"] == pytest.approx(shares["block3"], abs=0.02)
    census = deadfilters.census([run for run in runs.counted() if run.spec.model == "googlenet_light"])
    along = filtercharts.along(census)
    shares = along[["never fire", "black"]].div(along["filters"], axis=0).assign(depth=along["depth"])
    rises = shares.corr(method="spearman")["depth"]
    assert rises["black"] > 0.8 > rises["never fire"]
    looks = deadfilters.impressions(deadfilters.committed()["looks"])
    assert len(looks) == 4
    fires = [100 * (1 - looks["black"] / looks[scale]) for scale in ("looks black", "looks black, one scale")]
    assert [[round(share.min()), round(share.max())] for share in fires] == [[8, 76], [38, 85]]
    silent = deadfilters.census([runs.reference("vgg_light")])["never fire"]
    assert silent.iloc[-3:].sum() < 0.1 * silent.sum()
    probes = deadfilters.committed()["stability"].set_index(["model", "seed", "probe"]).loc["cnn", 0]
    assert probes.loc["test", "never fire"] == 17
    assert 17 - probes.loc["perturbed", "in both"] == 4
    assert runs.reference("cnn").filters["fires"].eq(0).sum() == 16


def test_the_experiment_goes_on_where_it_stopped_and_keeps_what_it_cannot_measure(run, splits, tmp_path, monkeypatch):
    monkeypatch.setattr(deadfilters, "RESULTS", tmp_path)
    monkeypatch.setattr(deadfilters.study, "reference", lambda source: splits)
    other = study.run("final", config.check("10_final_model", VALUES), splits)
    monkeypatch.setattr(deadfilters.runs, "counted", lambda: [run])
    monkeypatch.setattr(deadfilters, "TRUNK", 2)
    deadfilters.reference("anything")
    assert set(deadfilters.committed()["trunk"]["images"]) == {2}
    first = deadfilters.committed()["looks"]
    monkeypatch.setattr(deadfilters.runs, "counted", lambda: [run, other])
    monkeypatch.setattr(type(run), "has_weights", property(lambda self: self.spec.model == "final"))
    measured, looks = [], deadfilters.looks
    monkeypatch.setattr(deadfilters, "looks", lambda run, images: measured.append(run.spec.model) or looks(run, images))
    deadfilters.reference("anything")
    assert measured == ["final"]
    kept = deadfilters.committed()["looks"]
    pd.testing.assert_frame_equal(kept[kept["model"] == "cnn_light"], first, check_dtype=False)
    assert set(kept["model"]) == {"cnn_light", "final"}
    assert "run" not in kept
    deadfilters.reference("anything")
    assert measured == ["final"]
