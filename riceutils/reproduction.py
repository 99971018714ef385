"""Tables of the page on reproducing the book: what profiles set, and what the reference results were made with."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import pandas as pd

from riceutils import config, runs
from riceutils.page import Markup, code, phrases, spans

PACKAGES = ("tensorflow", "keras")


def profiles(*names: str, chapter: str = "02_cnn") -> pd.DataFrame:
    """A column per profile: the parameters of ``chapter`` in which they differ, and the profile's own description."""
    settings = pd.DataFrame([config.chapter_parameters(name, chapter) for name in names]).astype(str)
    settings = settings.loc[:, (settings != settings.iloc[0]).any()].map(code).rename(columns=code)
    notes = [Markup(spans(config.profile(name).get("description", {"ko": "", "en": ""}))) for name in names]
    return settings.assign(note=notes).set_axis(map(code, names)).T.rename_axis("parameter").reset_index()


def made_with() -> pd.DataFrame:
    """A row per reference result and one for this build: status, images, versions, seconds of training, packages.

    The status is current (made by the code as it is), changed (by other code of the same training version), or stale.
    """
    rows = [
        {
            "run": run.folder.name,
            "status": _phrase(
                "stale" if run.stale else "same" if run.record["code"] == runs.code_hash() else "changed"
            ),
            "image size": run.spec.image_size,
            "images": " / ".join(f"{count:,}" for count in run.record["data"]["images"].values()),
            "training version": run.record["training_version"],
            "code hash": run.record["code"][:8],
            "seconds": f"{run.record['seconds']['training']:,.0f}",
            "packages": _packages(run.record["packages"]),
        }
        for run in runs.references()
    ]
    build = {
        "run": Markup(spans("label_this_build")),
        "training version": runs.TRAINING_VERSION,
        "code hash": runs.code_hash()[:8],
        "packages": _packages({name: version(name) for name in PACKAGES}),
    }
    return pd.DataFrame([*rows, build], dtype=object).fillna("")


def _phrase(status: str) -> Markup:
    return Markup(spans(phrases()["status"][status]))


def _packages(versions: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {versions[name]}" for name in PACKAGES)
