"""Plain against residual, what bottlenecks and separable convolutions cost."""

import numpy as np
import pytest

from riceutils import background, config, depth, flops, ledger, models, page, runs, study, unitcosts


@pytest.fixture(scope="module")
def parameters():
    return config.check("17_resnet", {"image_size": 16, "images_per_class": [4, 2, 2], "epochs": 1})


@pytest.fixture(scope="module")
def splits(parameters):
    return study.load(parameters)


@pytest.fixture(scope="module")
def built(parameters, splits):
    return {
        f"{kind}_7": background.run("resnet_preact_small", parameters, splits, units=1, skip=kind == "residual")
        for kind in ("plain", "residual")
    }


def test_every_convolution_is_measured_before_and_after(built, splits):
    table = depth.measure(built, splits)
    assert len(table) == 2 * 2 * 7
    assert set(table["moment"]) == {"start", "end"}
    assert (table["gradient"] > 0).all()
    inside = table["layer"].str.endswith("conv1")
    assert table["variance"].isna().equals(inside)
    for quantity in ("gradient", "variance"):
        canvas, content = depth.lines(table, quantity)
        assert len(canvas.axes) == 2
        assert content is table


def test_along_takes_what_leaves_the_addition():
    rng = np.random.default_rng(0)
    images, onehot = rng.random((8, 16, 16, 1), np.float32), np.eye(10, dtype=np.float32)[rng.integers(0, 10, 8)]
    model = models.build("resnet_preact_small", (16, 16, 1), units=2)
    before = depth.along(model, images, onehot).set_index("layer")["variance"]
    for unit in (1, 2):  # nothing is added any more, and the first unit's input is projected to more filters
        layer = model.get_layer(f"stage1_unit{unit}_conv2")
        layer.set_weights([0 * weights for weights in layer.get_weights()])
    after = depth.along(model, images, onehot).set_index("layer")["variance"]
    assert after["stage1_unit1_conv2"] == pytest.approx(after["stage1_unit2_conv2"], rel=1e-5)
    assert before["stage1_unit2_conv2"] > before["stage1_unit1_conv2"] > after["stage1_unit1_conv2"]


def test_results_hold_the_last_epoch(built):
    table = depth.results({name: [run, run] for name, run in built.items()}).set_index("training")
    history = built["plain_7"].history
    assert table.loc["plain_7", "training loss"] == pytest.approx(history["loss"].iloc[-1])
    assert table.loc["plain_7", "seeds"] == 2
    assert table.loc["residual_7", "parameters"] > table.loc["plain_7", "parameters"]


def test_the_page_copes_with_missing_references(built, monkeypatch):
    said = []
    monkeypatch.setattr(page, "display", lambda output: said.append(str(getattr(output, "data", ""))))
    monkeypatch.setattr(background, "committed", lambda name: [])
    depth.reference()
    assert "plain_19, " in "".join(said)
    said.clear()
    monkeypatch.setattr(background, "committed", lambda name: [built["plain_7"]] if name == "plain_19" else [])
    depth.reference()
    assert "plain_19, " not in said[0]
    assert "residual_19" in said[0]
    assert "<table" in said[-1]


def test_a_bottleneck_saves_and_a_skip_costs_an_addition():
    _, table = unitcosts.bottleneck(channels=16, narrow=4, side=8)
    sums = table.groupby(["unit", "skip"])[["parameters", "FLOPs"]].sum()
    wide, narrow = sums.loc["3×3, 3×3"], sums.loc["1×1, 3×3, 1×1"]
    assert wide.loc["no", "parameters"] == 2 * 9 * 16 * 16
    assert narrow.loc["no", "parameters"] == 2 * 16 * 4 + 9 * 4 * 4
    for unit in (wide, narrow):
        assert unit.loc["yes", "parameters"] == unit.loc["no", "parameters"]
        assert unit.loc["yes", "FLOPs"] - unit.loc["no", "FLOPs"] == 8 * 8 * 16


def test_the_ratio_of_separable_units_follows_the_formula():
    model = models.build("mobilenet_small")
    _, table = unitcosts.separable(model)
    assert len(table) == 5
    assert table["ratio"].to_numpy() == pytest.approx(table["1/N + 1/k²"].to_numpy(), rel=1e-12)
    counted = flops.count(model).by_layer
    units = counted[counted["type"].isin(["DepthwiseConv2D", "Conv2D"]) & (counted["layer"] != "conv")]
    assert table["separable FLOPs"].sum() == units["FLOPs"].sum()


def test_latency_and_records():
    _, table = unitcosts.latency(["cnn_light", "mobilenet_small"], rounds=2)
    assert len(table) == 4
    assert (table["median, ms"] > 0).all()
    overview = ledger.overview()
    recorded = unitcosts.recorded(overview[overview["model"].isin(["cnn_light", "final"])], {}).set_index("model")
    assert list(recorded.index) == ["cnn_light", "final"]
    assert recorded["reference, ms"].gt(0).all()
    assert recorded["this build, ms"].isna().all()
    assert recorded.loc["final", "perturbed"] == runs.reference("final").accuracy("perturbed").value
