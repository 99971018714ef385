"""Each page's links to its twin in the other language, Colab and the repository; formulas without network.

Configuration value `edition`: `ko` or `en` in an edition, empty in the book with both languages on a page.
"""

from __future__ import annotations

import importlib.util
import shutil
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from sphinx.application import Sphinx
from sphinx.config import Config

NAMES = {"ko": "한국어", "en": "English"}
READ = {"ko": "이 쪽을 한국어로 읽기", "en": "Read this page in English"}
WITHOUT_ADDRESS = {
    "ko": "이 책의 저장소 주소가 아직 정해지지 않아 Colab 단추와 저장소 단추가 없습니다"
    " (<code>_config.yml</code>의 <code>repository.url</code>).",
    "en": "This book has no Colab and repository buttons, because its repository's address is not set yet"
    " (<code>repository.url</code> in <code>_config.yml</code>).",
}
MATHJAX = "mathjax/tex-svg.js"  # one file, fonts included


def is_placeholder(address: str | None) -> bool:
    """Whether a repository address is none, or the one the project is delivered with."""
    return not address or "/OWNER/" in address


def configure(app: Sphinx, config: Config) -> None:
    """Switch the buttons that need the repository's address off while there is none; use a local MathJax."""
    options = config.html_theme_options
    if is_placeholder(options.get("repository_url")):
        options.update(launch_buttons={}, repository_url="", use_repository_button=False, use_issues_button=False)
        languages = [config.edition] if config.edition else list(NAMES)
        options["extra_footer"] = "".join(
            f'<p class="no-address" lang="{language}">{WITHOUT_ADDRESS[language]}</p>' for language in languages
        )
    elif "github.com/" not in options["repository_url"]:
        options.update(launch_buttons={})  # Colab opens notebooks of GitHub only
    if mathjax_file():
        config.mathjax_path = MATHJAX


def drop_thebe(app: Sphinx) -> None:
    """Keep Jupyter Book's sphinx-thebe off the pages: it is not used, and it declares its constants twice."""
    for event in ("env-before-read-docs", "doctree-resolved"):
        for listener in list(app.events.listeners.get(event, [])):
            if listener.handler.__module__ == "sphinx_thebe":
                app.disconnect(listener.id)


def mathjax_file() -> Path | None:
    """MathJax of the package sphinx-mathjax-offline; None without it (pages then load it from afar)."""
    spec = importlib.util.find_spec("sphinx-mathjax-offline")
    return Path(spec.origin).parent / "static" / MATHJAX if spec and spec.origin else None


def copy_mathjax(app: Sphinx, exception: Exception | None) -> None:
    """Copy MathJax beside the pages."""
    if (path := mathjax_file()) and not exception and app.builder.format == "html":
        target = Path(app.outdir, "_static", MATHJAX)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)


def write_index(app: Sphinx, exception: Exception | None) -> None:
    """Lead from the book's index.html to its first page; Jupyter Book's own redirection has no language or title."""
    if not exception and app.builder.format == "html":
        page = Template(Path(__file__).parents[1].joinpath("_templates/redirect.html").read_text(encoding="utf-8"))
        values = {"lang": app.config.language, "title": escape(app.config.html_title), "page": app.config.root_doc}
        Path(app.outdir, "index.html").write_text(page.substitute(values), encoding="utf-8")


def alternates(edition: str, baseurl: str, content_root: str, page: str) -> dict[str, str]:
    """Addresses of a page in each language and of the language page (`x-default`).

    Absolute if the site's address is set (`baseurl`, which ends with the edition's folder), else relative.
    """
    top = baseurl.removesuffix(f"{edition}/") if baseurl else f"{content_root}../"
    return {
        **{language: f"{top}{language}/{page}.html" for language in NAMES},
        "x-default": f"{top}index.html",
    }


def add_links(app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    """Add the language switch and its `link` elements to a page of an edition."""
    if not (edition := app.config.edition):
        return
    links = alternates(edition, app.config.html_baseurl, context["content_root"], pagename)
    context["metatags"] = context.get("metatags", "") + "".join(
        f'\n<link rel="alternate" hreflang="{language}" href="{escape(address)}"/>'
        for language, address in links.items()
    )
    relative = alternates(edition, "", context["content_root"], pagename)
    context["languages"] = [
        {
            "code": code,
            "name": NAMES[code],
            "label": READ[code],
            "url": relative[code],
            "current": code == edition,
        }
        for code in NAMES
    ]


def launch_chapters_only(app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    """Take the launch button off the pages that are no notebooks in the repository."""
    if not pagename.startswith("notebooks/"):
        buttons = [button for button in context["header_buttons"] if button.get("label") != "launch-buttons"]
        context["header_buttons"] = buttons


def setup(app: Sphinx) -> dict[str, Any]:
    """Sphinx extension entry."""
    app.add_config_value("edition", "", "html", str)
    app.connect("config-inited", configure)
    app.connect("builder-inited", drop_thebe)
    app.connect("html-page-context", add_links, priority=100)  # before the theme drops templates that are empty
    app.connect("html-page-context", launch_chapters_only, priority=900)  # after the theme has made its buttons
    app.connect("build-finished", copy_mathjax)
    app.connect("build-finished", write_index)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
