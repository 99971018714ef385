"""Runs: keyed, atomic, loaded, resumed to the same result; what stops a training says why."""

import logging
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time

import h5py
import numpy as np
import pytest

from riceutils import activations, background, checkpoint, config, data, deadfilters, evaluation, files, runs, training


@pytest.fixture(scope="module")
def splits(grains_folder):
    return data.load(grains_folder, 32, [12, 4, 6])


def spec_of(splits, **changes):
    basis = {
        "model": "cnn_light",
        "data": splits.fingerprint,
        "image_size": 32,
        "classes": len(splits.classes),
        "epochs": 4,
        "batch_size": 8,
        "learning_rate": 1e-3,
        "patience": 9,
        "seed": 0,
    }
    return runs.Spec(**basis | changes)


def train(spec, splits):
    return training.train_or_load(spec, splits)


class Killed(Exception):
    pass


@pytest.mark.parametrize("changes", [{}, {"augment": True}, {"model": "final"}], ids=["plain", "augmented", "dropout"])
def test_a_resumed_run_equals_an_uninterrupted_one(splits, monkeypatch, changes):
    spec = spec_of(splits, seed=1, **changes)
    whole = train(spec, splits)
    history, predictions = whole.history, whole.predictions
    shutil.rmtree(whole.folder)
    end_epoch = checkpoint.Checkpoint.on_epoch_end

    def killed_after_second(self, epoch, logs=None):
        end_epoch(self, epoch, logs)
        if epoch == 1:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.Checkpoint, "on_epoch_end", killed_after_second)
        with pytest.raises(Killed):
            train(spec, splits)
    assert runs.find(spec) is None
    resumed = train(spec, splits)
    columns = history.columns.drop("seconds")
    assert resumed.history[columns].equals(history[columns])
    for name in ("clean", "perturbed"):
        np.testing.assert_array_equal(resumed.predictions[name], predictions[name])


def test_a_process_killed_in_the_middle_of_training_leaves_nothing_half_written(splits, grains_folder):
    spec = spec_of(splits, seed=2, epochs=400, patience=400)
    script = f"""
        from riceutils import data, runs, training
        splits = data.load({str(grains_folder)!r}, 32, [12, 4, 6])
        training.train_or_load(runs.Spec(**{spec.model_dump()!r}), splits)
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], env=os.environ | {"PYTHONPATH": "."})
    state = files.home() / "runs" / f".{spec.model}-{spec.key}.state.npz"
    for _ in range(1200):
        if state.exists() or process.poll() is not None:
            break
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert runs.find(spec) is None
    with np.load(state) as stored:
        done = len(stored["history"])
    assert 0 < done < 400
    resumed = checkpoint.Checkpoint(spec, state, None)
    resumed.load(training.new_model(spec))
    assert len(resumed.history) == done


def test_weights_are_kept_without_the_optimisers_memory(splits):
    run = train(spec_of(splits, epochs=1), splits)
    with h5py.File(run.folder / runs.WEIGHTS) as stored:
        values = []
        stored.visititems(lambda name, found: values.append(found.size) if isinstance(found, h5py.Dataset) else None)
    assert sum(values) == run.model().count_params()


def test_a_finished_run_is_loaded_not_trained(splits, monkeypatch):
    first = train(spec_of(splits), splits)
    monkeypatch.setattr(training, "new_model", lambda spec: pytest.fail("trained again"))
    again = train(spec_of(splits), splits)
    assert again.folder == first.folder
    assert again.record["metrics"] == first.record["metrics"]


def test_the_key_depends_on_spec_and_training_version_not_on_code(splits, monkeypatch):
    key = spec_of(splits).key
    assert spec_of(splits, seed=5).key != key
    monkeypatch.setattr(runs, "code_hash", lambda: "other")
    assert spec_of(splits).key == key
    monkeypatch.setattr(runs, "TRAINING_VERSION", runs.TRAINING_VERSION + 1)
    assert spec_of(splits).key != key


def test_weights_in_the_run_give_its_predictions(splits):
    run = train(spec_of(splits), splits)
    again = training.predict(run.model(), splits.test.images)
    np.testing.assert_allclose(again, run.predictions["clean"], atol=1e-6)


def test_early_stopping_restores_the_best_epoch(splits):
    run = train(spec_of(splits, epochs=30, patience=1, learning_rate=0.05), splits)
    restored = evaluation.loss(training.predict(run.model(), splits.validation.images), splits.validation.labels)
    assert restored == pytest.approx(run.history["val_loss"].min(), rel=1e-3)


def test_a_loss_that_is_no_number_stops_with_the_way_out(splits):
    spec = spec_of(splits, learning_rate=1.0)
    original = training.new_model

    def poisoned(spec, start=None):
        model = original(spec)
        model.layers[1].kernel.assign(np.full(model.layers[1].kernel.shape, np.nan, np.float32))
        return model

    training.new_model = poisoned
    try:
        with pytest.raises(checkpoint.TrainingError, match=r"epoch 1.*learning_rate"):
            train(spec, splits)
    finally:
        training.new_model = original
    assert runs.find(spec) is None


def test_a_validation_loss_that_ends_in_nan_does_not_count_as_the_best(splits, monkeypatch):
    fit = training._fit

    def diverged(*arguments):
        history, *rest = fit(*arguments)
        return history.assign(val_loss=[0.9, np.nan]), *rest

    monkeypatch.setattr(training, "_fit", diverged)
    assert train(spec_of(splits, seed=11, epochs=2), splits).record["best_epoch"] == 1


def test_a_first_validation_loss_that_is_no_number_stops_too(splits, tmp_path):
    spec = spec_of(splits)
    watch = checkpoint.Checkpoint(spec, tmp_path / "state.npz", None)
    watch.set_model(training.new_model(spec))
    watch.on_epoch_begin(0)
    with pytest.raises(checkpoint.TrainingError, match=r"epoch 1.*learning_rate"):
        watch.on_epoch_end(0, {"loss": 1.0, "val_loss": np.nan})


def test_the_time_limit_is_marked(splits, monkeypatch):
    clock = iter(np.arange(0, 1e6, 61.0))
    monkeypatch.setattr(checkpoint.time, "perf_counter", lambda: next(clock))
    run = train(spec_of(splits, seed=3, time_limit=2), splits)
    assert run.record["stopped"] == "time limit"
    assert len(run.history) < 4


def test_what_was_saved_of_another_part_of_the_network_is_not_taken_up(splits, tmp_path, capsys):
    spec = spec_of(splits)
    saved, begun = (checkpoint.Checkpoint(spec, tmp_path / "state.npz", None) for _ in range(2))
    saved.set_model(training.new_model(spec))
    saved.on_epoch_begin(0)
    saved.on_epoch_end(0, {"loss": 1.0, "val_loss": 1.0})
    begun.load(training.new_model(spec_of(splits, image_size=64)))
    assert (begun.history, begun.resumed) == ([], None)
    assert "training begins anew" in capsys.readouterr().out


@pytest.mark.parametrize("fate", ["time limit", "dead"])
def test_a_run_killed_after_its_end_is_not_trained_on(splits, monkeypatch, fate):
    if fate == "dead":
        monkeypatch.setattr(checkpoint, "DEAD_AFTER", 2)
        monkeypatch.setattr(checkpoint, "DEAD_SHARE", 2.0)
        monkeypatch.setattr(checkpoint.gradients, "stuck", lambda *arguments: True)
    else:
        clock = iter(np.arange(0, 1e6, 61.0))
        monkeypatch.setattr(checkpoint.time, "perf_counter", lambda: next(clock))
    spec = spec_of(splits, seed=7 + (fate == "dead"), epochs=9, patience=9, time_limit=3)
    save, ended = training._save, []

    def killed(*arguments):
        ended.append(arguments[5:])
        raise Killed

    monkeypatch.setattr(training, "_save", killed)
    with pytest.raises(Killed):
        train(spec, splits)
    monkeypatch.setattr(training, "_save", save)
    run = train(spec, splits)
    (history, stopped, share) = ended[0]
    assert stopped == run.record["stopped"] == fate
    assert len(run.history) == len(history)
    assert run.record["gradient_share"] == share


def test_a_spec_of_other_data_is_refused(splits):
    with pytest.raises(ValueError, match="other data"):
        train(spec_of(splits, data="0" * 16), splits)


def test_a_student_learns_its_teachers_answers_as_warm_as_asked(splits):
    teacher = train(spec_of(splits, seed=1), splits)
    guessing = np.log(len(splits.classes))
    assert teacher.history["loss"].iloc[-1] < 0.9 * guessing
    spec = spec_of(splits, epochs=2, teacher={"key": teacher.spec.key, "temperature": 1e6})
    cases = ((spec, None, "Give that run as its teacher"), (spec_of(splits), teacher, "no teacher"))
    for wrong, other, way_out in cases:
        with pytest.raises(ValueError, match=way_out):
            training.train_or_load(wrong, splits, teacher=other)
    student = training.train_or_load(spec, splits, teacher=teacher)
    assert spec.key != spec_of(splits, epochs=2).key
    assert (student.history["loss"] > guessing - 1e-3).all()  # all classes alike is the best answer to learn
    best = student.record["best"]["val_loss"]
    validation = training.predict(student.model(), splits.validation.images)
    assert evaluation.loss(validation, splits.validation.labels) == pytest.approx(best, rel=1e-3)  # as it is used
    warm = spec_of(splits, seed=1, teacher={"key": teacher.spec.key, "temperature": 1.0})
    assert training.train_or_load(warm, splits, teacher=teacher).history["loss"].iloc[-1] < guessing - 0.02


def test_probabilities_are_softened_in_training_only():
    logits = np.array([[4.0, 0.0, -8.0]], np.float32)
    sharp, soft = (np.exp(own) / np.exp(own).sum() for own in (logits, logits / 4))
    layer = training.Softened(4.0)
    np.testing.assert_allclose(layer(sharp, training=True), soft, rtol=1e-5)
    np.testing.assert_array_equal(layer(sharp), sharp)


def test_activations_of_a_silent_filter(splits):
    run = train(spec_of(splits), splits)
    model = run.model()
    kernel, bias = model.get_layer("conv1").get_weights()
    kernel[..., 0], bias[0] = 0, -1  # can never fire
    kernel[..., 1], bias[1] = 0, 1  # always fires
    model.get_layer("conv1").set_weights([kernel, bias])
    table = activations.measure(model, splits.test.images).query("layer == 'conv1'").set_index("filter")
    assert table.loc[0, ["apoz", "apoz_grain", "fires", "maximum"]].tolist() == [1, 1, 0, 0]
    assert table.loc[1, ["apoz", "apoz_grain", "fires", "maximum"]].tolist() == [0, 0, 1, 1]
    maps = activations.maps(model, splits.test.images)["conv1"]
    np.testing.assert_allclose(table["apoz"], (maps == 0).mean(axis=(0, 1, 2)), atol=1e-6)
    assert (activations.measure(model, splits.test.images)["fires"] == 0).any()


def test_committed_weights_stay_small(splits, monkeypatch, tmp_path):
    monkeypatch.setattr(runs, "REFERENCE", tmp_path)
    run = train(spec_of(splits), splits)
    monkeypatch.setattr(runs, "COMMITTED_WEIGHTS", 10)
    committed = runs.Run(runs.commit(run))
    assert not committed.has_weights
    assert run.has_weights
    with pytest.raises(FileNotFoundError, match="too large"):
        committed.model()


def test_a_committed_result_of_other_parameters_is_not_written_over(splits, monkeypatch, tmp_path):
    monkeypatch.setattr(runs, "REFERENCE", tmp_path)
    run, other = (train(spec_of(splits, epochs=epochs), splits) for epochs in (4, 1))
    assert runs.commit(run) == runs.commit(run) == tmp_path / "cnn_light-seed0"
    with pytest.raises(ValueError, match="cnn_light-seed0 is the result of a training with other parameters"):
        runs.commit(other)


def test_adapted_results_count_only_where_nothing_published_is_alive(splits, monkeypatch, tmp_path):
    monkeypatch.setattr(runs, "REFERENCE", tmp_path)
    rates = {"published": 1e-3, "slower": 1e-4}
    made = {name: train(spec_of(splits, epochs=1, learning_rate=rate), splits) for name, rate in rates.items()}
    published, slower = (runs.Run(runs.commit(run)) for run in made.values())
    assert [run.folder.name for run in (published, slower)] == ["cnn_light-seed0", "cnn_light-adapted-seed0"]
    assert [run.spec.adapted for run in (published, slower)] == [False, True]
    assert [run.name for run in runs.counted("cnn_light")] == [published.name] == [runs.reference("cnn_light").name]
    monkeypatch.setattr(runs.Run, "dead", property(lambda run: run.name == published.name))
    assert [run.name for run in runs.counted("cnn_light")] == [slower.name] == [runs.reference("cnn_light").name]


@pytest.mark.parametrize("shipped", [True, False])
def test_where_weights_were_not_shipped_the_cached_run_stands_in(splits, monkeypatch, tmp_path, shipped):
    monkeypatch.setattr(runs, "REFERENCE", tmp_path)
    monkeypatch.setattr(runs, "COMMITTED_WEIGHTS", 1e9 * shipped)
    run = train(spec_of(splits), splits)
    committed = runs.commit(run)
    for name in ("cnn_light", str(committed)):
        assert runs.resolve(name).folder == (committed if shipped else run.folder)
    record = run.record | {"code": "trained again by other code"}
    files.write_json(run.folder / "record.json", record)
    assert runs.cached(runs.Run(committed)).folder == committed  # figures of two trainings are never mixed
    files.write_json(run.folder / "record.json", run.record)
    assert runs.cached(runs.Run(committed)).folder == run.folder
    shutil.rmtree(run.folder)
    if not shipped:
        with pytest.raises(FileNotFoundError, match=r"weights of cnn_light-.* Train it to have them"):
            runs.resolve("cnn_light")


def test_tensorboard_logs_on_request(splits, tmp_path):
    spec = spec_of(splits, seed=4, epochs=1)
    training.train_or_load(spec, splits, tensorboard=str(tmp_path))
    assert list(tmp_path.rglob("events.out.*"))


def test_no_warning_of_many_models_being_one_traced_again(caplog):
    import keras

    logging.getLogger("tensorflow").addHandler(caplog.handler)
    for _ in range(8):  # TensorFlow warns from the fifth on
        network = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        network.predict(np.zeros((1, 2)), verbose=0)
    logging.getLogger("tensorflow").warning("anything else")
    logging.getLogger("tensorflow").removeHandler(caplog.handler)
    assert {record.getMessage() for record in caplog.records} == {"anything else"}


def test_what_the_page_says_of_the_mobilenets():
    small, large, custom = (runs.reference(name) for name in ("mobilenet_small", "mobilenetv3_small", "vgg_custom"))
    assert [run.accuracy().value for run in (small, large)] == [custom.accuracy().value] * 2
    assert custom.accuracy().value == max(run.accuracy().value for run in runs.counted())
    assert custom.record["parameters"] / small.record["parameters"] == pytest.approx(12, abs=0.5)
    assert custom.record["flops"] > 50 * small.record["flops"]
    assert round(large.record["parameters"] / small.record["parameters"]) == 78
    final = [run.accuracy("perturbed").value for run in runs.counted("final")]
    perturbed = [run.accuracy("perturbed").value for run in (small, large, custom)]
    assert min(final) < perturbed[0] < max(final)
    told = [round(value, 3) for value in (*perturbed, min(final), max(final))]
    assert told == [0.92, 0.814, 0.963, 0.902, 0.943]
    assert (large.record["stopped"], large.record["best_epoch"], len(large.history)) == ("time limit", 19, 22)
    for run in (small, large):
        later = run.history.iloc[4:]
        assert later["val_accuracy"].min() < 0.87
        assert later["accuracy"].min() > 0.97
    assert {run.spec.model for run in runs.counted()} <= set(config.STUDY)  # verdicts are on the Study's models


def test_what_the_page_says_of_vgg16():
    heavy, light, custom = (runs.reference(model) for model in ("vgg16", "vgg_light", "vgg_custom"))
    (default,) = background.committed("vgg16_224_default")
    assert (heavy.spec.adapted, heavy.spec.learning_rate, default.spec.learning_rate) == (True, 1e-4, 1e-3)
    assert heavy.spec.model_dump(exclude={"learning_rate"}) == default.spec.model_dump(exclude={"learning_rate"})
    assert (heavy.record["stopped"], len(heavy.history), heavy.record["best_epoch"]) == ("time limit", 15, 12)
    for run, clean, perturbed in ((heavy, 0.9910, 0.9597), (default, 0.9367, 0.7630)):
        assert run.accuracy().n == 3_000
        assert [round(run.accuracy(images).value, 4) for images in ("clean", "perturbed")] == [clean, perturbed]
    assert heavy.accuracy("perturbed").low < 0.9649 < heavy.accuracy("perturbed").high
    assert [round(run.accuracy("perturbed").value, 4) for run in (light, custom)] == [0.9490, 0.9633]
    assert heavy.spec.weights == light.spec.weights

    def p(other):
        both = [run.predictions["perturbed"] for run in (heavy, other)]
        return evaluation.mcnemar(*both, heavy.predictions["labels"]).p

    assert p(light) < 0.05 < p(custom)
    block5 = [f"block5_conv{number}" for number in (1, 2, 3)]
    trunk = deadfilters.committed()["trunk"].set_index("layer").loc[block5, "never fire"]
    assert trunk.astype(int).tolist() == [215, 73, 1]
    for run, silent in ((heavy, [244, 133, 102]), (default, [369, 305, 501])):
        filters = run.filters.set_index("layer").loc[block5]
        assert (filters["fires"] == 0).groupby(level=0).sum().tolist() == silent
        assert filters.groupby(level=0).size().tolist() == [512] * 3
