"""What designs cost is what Keras builds and what a gradient sees; auxiliary heads take part in training only."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from riceutils import background, config, data, designcharts, designs, errata, flops, gradients, models
from riceutils.models.classics import Supervised

STRIDE_1 = [[(kernel, 1) for kernel in kernels] for kernels in designs.STACKS.values()]


def chain(layers, side=41):
    """Convolutions (kernel, stride) in a row on one channel, no padding, all weights 1."""
    x = inputs = keras.Input((side, side, 1))
    for kernel, stride in layers:
        x = keras.layers.Conv2D(1, kernel, stride, kernel_initializer="ones")(x)
    return keras.Model(inputs, x)


def seen(model):
    """Gradient of one output place with respect to the input, (side, side)."""
    image = tf.zeros((1, *model.input_shape[1:]))
    with tf.GradientTape() as tape:
        tape.watch(image)
        place = model(image)[0, 1, 1, 0]
    return np.asarray(tape.gradient(place, image))[0, :, :, 0]


@pytest.mark.parametrize("layers", [*STRIDE_1, [(7, 2), (3, 2), (1, 1), (3, 1)], [(11, 4), (3, 2)]])
def test_the_receptive_field_is_what_a_gradient_reaches(layers):
    found = seen(chain(layers))
    rows = np.flatnonzero(found.any(axis=1))
    assert rows.max() - rows.min() + 1 == designs.receptive_field(layers)
    if all(stride == 1 for _, stride in layers):
        side = designs.receptive_field(layers)
        window = found[rows.min() : rows.min() + side, rows.min() : rows.min() + side]
        assert np.array_equal(window, designs.paths(k for k, _ in layers))


def test_layers_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="at least 1"):
        designs.receptive_field([(3, 0)])
    assert designs.receptive_field([]) == 1


@pytest.mark.parametrize("channels", [1, 4])
def test_stacks_count_as_keras_builds_them(channels):
    table = designs.stacks(channels).set_index("design")
    for name, kernels in designs.STACKS.items():
        x = inputs = keras.Input((9, 9, channels))
        for kernel in kernels:
            x = keras.layers.Conv2D(channels, kernel, padding="same", activation="relu")(x)
        model = keras.Model(inputs, x)
        assert table.loc[name, "parameters"] == model.count_params()
        assert table.loc[name, "weights"] == sum(layer.kernel.numpy().size for layer in model.layers[1:])
        assert table.loc[name, "FLOPs per place"] * 81 == flops.count(model).total
        assert table.loc[name, "nonlinearities"] == len(kernels)


def test_two_3x3_see_as_much_as_a_5x5_for_fewer_weights():
    weights = designs.stacks().set_index("design")["weights"]
    assert (weights["two 3×3"], weights["5×5"], weights["three 3×3"]) == (18, 25, 27)  # erratum 17
    table = errata.factorised()
    assert weights["two 3×3"] == table["threes"]["k5"]
    assert weights["three 3×3"] == table["threes"]["k7"]


def test_growth_follows_strides_poolings_and_the_widest_branch():
    last = designs.growth(models.build("final", (32, 32, 3))).iloc[-1]
    assert last["receptive field"] == designs.receptive_field([(3, 1), (2, 2), (3, 1), (3, 1), (3, 1), (2, 2)])
    stem = [(7, 2), (3, 2), (1, 1), (3, 1), (3, 2)]
    found = designs.growth(models.build("googlenet", (64, 64, 3))).set_index("layer")["receptive field"]
    assert found["inception_3a_5x5"] == designs.receptive_field([*stem, (1, 1), (5, 1)])
    assert found["inception_3b_5x5"] == designs.receptive_field([*stem, (5, 1), (5, 1)])


def test_other_first_layers_are_what_keras_builds():
    model = models.build("alexnet_valid")
    table = designs.first_layers(model, [(11, 4), (3, 1)])
    first = next(layer for layer in model.layers if hasattr(layer, "kernel"))
    own = table.iloc[0]
    assert (own["kernel"], own["parameters"]) == ("11×11", first.count_params())
    assert tuple(own["output shape"]) == tuple(first.output.shape[1:])
    assert own["receptive field"] == designs.growth(model)["receptive field"].iloc[-1]
    assert table.iloc[1]["receptive field"] < own["receptive field"]
    assert len(designcharts.first_layers(table)[1]) == 2
    assert designs.sides([(224, "valid"), (227, "valid"), (224, "same")])["side"].tolist() == [54, 55, 56]  # erratum 18


def test_slopes_and_flat_ends():
    splits = data.load("synthetic", 32, [4, 2, 2])
    parameters = config.check("14_alexnet", {"data": "synthetic", "epochs": 1})
    runs = {
        name: background.run("alexnet_small", parameters, splits, activation=name.lower()) for name in designcharts.FLAT
    }
    _, table = designcharts.slopes(runs, splits)
    assert table.groupby(["quantity", "case"]).ngroups == 6
    _, flat = designcharts.flat(runs, splits.test.images)
    assert flat["flat share"].between(0, 1).all()
    assert flat[flat["training"] == "ReLU"]["flat share"].max() > 0


@pytest.mark.parametrize("name", ["cnn", "googlenet", "googlenet_aux_corrected"])
def test_parts_add_up(name):
    model, table = models.build(name), designs.parts(name)
    assert table["parameters"].sum() == model.count_params()
    assert table["FLOPs"].sum() == flops.count(model).total
    assert table["share of FLOPs"].sum() == pytest.approx(1)
    assert set(table["kind"]) <= set(designcharts.KINDS)


def test_vgg_s_dense_layers_hold_what_erratum_12_says():
    row = designs.balance(["vgg16_fc"], 1000).iloc[0]
    assert row["in dense layers"] == 123_642_856
    assert row["in dense layers"] / 1e6 == errata.case_study()["dense"]
    assert row["parameters"] == row["in convolutions"] + row["in dense layers"] == 138_357_544  # as Keras's VGG16


def test_reductions_are_what_a_branch_costs_in_keras():
    table = designs.reduction(models.build("googlenet")).set_index("layer")
    assert len(table) == 2 * 9
    x = keras.Input((28, 28, 192))
    conv = keras.layers.Conv2D
    whole = keras.Model(x, conv(32, 5, padding="same", activation="relu")(x))
    reduced = keras.Model(x, conv(32, 5, padding="same", activation="relu")(conv(16, 1, activation="relu")(x)))  # 3a's
    row = table.loc["inception_3a_5x5"]
    assert (row["parameters"], row["FLOPs"]) == (reduced.count_params(), flops.count(reduced).total)
    assert (row["parameters without"], row["FLOPs without"]) == (whole.count_params(), flops.count(whole).total)


def test_a_1x1_convolution_is_a_dense_layer_at_every_place():
    image = np.random.default_rng(0).random((2, 5, 5, 8), np.float32)
    conv, dense = keras.layers.Conv2D(4, 1), keras.layers.Dense(4)
    conv(image), dense(image[:, 0, 0])
    dense.set_weights([conv.kernel.numpy()[0, 0], conv.bias.numpy()])
    for y, x in ((0, 0), (3, 4)):
        assert np.allclose(conv(image)[:, y, x], dense(image[:, y, x]), atol=1e-6)
    table = designs.mlp_layers(8)
    assert table["added, %"].tolist() == pytest.approx([200 / k**2 for k in (3, 5, 7, 11)])
    assert table["weights"].tolist() == [k**2 * 64 for k in (3, 5, 7, 11)]


def test_heads_of_the_case_study_s_googlenet():
    assert designs.auxiliary()["parameters"].tolist() == [5_751_578, 8_248_366, 9_545_912]


def test_keras_refuses_ten_classes_with_imagenet_s_top():
    assert designs.refusal().startswith("ValueError: ")
    assert "classes" in designs.refusal()


@pytest.fixture(scope="module")
def supervised():
    keras.utils.set_random_seed(0)
    return models.build("googlenet_aux_corrected", (64, 64, 3), 3)


@pytest.fixture(scope="module")
def batch():
    images = np.random.default_rng(0).random((6, 64, 64, 3), np.float32)
    return images, np.eye(3, dtype=np.float32)[np.arange(6) % 3]


def test_the_prediction_is_the_main_output(supervised, batch):
    every = keras.Model(supervised.input, supervised.outputs)(batch[0], training=False)
    assert isinstance(supervised, Supervised)
    assert np.allclose(supervised(batch[0]), every[0])
    assert np.allclose(supervised.predict(batch[0], verbose=0), every[0], atol=1e-6)
    assert len(supervised(batch[0], training=True)) == 3


def test_heads_count_in_the_training_loss_and_not_in_validation(supervised, batch):
    supervised.compile("sgd", loss="categorical_crossentropy")
    images, onehot = batch
    outputs = keras.Model(supervised.input, supervised.outputs)(images, training=False)
    main, *heads = (float(np.mean(keras.losses.categorical_crossentropy(onehot, output))) for output in outputs)
    assert float(supervised.compute_loss(images, onehot, list(outputs))) == pytest.approx(main + 0.3 * sum(heads))
    assert supervised.evaluate(images, onehot, verbose=0) == pytest.approx(main, rel=1e-4)
    before = supervised.get_layer("head_4a").kernel.numpy()
    supervised.train_on_batch(images, onehot)
    assert not np.array_equal(before, supervised.get_layer("head_4a").kernel.numpy())


def test_a_head_teaches_only_what_lies_below_it(supervised, batch):
    table = gradients.by_output(supervised, *batch).set_index("layer")
    assert list(table) == ["softmax", "head_4a", "head_4d", "all"]
    for head, above in (("head_4a", "inception_4b_3x3"), ("head_4d", "inception_4e_3x3")):
        assert table.loc["conv1", head] > 0
        assert table.loc[above, head] == 0
    assert table.loc["inception_5b_3x3", "all"] == pytest.approx(table.loc["inception_5b_3x3", "softmax"])
    alone = gradients.diagnose(keras.Model(supervised.input, supervised.outputs[0]), *batch).set_index("layer")
    assert table.loc["conv1", "softmax"] == pytest.approx(alone.loc["conv1", "gradient"], rel=1e-3)


def test_charts_have_their_numbers(grains_splits):
    charts = [
        designcharts.fields(),
        designcharts.stacks(8),
        designcharts.growth(["cnn", "final"]),
        designcharts.parts(["cnn", "cnn_light"]),
        designcharts.reduction(designs.reduction(models.build("googlenet", (64, 64, 3)))),
        designcharts.factorised(),
        designcharts.starts("cnn_light", grains_splits),
        designcharts.reach("googlenet_aux_corrected", grains_splits),
    ]
    for canvas, table in charts:
        assert canvas.axes
        assert len(table)


def test_sizes_stand_beside_what_was_published():
    networks = {"lenet5": models.build("lenet5"), "own": models.build("lenet_20_50")}
    published = errata.published("classics")["parameters"]
    assert designs.sizes(networks, published)["published"].tolist() == ["61,706", ""]
    assert designs.sizes(networks)["parameters"].tolist() == [61_706, 431_080]
