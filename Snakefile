"""The build's graph. `python -m riceutils.book build` (make book) runs it inside _build/.

Outputs are executed notebooks, the small records of the chapters' runs, and HTML. Runs themselves live in the
user's cache folder; a chapter that is executed again loads them.
"""
import json
import shlex
import sys
from pathlib import Path

ROOT = Path(workflow.basedir)
sys.path.insert(0, str(ROOT))
from riceutils import book
from riceutils.config import AFTER, MODELS, READERS, chapter_parameters

PROFILE, DATA, IMAGES = config.get("profile", "quick"), config.get("data"), config.get("images", "")
PAGES = book.pages(ROOT)
CHAPTERS = [page.removeprefix("notebooks/") for page in PAGES if page.startswith("notebooks/")]
TEXTS = [page.removeprefix("book/") for page in PAGES if page.startswith("book/")]
RUN = f"cd .. && {shlex.quote(sys.executable)} -m riceutils.book"
# TensorFlow talks about itself on standard error: into the log with it, but for the last line, which says what failed.
LOGGED = " 2> _build/{log} || {{ tail -n 1 _build/{log} >&2; exit 1; }}"


def below(folder, *but):
    """Files of a source folder but those whose path matches, relative to _build: the checkout can be moved."""
    found = (path.relative_to(ROOT) for path in sorted((ROOT / folder).rglob("*")) if path.is_file())
    return [f"../{path}" for path in found if not any(path.match(pattern) for pattern in ("__pycache__/*", *but))]


# What a page computes with. Profiles count by the parameters that result from them.
BUILDERS = ("riceutils/book.py", "riceutils/editions.py", "riceutils/__main__.py", "riceutils/commands.py")
LIBRARY = below("riceutils", *BUILDERS, "profiles/*", "glossary.csv", "*.ipynb")
EXTRAS = below("book", "*.md")


def records(wildcards):
    if wildcards.name in AFTER:  # an order only: a new record of the other is no reason to run again
        return ancient(f"records/{AFTER[wildcards.name]}.json")
    if wildcards.name not in READERS:
        return []
    return [f"records/{name}.json" for name in CHAPTERS if name in MODELS]


def settings(wildcards):
    return chapter_parameters(PROFILE, wildcards.name, DATA)


wildcard_constraints:
    name=r"\w+",
    language="ko|en",


rule html:
    input:
        expand("editions/{language}/_build/html/index.html", language=book.LANGUAGES),


rule chapters:
    input:
        expand("executed/notebooks/{name}.ipynb", name=[name for name in CHAPTERS if name not in READERS]),


rule chapter:
    input:
        "../notebooks/{name}.ipynb",
        LIBRARY,
        records,
    output:
        notebook="executed/notebooks/{name}.ipynb",
        record="records/{name}.json",
    log:
        "logs/{name}.log",
    params:
        values=lambda wildcards: json.dumps(settings(wildcards), sort_keys=True),
        images=lambda wildcards: IMAGES if settings(wildcards)["data"] == DATA else "",
    shell:
        RUN + " execute notebooks/{wildcards.name} _build/{output.notebook}"
        " --record _build/{output.record} --parameters {params.values:q}" + LOGGED


rule text:
    input:
        "../book/{name}.md",
        "../riceutils/resources/glossary.csv",
        LIBRARY,
    output:
        "executed/book/{name}.ipynb",
    log:
        "logs/{name}.log",
    shell:
        RUN + " execute book/{wildcards.name} _build/{output}" + LOGGED


rule edition:
    input:
        expand("executed/{page}.ipynb", page=PAGES),
        EXTRAS,
        "../_config.yml",
        "../_toc.yml",
        "../riceutils/book.py",
        "../riceutils/editions.py",
        "../riceutils/resources/glossary.csv",
    output:
        "editions/{language}/_build/html/index.html",
    shell:
        RUN + " edition {wildcards.language}"
