"""The audit's recomputed figures, against those that were established when the errata were written down."""

import re
from string import Formatter

import pytest

from riceutils import errata


def test_every_erratum_is_complete():
    entries = errata.load()
    assert list(entries) == list(range(1, 20))
    for entry in entries.values():
        assert entry.kind in errata.KINDS
        assert (entry.kind == "recomputed") == (entry.number in errata.RECOMPUTED)
        assert set(entry.claim) == set(entry.found) == {"ko", "en"}


@pytest.mark.parametrize("number", range(1, 20))
def test_both_languages_show_the_same_figures(number):
    entry = errata.load()[number]
    for text in (entry.claim, entry.found):
        korean, english = ({name for _, name, _, _ in Formatter().parse(text[language]) if name} for language in text)
        assert {name.removesuffix("_eok") for name in korean} == {name.removesuffix("_eok") for name in english}
        assert korean | english <= set(errata.values(number))


@pytest.mark.parametrize(
    ("number", "name", "expected", "tolerance"),
    [
        (1, "vgg16_published", 226.30, 0),
        (1, "vgg16_finding", 230.35, 0.005),
        (1, "vgg_light_finding", 209.54, 0.005),
        (1, "vgg_custom_finding", 9.03, 0.005),
        (2, "vgg16_published", 4320, 0),
        (2, "vgg16_filters", 4224, 0),
        (3, "googlenet_visible", 5808, 0),
        (3, "googlenet_filters", 7280, 0),
        (3, "googlenet_light_visible", 1456, 0),
        (3, "googlenet_light_filters", 1940, 0),
        (4, "vgg_custom_vgg_light_parameters", 98.17, 0.005),
        (4, "cnn_light_cnn_parameters", 99.60, 0.005),
        (4, "googlenet_light_googlenet_parameters", 90.28, 0.005),
        (4, "vgg_custom_vgg16_parameters", 99.03, 0.005),
        (4, "vgg_light_vgg16_parameters", 47.3, 0.05),
        (4, "vgg_light_draft_vgg16_parameters", 87.97, 0.005),
        (6, "angle", 36, 0.1),
        (8, "googlenet_pointwise", 0, 0),
        (9, "dense", 99.3, 0.05),
        (9, "flops_saved", 9.0, 0.05),
        (10, "cnn_low", 0.9946, 1.1e-4),
        (10, "cnn_high", 0.9974, 1.1e-4),
        (10, "cnn_light_low", 0.9955, 1.1e-4),  # 0.9970 of 7,500 is no whole number of images
        (10, "cnn_light_high", 0.9980, 1.1e-4),
        (12, "dense", 123.6, 0.05),
        (13, "table", 65.51, 1e-9),
        (13, "guess", 2.3026, 5e-5),
        (17, "k5_square", 25, 0),
        (17, "k5_threes", 18, 0),
        (18, "size", 54, 0),
        (18, "saved7", 45, 0.5),
        (18, "saved5", 28, 0.5),
    ],
)
def test_recomputed_figures(number, name, expected, tolerance):
    assert errata.values(number)[name] == pytest.approx(expected, abs=tolerance)


def test_rotation_fills_by_reflection_and_the_first_kernel_sees_rgb():
    assert errata.values(6)["fill"] == "reflect"
    assert errata.values(8)["googlenet_kernel"] == "7×7×3"
    assert errata.values(18)["error"] == "ValueError"


def test_dead_filter_has_an_input_but_no_gradient():
    table = errata.gradients()
    assert (table["inner"] == table["x"]).all()  # ∂Z/∂W is the input patch, dead or alive
    assert table.loc["alive", "outer"] == table.loc["alive", "x"] > 0
    assert table.loc["dead", ["slope", "outer"]].eq(0).all()
    assert table.loc["blank", "slope"] == 1


def test_only_ours_repeats_the_perturbation():
    shares = errata.redrawn()
    assert shares["ours"] == 0
    assert shares["keras"] > 10


def test_autoscaling_turns_the_example_over():
    maps = errata.scale_example()
    assert maps["constant"].min() > maps["faint"].max()
    assert errata.autoscale(maps["constant"]).max() < errata.autoscale(maps["faint"]).max()


def test_overview_has_a_row_per_erratum_and_no_open_braces():
    page = errata.overview()
    assert page.count("<tr") == 1 + len(errata.load())
    assert page.count('lang="ko"') == page.count('lang="en"') == 3 * len(errata.load())
    assert not re.search(r"[{}]", page)
