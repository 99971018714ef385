"""The README stays true: its figures are those of the reference results, in both languages."""

import re
from pathlib import Path

import pytest

from riceutils import dataset, ledger, lightest, runs

ROOT = Path(__file__).resolve().parents[1]


def rows():
    """The lines of the README's table of figures, as the reference results have them."""
    for run in runs.references():
        published = ledger.published().set_index("model")["test_accuracy"].get(run.spec.model) or "–"
        figures = ledger.measured(run)
        accuracies = [ledger.written(figures[f"{which} accuracy"], "") for which in ("clean", "perturbed")]
        spec = run.spec
        variant = ", augmented" * spec.augment + ", adapted" * spec.adapted + ", RGB/255" * spec.unexpected_pixels
        label = f"`{spec.model}`{variant}" + (f", seed {spec.seed}" if spec.seed else "")
        epochs = f"{run.record['best_epoch']} / {len(run.history)}" + "*" * (run.record["stopped"] == "time limit")
        epochs = f"dead / {len(run.history)}" if run.dead else epochs
        yield (
            f"| {label} | {run.record['parameters']:,} | {run.record['flops'] / 1e6:,.1f} "
            f"| {accuracies[0]} | {accuracies[1]} | {published} | {epochs} |"
        )
    yardstick = dataset.read()["baseline"].set_index("images")
    cells = [
        ledger.written(ledger.Interval(*yardstick.loc[which, ["accuracy", "low", "high"]].astype(float)), "")
        for which in ("clean", "perturbed")
    ]
    yield f"| QDA | – | – | {cells[0]} | {cells[1]} | – | – |"
    for run in lightest.leading():
        spent, figures = lightest.cost(run.spec.options), run.record["metrics"]
        cells = [ledger.written(ledger.Interval(*(figures[which][key] for key in ("value", "low", "high"))), "")
                 for which in ("clean", "perturbed")]  # fmt: skip
        pool, size = run.spec.options["pool"], f"{spent['parameters']:,} | {spent['FLOPs'] / 1e6:.2f}"
        yield f"| {size} | {pool}×{pool} | {run.spec.seed} | {cells[0]} | {cells[1]} |"
    for entry in dataset.read()["cross"].to_dict("records"):
        value = ledger.Interval(float(entry["accuracy"]), float(entry["low"]), float(entry["high"]))
        yield f"| {entry['trained on']} → {entry['tested on']} | {ledger.written(value, '')} |"


@pytest.mark.parametrize("name", ["README.md", "README.ko.md"])
def test_the_table_is_that_of_the_reference_results(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    expected = list(rows())
    for row in expected:
        assert row in text
    shown = re.findall(
        r"^\| (?:`(?!python|make)|QDA |(?:synthetic|real) → |[\d,]+ \| [\d.]+ \| \d×\d ).*$", text, re.MULTILINE
    )
    assert set(shown) == set(expected)  # nothing is left of a result that is gone


LIMITS = {
    "README.md": "after {patience} epochs without a better validation loss, or after {epochs} epochs ({augmented} with "
    "augmentation), or, marked *, {minutes} minutes (VGG16: {vgg16}, the MobileNets: {mobilenet})",
    "README.ko.md": "검증 손실이 {patience}에포크 동안 나아지지 않거나 {epochs}에포크(증강하면 {augmented}에포크)를 "
    "마치거나 {minutes}분(VGG16은 {vgg16}분, MobileNet은 {mobilenet}분)이 지나면",
}


@pytest.mark.parametrize("name", list(LIMITS))
def test_the_limits_are_those_of_the_trainings(name):
    said: dict[str, set[int]] = {}
    for spec in (run.spec for run in runs.references()):
        said.setdefault("patience", set()).add(spec.patience)
        said.setdefault("augmented" if spec.augment else "epochs", set()).add(spec.epochs)
        family = spec.model.partition("_")[0].removesuffix("v3")
        said.setdefault(family if family in ("vgg16", "mobilenet") else "minutes", set()).add(spec.time_limit)
    text = " ".join((ROOT / name).read_text(encoding="utf-8").split())
    assert LIMITS[name].format(**{key: ", ".join(map(str, values)) for key, values in said.items()}) in text


def test_both_languages_show_the_same_commands():
    blocks = {}
    for name in ("README.md", "README.ko.md"):
        lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
        blocks[name] = [line.split("  ")[0] for line in lines if line.startswith(("make ", "python -m", "papermill "))]
    assert blocks["README.md"] == blocks["README.ko.md"]
