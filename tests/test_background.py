"""Trainings of the background chapters: declared once, kept apart from the study's, shown as missing when they are."""

import numpy as np
import pytest
from scipy import stats

from riceutils import background, config, errata, models, runs, study, subjects, training
from riceutils.config import BackgroundParameters, PretrainedParameters, TrainingParameters
from riceutils.runs import Spec


def parameters(**changes):
    return BackgroundParameters(batch_size=8, patience=5, time_limit=0, images_per_class=[4, 2, 3], epochs=1, **changes)


def test_every_declared_training_names_an_architecture_and_its_options():
    for name, entry in background.declared().items():
        assert entry["model"] in models.names(), name
        assert set(entry) <= {"model", "data", "options", "seeds", *PretrainedParameters.model_fields}, name


def test_a_reference_training_is_committed_without_its_predictions(tmp_path, monkeypatch):
    entry = {"model": "lenet5", "data": "digits", "image_size": 32, "images_per_class": [4, 2, 3], "epochs": 1}
    common = {"batch_size": 8, "patience": 9, "learning_rate": 0.001, "seeds": [0, 1]}
    monkeypatch.setattr(background, "declared", lambda: {"little": common | entry})
    monkeypatch.setattr(background, "RESULTS", tmp_path / "results")
    made = background.reference("little")
    assert [run.spec.seed for run in background.committed("little")] == [0, 1]
    assert not list(tmp_path.rglob("predictions.npz"))
    assert [run.folder.parent.name for run in made] == ["runs", "runs"]
    table = background.table({"little": made[0], "never": []}, {"little": "0.99"})
    assert table["parameters"].tolist() == [61_706, ""]
    assert table["reference"].tolist()[1] == "not measured yet"
    assert "(" in table["reference"][0]
    assert table["seeds"].tolist() == [2, ""]
    assert "published" not in background.table({"little": made[0]})
    trained = background.trained({"little": made[0]}).iloc[0]
    assert trained["low"] < trained["accuracy"] < trained["high"]
    assert trained["images"] == made[0].record["data"]["images"]["train"]


def test_grey_networks_see_one_channel_and_options_are_part_of_the_run():
    splits = study.load(parameters(image_size=28))
    plain = background.run("resnet_preact_small", parameters(image_size=28), splits, units=1, skip=False)
    residual = background.run("resnet_preact_small", parameters(image_size=28), splits, units=1)
    assert plain.spec.preprocessing == "grey"
    assert plain.model().input_shape == (None, 28, 28, 1)
    assert plain.name != residual.name
    assert residual.record["parameters"] > plain.record["parameters"]


def test_what_the_page_says_of_auxiliary_heads():
    with_heads, without = (background.committed(f"googlenet_{which}_heads") for which in ("with", "without"))
    assert [run.dead for run in without] == [True] * 5
    assert sorted(round(run.accuracy().value, 2) for run in with_heads if not run.dead) == [0.38, 0.53]
    assert round(stats.fisher_exact([[2, 3], [0, 5]]).pvalue, 2) == 0.44


def test_what_the_page_says_of_activation_functions():
    relu, tanh, sigmoid = (background.committed(f"alexnet_{name}") for name in ("relu", "tanh", "sigmoid"))
    for saturating, rectified in zip(tanh, relu, strict=True):
        ahead = saturating.history[["accuracy", "val_accuracy"]] > rectified.history[["accuracy", "val_accuracy"]]
        assert ahead.all(axis=None)
        higher = saturating.history["val_loss"] > rectified.history["val_loss"]
        assert not higher[:7].any()
        assert higher[11:].all()  # "after ten epochs or so"
    assert [(run.dead, len(run.history)) for run in sigmoid] == [(True, 5)] * 3


def test_what_the_pages_say_of_other_reference_trainings():
    (alexnet,) = background.committed("alexnet_valid")
    assert (alexnet.dead, len(alexnet.history)) == (True, 5)
    (slower,) = background.committed("alexnet_valid_slower")
    assert (round(slower.accuracy().value, 3), len(slower.history)) == (0.491, 10)
    assert slower.history["val_loss"].idxmin() == slower.history.index[-1]
    printed = errata.published("classics").loc["alexnet_valid", "published_result"]  # test accuracy 0.2220 after …
    assert slower.accuracy().low > 2 * float(printed.split()[2])
    same = slower.spec.model_copy(update={"learning_rate": alexnet.spec.learning_rate})
    assert same == alexnet.spec
    (vgg19,) = background.committed("vgg19_l2_dropout")
    assert (len(vgg19.history), vgg19.accuracy().value, vgg19.record["data"]["images"]["train"]) == (1, 0.1, 1_000)
    assert abs(vgg19.record["metrics"]["clean"]["loss"] - np.log(10)) < 0.0002
    lenet = [run.accuracy() for run in background.committed("lenet5")]
    assert all(share.value < 0.9903 for share in lenet)
    assert sum(share.high >= 0.9903 for share in lenet) == 1
    gained = {}
    for images in ("rice", "cifar10"):
        found = [background.committed(f"transfer_{images}_{kind}") for kind in ("fc", "all", "exp")]
        fc, whole, exp = (run.accuracy() for (run,) in found)
        assert fc.high < whole.low
        assert exp.value < whole.value
        gained[images] = whole.value - fc.value
    assert fc.high < 0.5  # of the photographs
    assert gained["cifar10"] > 4 * gained["rice"]
    names = ("plain_19", "residual_19", "residual_55")
    last = {name: [run.history["loss"].iloc[-1] for run in background.committed(name)] for name in names}
    assert max(last["residual_19"]) < min(last["plain_19"])
    assert min(last["residual_55"]) > max(last["residual_19"])
    (deep,) = background.committed("plain_55")
    assert len(deep.history) == 20
    assert deep.history["loss"].tail(3).is_monotonic_decreasing
    assert deep.history["loss"].iloc[-1] > 4 * max(last["plain_19"])
    fitted = {name: np.mean([run.history["accuracy"].iloc[-1] for run in background.committed(name)]) for name in names}
    assert 0.85 < fitted["plain_19"] < 0.9 < fitted["residual_55"]
    assert 0.25 < deep.history["accuracy"].iloc[-1] < 0.3
    clean = {name: [run.accuracy().value for run in background.committed(name)] for name in names[:2]}
    assert np.mean(clean["residual_19"]) <= np.mean(clean["plain_19"])


def test_what_the_page_says_of_what_shut_vgg16_down():
    names = ["vgg16_default", "vgg16_slower", "vgg16_rgb", "vgg16_rgb_slower"]
    found = {name: background.committed(name) for name in names}
    assert [run.dead for run in found["vgg16_default"]] == [False, True, False]
    assert [run.accuracy().value for run in found["vgg16_default"]] == [0.726, 0.2, 0.91]
    assert all(run.accuracy().value > 0.92 and not run.dead for name in names[1:] for run in found[name])
    for runs_of in found.values():
        assert [(len(run.history), run.record["data"]["images"]["test"]) for run in runs_of] == [(6, 500)] * 3
        assert {run.record["data"]["images"]["train"] for run in runs_of} == {1_000}
    table = background.silenced([*found.values(), []], "block5")
    assert list(table) == ["image size", "preprocessing", "learning rate", "accuracy", "conv1", "conv2", "conv3"]
    assert table["preprocessing"].tolist() == ["caffe", "caffe", "rgb", "rgb"]
    assert table["learning rate"].tolist() == [1e-3, 1e-4, 1e-3, 1e-4]
    last = table["conv3"].astype(float).set_axis(names)
    assert last["vgg16_default"] > 500
    assert last["vgg16_rgb"] > 2 * last[["vgg16_slower", "vgg16_rgb_slower"]].max()  # "silences more filters"
    assert last.drop("vgg16_default").max() < 512 / 2  # "most of the last convolution goes on firing"
    assert last[["vgg16_slower", "vgg16_rgb_slower"]].max() < 80
    assert config.VGG16Parameters().learning_rate == 1e-4
    for profile in ("reference", "paper"):
        assert config.chapter_parameters(profile, "06_vgg16")["learning_rate"] == 1e-3


def test_copies_multiply_the_training_images_and_the_seed_does_not_draw_them():
    loaded = study.load(TrainingParameters(
        batch_size=8, patience=5, time_limit=0, data="synthetic", image_size=64, images_per_class=[4, 2, 3], epochs=2
    ))  # fmt: skip
    spec = Spec(
        model="rice_nano", data=loaded.fingerprint, image_size=64, classes=5, epochs=2, batch_size=8,
        learning_rate=1e-3, patience=5, seed=0, copies=2, schedule="cosine", options={"pool": 4},
    )  # fmt: skip
    run = training.train_or_load(spec, loaded)
    assert run.record["features_reused"]
    assert not run.spec.standard
    subject = subjects.prepare(training.new_model(spec), spec, loaded)
    other = subjects.prepare(training.new_model(spec), spec.model_copy(update={"seed": 1}), loaded)
    assert len(subject.train) == 3 * len(loaded.train)
    assert len(subject.validation) == 2 * len(loaded.validation)
    rows = np.arange(len(subject.train))
    np.testing.assert_array_equal(subject.train.images[rows], other.train.images[rows])
    assert runs.find(spec) is not None


def test_copies_need_a_network_that_shrinks_its_images():
    loaded = study.load(parameters(data="synthetic"))
    spec = Spec(
        model="cnn_light", data=loaded.fingerprint, image_size=32, classes=5, epochs=1, batch_size=8,
        learning_rate=1e-3, patience=5, seed=0, copies=2,
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"cnn_light: copies are for networks that shrink.*Use augment instead"):
        training.train_or_load(spec, loaded)


def test_joined_sets_equal_their_concatenation():
    sets = [np.arange(12, dtype=np.float16).reshape(3, 4) + 100 * number for number in range(3)]
    joined = subjects.Joined(sets)
    rows = np.array([8, 0, 4, 4, 2])
    np.testing.assert_array_equal(joined[rows], np.concatenate(sets)[rows])
    assert (len(joined), joined.shape, joined.dtype) == (9, (9, 4), np.float16)
