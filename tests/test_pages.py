"""Glossary and bibliography: sound, and used by the pages as written."""

import csv
import re

import pytest

from riceutils import files
from riceutils.editions import glossary

ROOT = files.PACKAGE.parent
PAGES = sorted((ROOT / "book").glob("*.md"))

pytestmark = pytest.mark.skipif(not PAGES, reason="the book's pages are in a checkout only")


def terms():
    with (files.RESOURCES / "glossary.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def keys():
    return re.findall(r"^@\w+\{([^,]+),", (ROOT / "book" / "references.bib").read_text(encoding="utf-8"), flags=re.M)


def test_every_term_is_complete():
    for row in terms():
        assert all(row[column].strip() == row[column] != "" for column in ("en", "ko", "note_en", "note_ko")), row
        assert re.search("[가-힣]", row["note_ko"]), row


def test_terms_are_unique_and_sorted():
    names = [row["en"] for row in terms()]
    assert names == sorted(set(names), key=lambda name: (name.lower(), name))
    assert glossary() == {row["en"]: row["ko"] for row in terms()}


@pytest.mark.parametrize(
    "name", ["class", "parameters", "FLOPs", "never fire", "APoZ on grain", "val_accuracy", "published", "this build"]
)
def test_headers_of_the_chapters_are_terms(name):
    assert name in glossary()


@pytest.mark.parametrize("name", ["state", "zero features", "spread", "gradient share", "accuracy per TFLOPs"])
def test_headers_of_the_later_chapters_are_terms_in_korean(name):
    assert re.search("[가-힣]", glossary()[name])


def test_citations_have_an_entry_and_keys_are_unique():
    cited = {
        key.strip()
        for page in PAGES
        for group in re.findall(r"\{cite:\w+\}`([^`]+)`", page.read_text(encoding="utf-8"))
        for key in group.split(",")
    }
    assert len(keys()) == len(set(keys()))
    assert cited <= set(keys())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_glued_names_are_put_on_the_same_page(page):
    text = page.read_text(encoding="utf-8")
    used = set(re.findall(r"\{glue:text\}`([^`:]+)", text))
    assert used <= set(re.findall(r'\bput\("(\w+)"', text))
