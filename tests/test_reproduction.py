"""The tables of the page on reproducing the book: they are read from the profiles and from the runs themselves."""

from riceutils import page, reproduction, runs


def test_profiles_show_only_what_tells_them_apart():
    table = reproduction.profiles("smoke", "quick").set_index("parameter")
    assert list(table) == [page.code("smoke"), page.code("quick")]  # to be typed: not translated
    assert page.code("seed") not in table.index
    smoke, quick = table.loc[page.code("image_size")]
    assert smoke != quick
    assert table.loc["note"].str.contains('lang="ko"').all()


def test_every_reference_result_says_what_made_it(monkeypatch):
    table = reproduction.made_with().set_index("run")
    first, *_ = committed = runs.references()
    assert len(table) == len(committed) + 1
    assert table.loc[first.folder.name, "images"] == "7,500 / 1,500 / 3,000"
    assert not table["status"].str.contains("stale").any()
    monkeypatch.setattr(runs, "code_hash", lambda: first.record["code"])
    assert "same code" in reproduction.made_with().set_index("run").loc[first.folder.name, "status"]
    monkeypatch.setattr(runs, "TRAINING_VERSION", runs.TRAINING_VERSION + 1)
    assert reproduction.made_with()["status"].iloc[:-1].str.contains("stale").all()
