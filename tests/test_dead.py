"""Dead training is told from a living one, looked into, and provoked again and again without repeating itself."""

import keras
import numpy as np
import pandas as pd
import pytest

from riceutils import claims, dead, deadcharts, gradients, models, runs, show

FEW = [dead.Condition("he_normal", 1e-3), dead.Condition("glorot_uniform", 1e-3)]


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    pixels = rng.random((12, 32, 32, 3), np.float32)
    onehot = np.eye(3, dtype=np.float32)[np.arange(12) % 3]
    return pixels * (0.3 + onehot[:, None, None, :]), onehot


@pytest.fixture
def network():
    keras.utils.set_random_seed(0)
    return models.build("cnn_light", (32, 32, 3), 3)


def kill(model, bias=-100.0):
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D | keras.layers.Dense) and layer is not model.layers[-1]:
            layer.bias.assign(np.full(layer.bias.shape, bias))
    return model


def test_a_network_of_negative_biases_is_dead(network, images):
    found = gradients.diagnose(kill(network), *images).set_index("layer")
    hidden = found.drop("softmax")
    assert (hidden[["zeros", "shut", "zero gradients"]] == 1).all(axis=None)
    assert (hidden[["open", "std", "spread", "gradient"]] == 0).all(axis=None)
    assert found.loc["softmax", "gradient"] == 0  # its input is zero, so its kernel learns nothing either
    assert np.isnan(found.loc["softmax", "zeros"])
    assert gradients.gradient_share(network, *images) == 0
    assert not gradients.features(network, images[0]).any()


def test_a_healthy_network_is_not(network, images):
    models.initialise(network, "he_normal", 0)
    found = gradients.diagnose(network, *images).set_index("layer")
    assert list(found.index) == ["conv1", "conv2", "dense", "softmax"]
    hidden = found.drop("softmax")
    assert hidden["zeros"].between(0.01, 0.99).all()
    assert np.allclose(hidden["zeros"] + hidden["open"], 1)
    assert (found[["std", "spread", "gradient"]] > 0).all(axis=None)
    assert 0.01 < gradients.gradient_share(network, *images) <= 1


def test_a_network_that_sees_no_difference_between_images_has_no_gradient_share_though_it_is_not_dead(network, images):
    models.initialise(network, "he_normal", 0)
    same = np.repeat(images[0][:1], 12, axis=0)
    network.get_layer("softmax").kernel.assign(1e-3 * network.get_layer("softmax").kernel)
    assert gradients.features(network, same).any()
    assert gradients.diagnose(network, same, images[1])["gradient"].iloc[0] < 1e-4
    assert gradients.gradient_share(network, same, images[1]) < 1e-3


def history(loss, val_loss=None):
    return pd.DataFrame({"loss": loss} | ({"val_loss": val_loss} if val_loss else {}))


def test_stuck_is_two_epochs_at_ln_c():
    guess = np.log(5)
    assert gradients.stuck(history([3.0, guess * 1.005, guess * 0.995]), 5)
    assert not gradients.stuck(history([guess, guess * 0.98]), 5)
    assert not gradients.stuck(history([guess * 0.9, guess]), 5)
    assert gradients.stuck(history([guess * 0.95] * 2, [guess] * 2), 5)  # dropout blurs the loss of training
    assert not gradients.stuck(history([guess] * 2, [guess * 0.9] * 2), 5)
    assert not gradients.stuck(history([guess] * 2), 4)
    assert not gradients.stuck(history([np.nan, np.nan]), 5)


def test_states():
    guess = history([np.log(5)] * 2)
    assert gradients.state(guess, 5, np.zeros((2, 4))) == "dead"
    assert gradients.state(guess, 5, np.full((2, 4), 1e-9)) == "vanished"
    assert gradients.state(history([0.5, 0.4]), 5, np.zeros((2, 4))) == "alive"
    assert gradients.state(history([np.log(5), np.nan]), 5, np.zeros((2, 4))) == "diverged"
    assert gradients.state(history([1e9, 1e6]), 5, np.zeros((2, 4))) == "dead"  # the bias runs wild, nothing else can
    assert gradients.state(history([1.7, 1.62]), 5, np.ones((2, 4))) == "unsettled"  # not below ln C, so not alive


def test_bad_inputs_are_said(network, images, grains_splits):
    for function in (gradients.gradient_share, gradients.diagnose):
        with pytest.raises(ValueError, match="No images"):
            function(network, images[0][:0], images[1][:0])
    for layer in network.layers[:-1]:
        layer.trainable = False
    assert np.isnan(gradients.gradient_share(network, *images))  # of a head alone
    with pytest.raises(ValueError, match="one epoch or more"):
        gradients.stuck(history([]), 5)
    with pytest.raises(ValueError, match="one condition"):
        dead.experiment(grains_splits, [], [0], 1)
    with pytest.raises(ValueError, match="images is 9999"):
        dead.experiment(grains_splits, FEW, [0], 1, images=9999)


def test_normalising_keeps_the_architecture_and_centres_what_reaches_each_relu(network, images):
    normalised = dead.normalise(network)
    convolutions = [layer for layer in normalised.layers if isinstance(layer, keras.layers.Conv2D)]
    assert [layer.filters for layer in convolutions] == [8, 16]
    assert {layer.activation for layer in convolutions} == {keras.activations.linear}
    normalised(images[0], training=True)
    found = gradients.diagnose(normalised, *images).set_index("layer")
    assert found.loc["conv2", "zeros"] > 0  # measured behind the ReLU
    assert normalised.count_params() == network.count_params() + 4 * (8 + 16)


@pytest.fixture(scope="module")
def first(grains_splits):
    return dead.experiment(grains_splits, FEW, [0, 1], 2, images=30, model="cnn_light")


def test_an_experiment_has_a_row_per_training_and_an_example_of_each_state(first):
    rows, layers = first
    assert list(zip(rows["condition"], rows["seed"], strict=True)) == [(c.name, s) for s in (0, 1) for c in FEW]
    assert rows["gradient share"].between(0, 1).all()
    assert (rows["epochs"] <= 2).all()
    assert set(layers["state"]) == set(rows["state"])
    assert set(layers["moment"]) == {"start", "end"}


def test_an_experiment_goes_on_where_it_stopped(first, grains_splits, monkeypatch):
    trained = []
    fit = keras.Model.fit
    monkeypatch.setattr(keras.Model, "fit", lambda self, *a, **k: trained.append(1) or fit(self, *a, **k))
    rows, _ = dead.experiment(grains_splits, FEW, [0, 1, 2], 2, images=30, model="cnn_light")
    assert len(trained) == len(FEW)  # seed 2 only
    assert len(rows) == 3 * len(FEW)
    kept = rows[rows["seed"] < 2].reset_index(drop=True)
    pd.testing.assert_frame_equal(kept, first[0])


def test_examples_are_of_the_trainings_that_were_asked_for(first, grains_splits):
    rows, layers = dead.experiment(grains_splits, FEW, [3], 2, images=30, model="cnn_light")
    assert set(layers["seed"]) == {3}
    assert set(layers["state"]) == set(rows["state"])
    again, examples = dead.experiment(grains_splits, FEW, [0, 1], 2, images=30, model="cnn_light")
    pd.testing.assert_frame_equal(again, first[0])
    pd.testing.assert_frame_equal(examples, first[1])


def test_causes_are_taken_back_one_at_a_time(grains_splits, monkeypatch):
    whole = models.build("googlenet", (64, 64, 3), 5)
    varied = {name: models.build("googlenet_varied", (64, 64, 3), 5, **own) for name, own in dead.VARIANTS.items()}
    same = models.build("googlenet_varied", (64, 64, 3), 5)
    assert [w.shape for w in same.weights] == [w.shape for w in whole.weights]

    def layers(network):
        return [layer for layer in network.layers if isinstance(layer, keras.layers.Conv2D)]

    for name, share in (("half the filters", 2), ("a quarter of the filters", 4)):
        assert [layer.filters * share for layer in layers(varied[name])] == [layer.filters for layer in layers(whole)]
    for count in (5, 2):
        shallow = layers(varied[f"{count} inception modules of 9"])
        assert [layer.filters for layer in shallow] == [layer.filters for layer in layers(whole)[: 3 + 6 * count]]
    sizes = [layer.kernel_size for layer in layers(varied["3×3 in place of 1×1"])]
    assert sizes == [(3, 3) if layer.kernel_size == (1, 1) else layer.kernel_size for layer in layers(whole)]

    narrow = {"an eighth of the filters": {"width": 0.125, "modules": 1}}
    monkeypatch.setattr(dead, "VARIANTS", narrow)
    rows = dead.causes(grains_splits, [0], 1, images=12)
    assert rows["condition"].tolist() == [dead.AS_PUBLISHED, *narrow]
    again, _ = dead.experiment(grains_splits, dead.CONDITIONS[:1], [0], 1, images=12)  # shares GoogLeNet's trainings
    assert again["seconds"].item() == rows["seconds"].iloc[0]


def test_a_seed_starts_alike_whatever_was_trained_before():
    trial = dead._Trial("cnn_light", (64, 64, 3), 3, FEW[0])
    weights = [[np.array(v) for v in trial.start(FEW[0], seed).get_weights()] for seed in (0, 1, 0)]
    assert all(np.array_equal(a, b) for a, b in zip(weights[0], weights[2], strict=True))
    assert not np.array_equal(weights[0][0], weights[1][0])


def test_a_trial_is_the_same_in_every_process():
    states = []
    for elsewhere in (1, 2):
        keras.utils.set_random_seed(elsewhere)  # what another process has drawn before
        trial = dead._Trial("googlenet_light", (64, 64, 3), 3, FEW[0])
        states.append([np.array(value) for value in trial.start(FEW[0], 0).variables])
    assert all(np.array_equal(a, b) for a, b in zip(*states, strict=True))


def test_warm_up_rises_linearly_and_then_stays():
    trial = dead._Trial("cnn_light", (32, 32, 3), 3, dead.Condition(warm_up=10))
    rate = trial.model.optimizer._learning_rate
    assert [float(rate(step)) for step in (0, 5, 10, 1000)] == pytest.approx([0, 5e-4, 1e-3, 1e-3])


def test_each_warm_up_rises_to_its_own_rate(grains_splits):
    warm = [dead.Condition(learning_rate=rate, warm_up=1) for rate in (1e-3, 1e-5)]
    rows, _ = dead.experiment(grains_splits, warm, [0], 2, images=30, model="cnn_light")
    assert rows["val_loss"].nunique() == 2


def test_frequency_and_charts(first):
    rows, layers = first
    table = dead.frequency(rows)
    assert table["trainings"].tolist() == [2, 2]
    assert (table["low"] <= table["share"]).all()
    assert (table["share"] <= table["high"]).all()
    assert dead.states(rows)["trainings"].sum() == len(rows)
    for chart in (deadcharts.shares(rows), deadcharts.waking(rows), deadcharts.layers(layers)):
        assert len(chart[1])


def experiment_of(*states):
    condition = dead.CONDITIONS[0].name
    return pd.DataFrame([{"condition": condition, "state": s, "stuck": s in dead.STUCK, "epochs": 3} for s in states])


@pytest.mark.parametrize("states", [("dead", "dead"), ("dead", "vanished", "alive"), ("alive",)])
def test_how_many_got_stuck_is_said(states, monkeypatch):
    said = []
    monkeypatch.setattr(deadcharts.page, "display", lambda shown: said.append(shown.data))
    deadcharts.counts({"experiment": experiment_of(*states)})
    assert f"of {len(states)} trainings, {sum(s in dead.STUCK for s in states)} got stuck" in said[0]
    assert f"In {states.count('dead')} of these" in said[0]
    assert f"left of their own accord: {states.count('alive')}." in said[0]


def test_what_is_not_there_is_said(monkeypatch):
    said = []
    monkeypatch.setattr(deadcharts.page, "display", lambda shown: said.append(shown.data))
    deadcharts.counts({})
    show.compared("experiment", dead.frequency, {"experiment": experiment_of("dead")}, {})
    assert "not measured yet" in said[0]
    assert "not measured yet" in said[1]
    assert "<table" in said[-1]


def test_what_the_pages_say_of_the_reference_experiment():
    reference = dead.read()
    if not reference:
        pytest.skip("the reference experiment is not committed")
    rows = reference["experiment"]
    assert (rows.groupby("condition").size() == 20).all()
    table = dead.frequency(rows).set_index("condition")
    study, third, tenth = (table.loc[f"glorot_uniform, {rate:g}"] for rate in (1e-3, 3e-4, 1e-4))
    assert (study["left"], study["stuck"], study["dead"]) == (1, 19, 0)
    assert third["left"] > 15
    assert tenth["left"] == 20
    he = rows[rows["condition"] == "he_normal, 0.001"]["state"].value_counts()
    assert (he["vanished"], he["alive"], he["unsettled"]) == (1, 13, 6)
    assert table.loc["glorot_uniform, 0.001, batch normalisation", "stuck"] == 0
    warmed = rows[rows["condition"] == "glorot_uniform, 0.001, warm-up 64"]
    assert ((warmed["state"] == "alive") & (warmed["epochs"] <= 2)).sum() == 3
    assert (warmed["epochs"] > 2).sum() == 17
    assert table.loc["glorot_uniform, 0.001, warm-up 64", "stuck"] == 10
    assert table.loc["glorot_uniform, 0.0003", "stuck"] == 3
    accuracy = rows[rows["epochs"] <= 2].groupby("condition")["val_accuracy"].median()
    assert accuracy.idxmax() == "glorot_uniform, 0.001, batch normalisation"
    by_condition = rows.groupby("condition")
    normalised, slow = "glorot_uniform, 0.001, batch normalisation", "glorot_uniform, 0.0001"
    assert set(by_condition.get_group(normalised)["epochs"]) == {2, 3}
    assert by_condition.get_group(slow)["epochs"].max() == 3
    assert [round(by_condition["val_accuracy"].median()[name], 2) for name in (normalised, slow)] == [0.85, 0.67]
    assert set(by_condition.get_group("he_normal, 0.0001")["epochs"]) == {1}
    assert set(rows.loc[rows["state"] == "dead", "condition"]) == {dead.TOO_FAST.name}
    assert claims.dead_training().judged["consequence"] == "holds"
    assert claims.dead_training().judged["chance"] == "holds"
    vanished = rows[(rows["state"] == "vanished") & (rows["condition"] == dead.PLAIN[0].name)]
    assert vanished["zero features"].median() == pytest.approx(7 / 8, abs=0.03)
    assert vanished["spread"].median() < 0.01


def test_what_the_pages_say_of_the_causes():
    found = claims.dead_training().parts["likelier"].set_index("network")
    assert set(found["trainings"]) == {20}
    assert found["stuck"].tolist() == [19, 12, 0, 0, 0, 20]
    assert list(found.index) == [dead.AS_PUBLISHED, *dead.VARIANTS]
    assert round(found.loc["half the filters", "p"], 2) == 0.02
    assert found["verdict"].tolist() == ["", "holds", "holds", "holds", "holds", "undecided"]


def test_what_the_pages_say_of_googlenet_light_at_224_pixels():
    found = [run for run in runs.references() if run.spec.model == "googlenet_light" and not run.spec.augment]
    assert len(found) == 3
    for run in found:
        assert not run.dead
        assert (run.spec.image_size, run.spec.initializer, run.spec.learning_rate) == (224, "glorot_uniform", 1e-3)
        assert run.accuracy().value > 0.9


def test_what_the_pages_say_of_googlenet_at_224_pixels():
    (dead_run,) = [run for run in runs.references("googlenet") if not run.spec.adapted]
    spec, images = dead_run.spec, dead_run.record["data"]["images"]
    assert (spec.image_size, spec.initializer, spec.learning_rate) == (224, "glorot_uniform", 1e-3)
    assert (spec.seed, images["train"], images["test"]) == (0, 7_500, 3_000)
    assert (dead_run.dead, len(dead_run.history)) == (True, 5)
    assert dead_run.history["val_loss"].to_numpy() == pytest.approx(np.log(5), rel=1e-3)
    filters = dead_run.filters
    module = {name: filters[filters["layer"].str.startswith(f"inception_{name}")] for name in ("5a", "5b")}
    assert [len(rows) for rows in module.values()] == [1024, 1264]
    assert (module["5a"]["fires"] == 0).all()
    outputs = module["5b"][~module["5b"]["layer"].str.endswith("_reduce")]
    assert (len(outputs), (outputs["fires"] > 0).sum()) == (1024, 19)
    assert set(module["5b"].loc[module["5b"]["layer"].str.endswith("_reduce"), "fires"]) == {0}
    assert set(outputs["fires"]) == {0, 1}  # on every image or on none: a constant
    (adapted,) = runs.counted("googlenet")
    assert (adapted.spec.initializer, adapted.spec.learning_rate) == ("he_normal", 3e-4)
    assert adapted.spec.data == spec.data


def test_guessing_costs_ln_c():
    table = dead.guessing({"GoogLeNet": dead.PUBLISHED})
    assert table["ln C"].item() == pytest.approx(table["loss"].item(), rel=gradients.TOLERANCE)
