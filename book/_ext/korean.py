"""Korean for the book: full-text search by syllable pairs, and the interface words left in English."""

from __future__ import annotations

import csv
import html
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

from sphinx import locale
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.search.en import SearchEnglish

HANGUL = r"가-힣"

# splitQuery and the stemmer do in the browser what `split` and `stem` below do. Sphinx ignores terms of one or two
# characters when it looks for the pages that have all terms of a query, hence the mark added to Korean ones; rice.js
# takes it off again where the terms are searched for in a page's text.
_JS_SPLITTER = """
var splitQuery = (query) => (query.match(/[%s]+|[^\\s!-\\/:-@\\[-`{-~%s]+/g) || []).flatMap((run) =>
  /[%s]/.test(run) && run.length > 2
    ? [...run].slice(1).map((syllable, i) => run[i] + syllable)
    : [run]);
""".replace("%s", HANGUL)
_JS_STEMMER = """
var PorterStemmer = Stemmer;
var Stemmer = function () {
  const porter = new PorterStemmer();
  this.stemWord = (word) => (/[%s]/.test(word) ? word + "__" : porter.stemWord(word));
};
""".replace("%s", HANGUL)


class SearchKorean(SearchEnglish):
    """Search index of Korean mixed with English: Hangul by syllables and pairs of them, the rest by stem.

    Korean writes particles and endings onto the word (필터가, 경량화): an index of words finds few of them.
    """

    lang = "ko"
    language_name = "Korean"
    js_splitter_code = _JS_SPLITTER
    js_stemmer_code = SearchEnglish.js_stemmer_code + _JS_STEMMER

    def split(self, input: str) -> list[str]:
        """Terms of a text to index: 경량화 gives 경, 량, 화, 경량, 량화."""
        terms: list[str] = []
        for run in re.findall(rf"[{HANGUL}]+|[^\W{HANGUL}]+", input):
            terms += [*run, *map("".join, pairwise(run))] if re.match(f"[{HANGUL}]", run) else [run]
        return terms

    def stem(self, word: str) -> str:
        """The index's form of a term; the same in the browser."""
        return word + "__" if re.match(f"[{HANGUL}]", word) else super().stem(word)


def words() -> dict[str, str]:
    """English interface words and their Korean, from interface.csv."""
    with Path(__file__).with_name("interface.csv").open(encoding="utf-8", newline="") as file:
        return {row["en"]: row["ko"] for row in csv.DictReader(file)}


class _Words(locale.NullTranslations):
    """A message catalogue that knows our words first and asks the one it replaces for the rest."""

    def __init__(self, known: dict[str, str], rest: locale.NullTranslations) -> None:
        super().__init__()
        self.known = known
        self.add_fallback(rest)

    def gettext(self, message: str) -> str:
        return self.known.get(" ".join(message.split())) or super().gettext(message)


def translate_catalogues(app: Sphinx, config: Config) -> None:
    """Put our words before every message catalogue of Sphinx, its theme and its extensions."""
    if config.language == "ko":
        for key in [key for key in locale.translators if key[0] == "general"]:
            locale.translators[key] = _Words(words(), locale.translators[key])
        app.translator = locale.translators["general", "sphinx"]  # what templates are given


def translate_rest(app: Sphinx, exception: Exception | None) -> None:
    """Translate in the finished pages what the templates hold in English, and the copy button's words."""
    if exception or app.config.language != "ko" or app.builder.format != "html":
        return
    known = words()
    attribute = re.compile(r'\b(title|aria-label|alt|placeholder|data-bs-title)="([^"<>]+)"')
    prompt = re.compile(r"(?<=>)(source|content|outputs?) (펼치기|접기)(?=<)")

    def in_korean(match: re.Match[str]) -> str:
        word = html.unescape(match[2])
        return f'{match[1]}="{html.escape(known[word])}"' if word in known else match[0]

    for page in Path(app.outdir).rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        new = attribute.sub(in_korean, text)
        new = prompt.sub(lambda match: f"{known[match[1]]} {match[2]}", new)
        if new != text:
            page.write_text(new, encoding="utf-8")
    script = Path(app.outdir, "_static", "copybutton.js")
    if script.exists():
        text = script.read_text(encoding="utf-8")
        for word in ("Copy", "Copy to clipboard", "Copied!", "Failed to copy"):
            text = text.replace(f"'{word}'", f"'{known[word]}'", 1)
        script.write_text(text, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, Any]:
    """Sphinx extension entry."""
    app.add_search_language(SearchKorean)
    app.connect("config-inited", translate_catalogues)
    app.connect("build-finished", translate_rest)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
