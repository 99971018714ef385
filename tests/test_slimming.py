"""Slimming: what is removed does no work, and what is refused is named before anything is cut."""

import keras
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from keras import layers as L

from riceutils import activations, channels, flops, models, slimming, surgery
from riceutils.channels import UnsupportedLayer, follow

SIZE = 12
IMAGES = np.random.default_rng(0).integers(0, 256, (6, SIZE, SIZE, 3), np.uint8)
BATCH = IMAGES.astype(np.float32) / 255.0


def kill(layer, channels):
    """Make filters that never fire: a bias far below anything that their kernels can bring."""
    kernel, bias = layer.get_weights()
    bias[list(channels)] = -1e4
    layer.set_weights([kernel, bias])


@st.composite
def architectures(draw):
    """A random functional model with branches, sums, concatenations and flattens, some of its filters dead."""
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    keras.utils.set_random_seed(int(rng.integers(2**31)))

    def conv(x, filters, activation="relu"):
        return L.Conv2D(
            filters, int(rng.choice([1, 3])), padding=str(rng.choice(["same", "valid"])) if x.shape[1] > 4 else "same",
            activation=activation, bias_initializer="random_normal",
        )(x)  # fmt: skip

    def same(x, filters, activation="relu"):
        return L.Conv2D(filters, 3, padding="same", activation=activation, bias_initializer="random_normal")(x)

    x = inputs = keras.Input((SIZE, SIZE, 3))
    for kind in draw(
        st.lists(st.sampled_from(["conv", "norm", "add", "concat", "depthwise", "pool"]), min_size=2, max_size=5)
    ):
        filters = int(rng.integers(3, 7))
        if kind == "conv":
            x = conv(x, filters)
        elif kind == "norm":
            x = L.ReLU()(L.BatchNormalization(beta_initializer="random_normal")(conv(x, filters, "linear")))
        elif kind == "add":
            x = L.Add()([same(x, filters), L.ReLU()(same(x, filters, "linear"))])
        elif kind == "concat":
            x = L.Concatenate()([same(x, filters), L.MaxPooling2D(3, 1, padding="same")(same(x, 3)), x])
        elif kind == "depthwise":
            x = L.DepthwiseConv2D(3, padding="same", depth_multiplier=int(rng.integers(1, 3)), activation="relu")(x)
        elif x.shape[1] > 4:
            x = L.AveragePooling2D(2)(x) if rng.random() < 0.5 else L.MaxPooling2D(2)(x)
    x = L.Flatten()(x) if draw(st.booleans()) else L.GlobalAveragePooling2D()(x)
    x = L.Dropout(0.3)(L.Dense(8, activation="relu", bias_initializer="random_normal")(x))
    model = keras.Model(inputs, L.Dense(4, activation="softmax")(x))
    dead = set()
    for layer in model.layers:
        if isinstance(layer, L.Conv2D | L.Dense) and layer.activation.__name__ == "relu":
            chosen = np.flatnonzero(rng.random(layer.get_weights()[1].size) < 0.4)
            kill(layer, chosen)
            dead |= {(layer.name, int(channel)) for channel in chosen}
        if isinstance(layer, L.BatchNormalization):  # a constant, zero or not
            gamma, beta, *rest = layer.get_weights()
            gamma[0], beta[0] = 0.0, rng.choice([-1.0, 0.7])
            layer.set_weights([gamma, beta, *rest])
    return model, dead


# Without shrinking: every attempt compiles a network.
@settings(
    max_examples=15, deadline=None, derandomize=True, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
)
@given(architectures())
def test_lossless_slimming_changes_no_output(drawn):
    model, dead = drawn
    plan = slimming.select(model, IMAGES)
    added = any(isinstance(layer, L.Add) for layer in model.layers)  # which ties channels to living ones
    kept = {(layer, channel) for layer, channel, _ in plan.attrs["refused"]}
    assert added or dead <= kept | set(zip(plan["layer"], plan["channel"], strict=True))
    before = model.predict_on_batch(BATCH)
    small = slimming.apply(model, plan)
    np.testing.assert_allclose(small.predict_on_batch(BATCH), before, atol=1e-5)
    assert small.count_params() == model.count_params() if plan.empty else small.count_params() < model.count_params()
    again = slimming.select(small, IMAGES)
    assert len(again) <= len(plan)


def chain(readers="same"):
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((SIZE, SIZE, 3))
    x = L.Conv2D(6, 3, padding="same", activation="relu", name="first")(x)
    x = L.Conv2D(5, 3, padding=readers, activation="relu", name="second")(x)
    x = L.Flatten(name="flat")(x)
    return keras.Model(inputs, L.Dense(4, activation="softmax", name="out")(x))


def test_the_dead_are_found_and_the_saving_is_what_was_said():
    model = chain()
    kill(model.get_layer("first"), [1, 4])
    kill(model.get_layer("second"), [0])
    plan = slimming.select(model, IMAGES)
    assert list(zip(plan["layer"], plan["channel"], strict=True)) == [("first", 1), ("first", 4), ("second", 0)]
    small = slimming.apply(model, plan)
    assert [small.get_layer(name).filters for name in ("first", "second")] == [4, 4]
    alone = plan[plan["layer"] == "second"]
    cut = slimming.apply(model, alone)
    assert flops.count(model).total - flops.count(cut).total == alone["FLOPs"].sum()
    assert model.count_params() - cut.count_params() == alone["parameters"].sum()


@pytest.mark.parametrize(("padding", "removed"), [("valid", True), ("same", False)])
def test_a_constant_is_folded_where_that_is_exact_and_refused_where_not(padding, removed):
    model = chain(padding)
    kernel, bias = model.get_layer("first").get_weights()
    kernel[..., 2], bias[2] = 0.0, 0.5
    model.get_layer("first").set_weights([kernel, bias])
    plan = slimming.select(model, IMAGES)
    assert (("first", 2) in set(zip(plan["layer"], plan["channel"], strict=True))) is removed
    assert bool(plan.attrs["refused"]) is not removed
    np.testing.assert_allclose(
        slimming.apply(model, plan).predict_on_batch(BATCH), model.predict_on_batch(BATCH), atol=1e-5
    )


def test_a_dead_branch_disappears_with_its_layers():
    x = inputs = keras.Input((SIZE, SIZE, 3))
    reduce = L.Conv2D(4, 1, activation="relu", name="reduce")(x)
    branch = L.Conv2D(3, 5, padding="same", activation="relu", name="branch")(reduce)
    x = L.Concatenate(name="both")([L.Conv2D(4, 3, padding="same", activation="relu", name="main")(x), branch])
    model = keras.Model(inputs, L.Dense(2, activation="softmax")(L.GlobalAveragePooling2D()(x)))
    kill(model.get_layer("branch"), range(3))
    small = slimming.apply(model, slimming.select(model, IMAGES))
    assert {"reduce", "branch"}.isdisjoint(layer.name for layer in small.layers)
    np.testing.assert_allclose(small.predict_on_batch(BATCH), model.predict_on_batch(BATCH), atol=1e-5)


def test_a_network_that_is_dead_as_a_whole_keeps_a_thread():
    model = chain()
    kill(model.get_layer("first"), range(6))
    small = slimming.apply(model, slimming.select(model, IMAGES))
    np.testing.assert_allclose(small.predict_on_batch(BATCH), model.predict_on_batch(BATCH), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "criterion"),
    [
        ("cnn_light", "random"),
        ("final", "apoz"),
        ("googlenet_light", "l1"),
        ("resnet_preact_small", "apoz"),
        ("mobilenet_small", "l1"),
    ],
)
def test_a_budget_is_met_and_just_so(name, criterion):
    grey = models.architecture(name).input_shape[-1] == 1
    size = 64 if name == "googlenet_light" else 32
    model = models.build(name, (size, size, 1 if grey else 3))
    images = np.random.default_rng(1).integers(0, 256, (4, size, size, 3), np.uint8)
    plan = slimming.select(model, images, criterion, {"flops": 0.6}, preprocessing="grey" if grey else "rgb")
    small, whole = slimming.apply(model, plan), flops.count(model).total
    assert 0.4 * whole < flops.count(small).total <= 0.6 * whole
    assert small.output_shape == model.output_shape


def test_all_criteria_cut_to_the_same_shape():
    model = models.build("cnn_light", (32, 32, 3))
    shapes = set()
    for criterion in slimming.CRITERIA:
        small = slimming.apply(model, slimming.select(model, IMAGES_32, criterion, {"parameters": 0.5}))
        shapes.add(tuple(tuple(weight.shape) for weight in small.weights))
    assert len(shapes) == 1


IMAGES_32 = np.random.default_rng(2).integers(0, 256, (4, 32, 32, 3), np.uint8)


def test_what_stays_keeps_its_weights():
    model = chain()
    plan = slimming.select(model, IMAGES, "l1", {"parameters": 0.5})
    small = slimming.apply(model, plan)
    gone = plan.loc[plan["layer"] == "first", "channel"]
    kept = np.setdiff1d(np.arange(6), gone)
    np.testing.assert_array_equal(
        small.get_layer("first").kernel, np.asarray(model.get_layer("first").kernel)[..., kept]
    )


def test_of_filters_that_are_never_zero_the_smallest_kernels_go_first():
    model = chain()
    for name in ("first", "second"):
        kernel, bias = model.get_layer(name).get_weights()
        model.get_layer(name).set_weights([kernel * 0.01 / np.arange(1, bias.size + 1), bias + 1])
    plan = slimming.select(model, IMAGES, "apoz", {"parameters": 0.6})
    gone = set(plan.loc[plan["layer"] == "first", "channel"])
    assert gone == set(range(6 - len(gone), 6)) != set()


def test_a_faint_channel_that_its_reader_magnifies_stays():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((SIZE, SIZE, 3))
    x = L.Conv2D(6, 3, activation="relu", name="faint")(inputs)
    x = L.Flatten()(L.Conv2D(4, 3, name="magnifier")(x))
    model = keras.Model(inputs, L.Dense(4, activation="softmax")(x))
    for name, factor in (("faint", 1e-7), ("magnifier", 1e7)):
        kernel, bias = model.get_layer(name).get_weights()
        model.get_layer(name).set_weights([kernel * factor, bias])
    small = slimming.apply(model, slimming.select(model, IMAGES))
    np.testing.assert_allclose(small.predict(BATCH, verbose=0), model.predict(BATCH, verbose=0), atol=1e-5)


@pytest.mark.parametrize("between", ["dropout", "pooling", "sum"])
def test_apoz_is_told_where_the_activation_comes_later(between):
    inputs = keras.Input((SIZE, SIZE, 3))
    x = L.Conv2D(6, 3, padding="same", bias_initializer="random_normal", name="conv")(inputs)
    if between == "sum":
        x = L.Add()([x, L.Conv2D(6, 1, name="shortcut")(inputs)])
    else:
        x = L.Dropout(0.5)(x) if between == "dropout" else L.MaxPooling2D(2)(x)
    x = L.GlobalAveragePooling2D()(L.ReLU()(x))
    model = keras.Model(inputs, L.Dense(4, activation="softmax")(x))
    kill(model.get_layer("conv"), [2])
    measured = activations.measure(model, IMAGES).set_index(["layer", "filter"])["apoz"]
    assert measured["conv", 2] == 1


def test_names_of_inputs_and_of_several_outputs_stay():
    image = keras.Input((SIZE, SIZE, 3), name="image")
    x = L.GlobalAveragePooling2D()(L.Conv2D(6, 3, activation="relu", name="conv")(image))
    outputs = {"main": L.Dense(4, activation="softmax")(x), "beside": L.Dense(2, activation="softmax")(x)}
    model = keras.Model({"image": image}, outputs)
    kill(model.get_layer("conv"), [1, 4])
    small = slimming.apply(model, slimming.select(model, IMAGES))
    assert small.get_layer("conv").filters == 4
    before, after = model({"image": BATCH}), small({"image": BATCH})
    assert set(after) == {"main", "beside"}
    for name in after:
        np.testing.assert_allclose(after[name], before[name], atol=1e-5)


def test_a_plan_may_go_through_a_file(tmp_path):
    model = chain()
    plan = slimming.select(model, IMAGES)
    plan.to_csv(tmp_path / "plan.csv", index=False)
    again = slimming.apply(model, pd.read_csv(tmp_path / "plan.csv"))
    np.testing.assert_array_equal(again(BATCH), slimming.apply(model, plan)(BATCH))


def test_several_inputs_are_named():
    inputs = [keras.Input((SIZE, SIZE, 3), name=name) for name in ("left", "right")]
    x = L.Concatenate()([L.Conv2D(2, 3, activation="relu")(image) for image in inputs])
    model = keras.Model(inputs, L.Dense(4, activation="softmax")(L.Flatten()(x)))
    with pytest.raises(UnsupportedLayer, match="several inputs, left, right"):
        slimming.select(model, IMAGES)


def unsupported(kind):
    x = inputs = keras.Input((SIZE, SIZE, 4))
    if kind == "layer":
        x = L.LayerNormalization(name="odd")(x)
    elif kind == "shared":
        odd = L.Conv2D(4, 3, padding="same", name="odd")
        x = odd(odd(x))
    elif kind == "groups":
        x = L.Conv2D(4, 3, groups=2, name="odd")(x)
    elif kind == "axis":
        x = L.Concatenate(axis=1, name="odd")([x, x])
    elif kind == "scaled":
        x = L.Rescaling([1.0, 2.0, 3.0, 4.0], name="odd")(x)
    elif kind == "halved":
        x = L.Conv2D(4, 3, activation="glu", name="odd")(x)
    elif kind == "function":
        x = L.Lambda(lambda values: 2 * values, name="odd")(x)
    elif kind == "nested":
        inner = keras.Input((SIZE, SIZE, 4))
        x = keras.Model(inner, L.Conv2D(4, 3)(inner), name="odd")(x)
    return keras.Model(inputs, L.Dense(2)(L.GlobalAveragePooling2D()(x)))


@pytest.mark.parametrize("kind", ["layer", "shared", "groups", "axis", "scaled", "halved", "function", "nested"])
def test_what_cannot_be_followed_is_named(kind):
    with pytest.raises(UnsupportedLayer, match="odd"):
        follow(unsupported(kind))


def test_a_sum_written_as_an_operation_is_named():
    inputs = keras.Input((SIZE, SIZE, 4))
    x = L.GlobalAveragePooling2D()(L.ReLU()(inputs) + L.Conv2D(4, 1)(inputs))
    with pytest.raises(UnsupportedLayer, match=r"is written as an operation; use keras\.layers\.Add\(\)"):
        follow(keras.Model(inputs, L.Dense(2)(x)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"criterion": "black"}, "Unknown criterion 'black'. Use dead, apoz"),
        ({"criterion": "l1"}, "expected one of flops or parameters"),
        ({"criterion": "l1", "budget": {"time": 0.5}}, "expected one of flops or parameters"),
        ({"criterion": "l1", "budget": {"flops": 1.5}}, "between 0 and 1"),
        ({"criterion": "l1", "budget": {"flops": 1e-9}}, "can't be cut to 1e-09 of its flops"),
        ({"criterion": "dead", "budget": {"flops": 0.5}}, "takes no budget"),
        ({"criterion": "l1", "budget": {"flops": 0.5}, "layers": ["out"]}, "out is no convolution"),
    ],
)
def test_wrong_requests_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        slimming.select(chain(), IMAGES, **arguments)


def test_no_images():
    with pytest.raises(ValueError, match="probe set is empty"):
        slimming.select(chain(), IMAGES[:0])


@pytest.mark.parametrize(
    ("layer", "channel", "message"),
    [("nowhere", 0, "no convolution or dense layer 'nowhere'"), ("first", 6, "no channel 6"), ("out", 0, "must stay")],
)
def test_wrong_plans_are_named(layer, channel, message):
    model = chain()
    plan = slimming.select(model, IMAGES, "random", {"parameters": 0.5}).iloc[:1].assign(layer=layer, channel=channel)
    with pytest.raises(ValueError, match=message):
        slimming.apply(model, plan)


def test_a_plan_that_empties_a_layer_is_refused():
    model = chain()
    rows = slimming.select(model, IMAGES, "random", {"parameters": 0.5}).iloc[:1]
    plan = rows.loc[rows.index.repeat(6)].assign(layer="first", channel=range(6))
    with pytest.raises(ValueError, match="second would lose all of its inputs"):
        slimming.apply(model, plan)


@pytest.mark.parametrize("name", ["rice_nano", "resnet_preact_small", "mobilenet_small"])
def test_folding_changes_no_output_and_leaves_no_normalisation_that_could_go(name):
    grey = models.architecture(name).input_shape[-1] == 1
    model = models.build(name, (32, 32, 1 if grey else 3))
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, L.BatchNormalization):
            layer.set_weights([rng.uniform(0.5, 1.5, weight.shape) for weight in layer.get_weights()])
    images = rng.random((4, *model.input_shape[1:]), np.float32)
    folded = surgery.fold(model)
    np.testing.assert_allclose(folded.predict_on_batch(images), model.predict_on_batch(images), atol=1e-5)
    assert folded.count_params() < model.count_params()
    assert flops.count(folded).total < flops.count(model).total
    if name != "resnet_preact_small":  # there, normalisation comes before the convolution
        assert not any(isinstance(layer, L.BatchNormalization) for layer in folded.layers)


def test_a_sequential_model_is_followed_and_an_unbuilt_one_named():
    layers = [L.Conv2D(4, 3, activation="relu"), L.Flatten(), L.Dense(3, "softmax")]
    built = keras.Sequential([keras.Input((8, 8, 3)), *layers])
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), np.uint8)
    assert len(slimming.select(built, images, "l1", {"parameters": 0.6}))
    with pytest.raises(channels.UnsupportedLayer, match="not a functional model"):
        slimming.select(keras.Sequential([L.Conv2D(4, 3)]), images)


def test_every_supported_layer_has_its_cost():
    x = inputs = keras.Input((8, 8, 3))
    x = L.Conv2D(4, 3, activation="gelu")(x)
    for layer in (
        L.LeakyReLU(),
        L.ELU(),
        L.SpatialDropout2D(0.1),
        L.Identity(),
    ):
        x = layer(x)
    for merge in (L.Average(), L.Maximum(), L.Subtract()):
        x = merge([x, L.Activation("tanh")(x)])
    model = keras.Model(inputs, L.Dense(3, activation="softmax")(L.Flatten()(x)))
    assert flops.count(model).total == flops.profile(model)
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), np.uint8)
    assert len(slimming.select(model, images, "l1", {"parameters": 0.6}))


def test_an_image_of_unknown_size_and_an_activation_layer_are_named():
    x = inputs = keras.Input((None, None, 3))
    x = L.GlobalAveragePooling2D()(L.Conv2D(4, 3)(x))
    with pytest.raises(UnsupportedLayer, match="images of unknown size"):
        follow(keras.Model(inputs, L.Dense(3)(x)))
    x = inputs = keras.Input((8, 8, 3))
    x = L.Conv2D(4, 3, activation=L.ReLU(), name="odd")(x)
    with pytest.raises(channels.UnsupportedLayer, match="'odd' has a layer as its activation"):
        follow(keras.Model(inputs, L.Dense(3)(L.Flatten()(x))))


def test_probe_images_are_bytes():
    with pytest.raises(ValueError, match="float64; expected uint8"):
        slimming.select(models.build("cnn_light", (32, 32, 3)), np.zeros((2, 32, 32, 3)))


def test_folding_leaves_an_output_that_a_normalisation_reads_as_well():
    x = inputs = keras.Input((8, 8, 3))
    seen = L.Conv2D(4, 3, name="seen")(x)
    norm = L.BatchNormalization(name="norm")
    model = keras.Model(inputs, [seen, norm(seen)])
    norm.set_weights([np.full(4, value, np.float32) for value in (2.0, 0.5, 0.1, 3.0)])
    pixels = np.random.default_rng(0).random((2, 8, 8, 3), np.float32)
    for before, after in zip(model(pixels), surgery.fold(model)(pixels), strict=True):
        np.testing.assert_allclose(after, before, atol=1e-5)


def residual():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((SIZE, SIZE, 3))
    x = L.Conv2D(16, 3, padding="same", activation="relu", name="stem")(inputs)
    for number in range(4):
        y = L.Conv2D(16, 3, padding="same", activation="relu", name=f"in{number}")(x)
        x = L.Add()([x, L.Conv2D(16, 3, padding="same", name=f"out{number}")(y)])
    return keras.Model(inputs, L.Dense(4, activation="softmax")(L.GlobalAveragePooling2D()(x)))


def test_every_criterion_leaves_the_same_shape_of_tied_layers():
    model = residual()
    shapes = set()
    for criterion, seed in (("l1", 0), ("apoz", 0), ("random", 0), ("random", 1)):
        small = slimming.apply(model, slimming.select(model, IMAGES, criterion, {"flops": 0.6}, seed=seed))
        shapes.add(tuple(small.get_layer(name).filters for name in ("stem", "in0", "in3", "out2")))
    (shape,) = shapes
    assert max(shape) - min(shape) <= 1  # evenly


def test_layers_that_serve_another_graph_are_cut_in_this_one():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((3 * SIZE, 3 * SIZE, 3))
    x = L.GlobalAveragePooling2D()(L.Conv2D(8, 3, activation="relu", name="c")(inputs))
    other = keras.Model(inputs, L.Dense(7)(x))
    model = keras.Sequential([keras.Input((SIZE, SIZE, 3)), *other.layers[1:-1], L.Dense(4, activation="softmax")])
    alone = keras.models.clone_model(model)
    small = slimming.apply(model, slimming.select(model, IMAGES, "l1", {"flops": 0.5}))
    assert flops.count(small).total <= 0.5 * flops.count(alone).total
    assert small.get_layer("c").filters < 8


def test_inputs_keep_their_names_and_layers_stay_frozen():
    inputs = keras.Input((SIZE, SIZE, 3), name="photograph")
    x = L.Conv2D(8, 3, activation="relu", name="c", trainable=False)(inputs)
    model = keras.Model(inputs, L.Dense(4, activation="softmax")(L.Flatten()(x)))
    small = slimming.apply(model, slimming.select(model, IMAGES, "l1", {"flops": 0.5}))
    assert small.inputs[0]._keras_history.operation.name == "photograph"
    assert not small.get_layer("c").trainable


def test_how_a_layer_is_called_carries_over():
    inputs = keras.Input((SIZE, SIZE, 3))
    x = L.Conv2D(8, 3, activation="relu", name="c")(inputs)
    x = L.Flatten()(L.Dropout(0.5)(x, training=True))  # Monte Carlo dropout
    model = keras.Model(inputs, L.Dense(4, activation="softmax")(x))
    small = slimming.apply(model, slimming.select(model, IMAGES, "l1", {"flops": 0.5}))
    assert np.abs(np.asarray(small(BATCH)) - np.asarray(small(BATCH))).max() > 0


def test_a_plan_edited_in_a_spreadsheet_is_applied(tmp_path):
    model = residual()
    plan = slimming.select(model, IMAGES, "l1", {"flops": 0.9})
    plan.assign(constants="").to_csv(tmp_path / "plan.csv", index=False)
    small = slimming.apply(model, pd.read_csv(tmp_path / "plan.csv"))
    assert small.count_params() == slimming.apply(model, plan).count_params()


def test_half_precision_kernels_are_ranked_by_their_true_size():
    kernel = np.full((3, 3, 512, 2), 25, np.float16)
    kernel[..., 0] = 20
    small, large = slimming._l1(pd.DataFrame(), kernel, np.random.default_rng(0))
    assert np.isfinite(large)
    assert small < large


def unregistered(x):
    return x


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": np.zeros((2, 8, 8, 3), np.uint8)}, r"takes images of \(12, 12, 3\), the probe set has \(8, 8, 3\)"),
        ({"preprocessing": "grey"}, r"the probe set has \(12, 12, 1\) by 'grey'"),
        ({"layers": "stem"}, r"expected a list of names, such as \['stem'\]"),
    ],
)
def test_what_does_not_fit_is_said_before_anything_is_measured(change, message):
    with pytest.raises(ValueError, match=message):
        slimming.select(**{"model": residual(), "images": IMAGES, "criterion": "l1", "budget": {"flops": 0.5}} | change)


def test_a_function_of_the_users_own_is_named():
    inputs = keras.Input((SIZE, SIZE, 3))
    x = L.Conv2D(8, 3, activation=unregistered, name="c")(inputs)
    with pytest.raises(UnsupportedLayer, match="register_keras_serializable"):
        follow(keras.Model(inputs, L.Dense(4)(L.Flatten()(x))))
