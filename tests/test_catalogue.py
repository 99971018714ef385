"""The table of Keras's pretrained models, the time line, and the transfer models without weights."""

import re

import numpy as np
import pytest

from riceutils import background, catalogue, cataloguecharts, config, data, flops, models, transfer
from riceutils.models import pretrained


@pytest.mark.parametrize("name", ["MobileNetV2", "EfficientNetB0", "MobileNetV3Small"])
def test_committed_costs_are_computed_again(name):
    row = catalogue.committed().loc[name]
    assert catalogue.cost(name) == {"model": name, **{column: int(value) for column, value in row.items()}}


def _nested():
    import keras

    x = inputs = keras.Input((8, 8, 3))
    x = keras.layers.Normalization()(x)
    gate = keras.layers.GlobalAveragePooling2D(keepdims=True)(x)
    gate = keras.layers.ReLU(6.0)(gate + 3.0) * (1.0 / 6.0)  # a sum and a product that are no layers
    return keras.Model(inputs, keras.layers.Multiply()([x, gate]))


def _scaled():
    import keras
    from keras.src.applications.inception_resnet_v2 import CustomScaleLayer

    inputs = keras.Input((8, 8, 3))
    return keras.Model(inputs, CustomScaleLayer(0.17)([inputs, keras.layers.Conv2D(3, 1)(inputs)]))


def _mobile():
    import keras

    return keras.applications.MobileNetV3Small(weights=None, input_shape=(32, 32, 3))


@pytest.mark.parametrize("build", [_nested, _scaled, _mobile])
def test_formulas_of_these_networks_equal_the_profiler(build):
    network = build()
    assert flops.count(network).total == flops.profile(network)


def test_the_deck_is_complete_and_its_parameters_are_confirmed():
    table = catalogue.against_deck().set_index("model")
    assert set(table.index) == set(catalogue.deck().index)
    assert not table["differs in"].str.contains("parameters").any()
    assert table.loc["VGG16", "differs in"] == ""
    assert table.loc["EfficientNetB0", "differs in"] == "size"
    assert (table["published size, MB"] > table["size, MiB"].astype(float) - 0.5).all()


def test_a_wrong_figure_of_the_deck_would_be_named(monkeypatch):
    wrong = catalogue.deck().copy()
    wrong.loc["VGG16", "parameters_million"] = 138.3
    monkeypatch.setattr(catalogue, "deck", lambda: wrong)
    assert catalogue.against_deck().set_index("model").loc["VGG16", "differs in"] == "parameters"


def test_the_time_line_is_complete():
    years = catalogue.years()
    assert years.index.is_unique
    assert years["name"].is_unique
    assert set(years["group"]) == set(cataloguecharts.GROUPS)
    heads = {name for name in models.names() if name.rpartition("_")[2] in ("fc", "all", "exp")}
    variants = {
        "vgg_light_draft",
        "vgg19_l2_dropout",
        "vgg19_imagenet_notop",
        "googlenet_aux_corrected",
        "googlenet_varied",
    }  # of others
    assert {*models.names(), *catalogue.deck().index} - heads - variants <= {*years.index}
    assert set(years.index) == set(catalogue.costs().loc[years.index].dropna().index)
    figure, table = cataloguecharts.timeline()
    assert len(table) == len(years)
    assert figure.axes[0].get_xscale() == figure.axes[1].get_xscale() == "log"
    assert table["year"].is_monotonic_increasing
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == list(years["name"][table["model"]])
    assert [text.get_text() for text in figure.axes[1].texts] == [str(year) for year in table["year"].unique()]


def test_the_time_line_cites_entries_of_the_bibliography():
    from riceutils import files

    bibliography = files.PACKAGE.parent / "book" / "references.bib"
    if not bibliography.exists():
        pytest.skip("the bibliography is in a checkout only")
    known = re.findall(r"^@\w+\{([^,]+),", bibliography.read_text(encoding="utf-8"), flags=re.M)
    assert set(catalogue.years()["key"]) <= set(known)


def test_the_pareto_front_leaves_out_what_another_surpasses():
    _, table = cataloguecharts.accuracy()
    front = table[table["Pareto front"]].sort_values("GFLOPs")
    assert front["top-1, %"].is_monotonic_increasing
    assert not table.set_index("model").loc["VGG16", "Pareto front"]


def test_what_the_page_says_of_the_front():
    _, table = cataloguecharts.accuracy()
    table = table.set_index("model").assign(GFLOPs=catalogue.committed()["FLOPs"])
    ends = table[table["Pareto front"]].sort_values("GFLOPs").iloc[[0, 1, -1]]
    assert list(ends.index[:2]) == ["MobileNetV2", "EfficientNetB0"]
    assert [round(float(value), 1) for value in ends["top-1, %"].diff()[1:]] == [5.8, 5.4]
    first, rest = ends["GFLOPs"].iloc[1:].to_numpy() / ends["GFLOPs"].iloc[:-1].to_numpy()
    assert (round(first, 1), round(rest)) == (1.3, 60)
    assert table.loc["VGG16", "top-1, %"] == table.loc["MobileNetV2", "top-1, %"]


def test_latency_in_brief():
    table = catalogue.latency(brief=True)
    assert list(table["model"]) == ["MobileNet", "MobileNetV2"]
    assert (table["passes"] == 2).all()
    assert (table["5 %, ms"] <= table["median, ms"]).all()
    assert (table["median, ms"] <= table["95 %, ms"]).all()
    assert (table["5 %, ms"] > 0).all()


def test_transfer_models_have_the_published_counts():
    table = transfer.counts()
    assert len(table) == 5
    assert (table["verdict"] == "exact").all()


def test_what_the_report_printed_stands_beside_photographs():
    assert transfer.printed()["transfer_cifar10_fc"] == "ResNet50 0.6551, MobileNetV3Large 0.6348"
    assert transfer.printed()["transfer_cifar10_exp"] == "MobileNetV3Large 0.8288"


@pytest.mark.parametrize("backbone", ["vgg16", "resnet50", "mobilenetv3"])
def test_every_backbone_names_its_models(backbone):
    named = background.transfer_models(backbone)
    assert set(named.values()) <= set(models.names())
    assert list(named) == ["head only", "all layers", "wider head"][: len(named)]
    assert len(named) == (2 if backbone == "resnet50" else 3)


def test_each_backbone_has_one_rule_of_preprocessing():
    rules = transfer.rules().set_index("backbone")["pretrained"].to_dict()
    assert rules == {"VGG16": "caffe", "ResNet50": "caffe", "MobileNetV3Large": "raw"}
    grey = np.full((1, 1, 3), 124, np.uint8)
    _, table = transfer.pixels(grey)
    fed = table.set_index(["preprocessing", "channels"])["mean"]
    assert fed["raw", "R"] == 124
    assert fed["rgb", "G"] == pytest.approx(124 / 255)
    assert fed["caffe", "B"] == pytest.approx(124 - pretrained.IMAGENET_MEAN[0], abs=1e-4)


@pytest.mark.parametrize(
    ("backbone", "label", "how"), [("resnet50", "head only", "rgb"), ("mobilenetv3", "all layers", "raw")]
)
def test_the_other_backbones_run_without_weights(backbone, label, how, monkeypatch):
    splits = data.load("rice", 32, [4, 2, 2])
    values = {"backbone": backbone, "weights": "none", "epochs": 1, "images_per_class": [4, 2, 2]}
    parameters = config.check("20_transfer_learning", values)
    one = {label: background.transfer_models(backbone)[label]}  # these networks are slow to build and to measure
    monkeypatch.setattr(background, "transfer_models", lambda name: one)
    built = transfer.run(parameters, splits)[label]
    assert built.record["features_reused"] == (label == "head only")
    assert built.spec.preprocessing == how
    assert built.spec.weights is None
    assert built.spec.learning_rate == parameters.learning_rate
    assert built.spec.options == {"enlarge": 1}
    assert len(transfer.results({label: built})) == 1


def test_weights_out_of_reach_are_one_clear_sentence(monkeypatch):
    import keras

    def refuse(**_):
        raise Exception("URL fetch failure")  # what Keras raises

    monkeypatch.setattr(keras.applications, "ResNet50", refuse)
    with pytest.raises(pretrained.WeightsError, match=r"could not be downloaded.*ResNet50's weights without top, or"):
        pretrained.resolve("auto", "ResNet50")
