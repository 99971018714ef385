"""The book: its pages are executed, filtered into a Korean and an English edition, built and published.

`python -m riceutils.book build` (or `make book`) drives the whole from the root of a checkout. Snakemake,
described in `Snakefile`, decides what has to be done and calls `execute` per page and `edition` per language.
All that is written lies under `_build/`; readers see `_build/site` only, which is swapped in whole.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from html import escape
from pathlib import Path
from string import Template
from typing import Any

import click
import filelock
import nbformat
import yaml

from riceutils import files
from riceutils.editions import LANGUAGES, edition, glossary

_MARK = "RICEUTILS_BUILD"  # in the environment of every process of a build: how a dead build's orphans are found


def pages(root: Path) -> list[str]:
    """Names of the book's pages (`notebooks/02_cnn`, `book/glossary`) in the order of `_toc.yml`."""
    toc = files.read_yaml(root / "_toc.yml")
    parts = toc.get("parts") or [{"chapters": toc.get("chapters", [])}]
    return [toc["root"], *(chapter["file"] for part in parts for chapter in part["chapters"])]


def source(root: Path, page: str) -> Path:
    """File a page is written in: a notebook in `notebooks/`, a MyST text notebook elsewhere."""
    return root / (page + (".ipynb" if page.startswith("notebooks/") else ".md"))


def execute(root: Path, page: str, output: Path, parameters: Mapping[str, Any], record: Path | None) -> None:
    """Execute a page with papermill and write it, outputs included, to `output` once it is complete.

    `record` is where the chapter's footer leaves its run record (environment variable `RICEUTILS_RECORD`).
    Raises `click.ClickException` naming the failed cell; the notebook as far as it came is kept under
    `failed/` beside the output's folder.
    """
    import jupytext
    import papermill

    failed = output.parents[2] / "failed" / f"{page}.ipynb"
    failed.parent.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's messages about its build are not the reader's
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"  # never a kernel of that name from the user's home
    if record:
        os.environ["RICEUTILS_RECORD"] = str(record.resolve())
    click.echo(f"{page}: executing")
    start = time.monotonic()
    try:
        papermill.execute_notebook(
            jupytext.read(source(root, page)), failed, dict(parameters), kernel_name="python3", cwd=root,
            progress_bar=False, extra_arguments=["--IPKernelApp.log_level=50"],
        )  # fmt: skip
    except papermill.PapermillExecutionError as error:
        reason = f"{error.ename}: {' '.join(error.evalue.split())}"  # in one line, the last of the log
        raise click.ClickException(
            f"{page}, cell {error.exec_count}: {reason} (the notebook so far: {failed})"
        ) from None
    if record and not record.exists():
        raise click.ClickException(f"{page} left no run record; its last cell has to call show.footer.")
    output.parent.mkdir(parents=True, exist_ok=True)
    os.replace(failed, output)
    click.echo(f"{page}: done in {time.monotonic() - start:.0f} s")


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the entries of `over`, mappings merged recursively, everything else replaced."""
    result = dict(base)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = merge(result[key], value) if both else value
    return result


def edition_settings(root: Path, language: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Configuration and table of contents of one edition: the root's, with the edition's language added."""
    config, toc = files.read_yaml(root / "_config.yml"), files.read_yaml(root / "_toc.yml")
    own = config.pop("editions")[language]
    captions = own.pop("captions", {})
    for part in toc.get("parts", []):
        part["caption"] = captions.get(part["caption"], part["caption"])
    forced: dict[str, Any] = {
        "execute": {"execute_notebooks": "off"},
        "sphinx": {"config": {"edition": language}},
    }
    if base := config["html"].get("baseurl"):
        forced["html"] = {"baseurl": f"{base.rstrip('/')}/{language}/"}
    return merge(merge(config, own), forced), toc


def write_edition(root: Path, executed: Path, language: str, folder: Path) -> None:
    """Write the self-contained Jupyter Book source of one edition to `folder`, replacing what is there."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(root / "book", folder / "book", ignore=shutil.ignore_patterns("*.md", "__pycache__"))
    terms = glossary()
    for page in pages(root):
        target = folder / f"{page}.ipynb"
        target.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(edition(nbformat.read(executed / f"{page}.ipynb", as_version=4), language, terms), target)
    for name, content in zip(("_config.yml", "_toc.yml"), edition_settings(root, language), strict=True):
        text = yaml.safe_dump(content, allow_unicode=True, sort_keys=False)
        (folder / name).write_text(text, encoding="utf-8")


def build_edition(root: Path, language: str) -> None:
    """Write one edition to `_build/editions/<language>` and build its HTML there; warnings are errors."""
    folder = root / "_build" / "editions" / language
    write_edition(root, root / "_build" / "executed", language, folder)
    click.echo(f"{language}: building the pages")
    program = Path(sys.executable).with_name("jupyter-book")
    # Through this interpreter: the program's first line names the place where it was installed.
    command = [sys.executable, str(program), "build", str(folder), "-n", "-W", "--keep-going", "-q"]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        click.echo(result.stdout + result.stderr, err=True)
        raise click.ClickException(f"jupyter-book could not build the {language} edition (messages above).")


def publish(root: Path) -> Path:
    """Swap both editions and the language page in as `_build/site`; returns that folder."""
    build = root / "_build"
    new, old, site = build / "site.new", build / "site.old", build / "site"
    shutil.rmtree(new, ignore_errors=True)
    for language in LANGUAGES:
        shutil.copytree(build / "editions" / language / "_build" / "html", new / language)
    config = files.read_yaml(root / "_config.yml")
    values = {f"title_{language}": escape(config["editions"][language]["title"]) for language in LANGUAGES}
    base = (config["html"].get("baseurl") or "").rstrip("/")
    page = Template((root / "book" / "_templates" / "languages.html").read_text(encoding="utf-8"))
    text = page.substitute({"base": f"{base}/" if base else "", **values})
    (new / "index.html").write_text(text, encoding="utf-8")
    shutil.rmtree(old, ignore_errors=True)
    with suppress(FileNotFoundError):
        os.replace(site, old)
    os.replace(new, site)
    shutil.rmtree(old, ignore_errors=True)
    return site


def end_orphans(root: Path) -> None:
    """End the processes of this checkout's build other than this one: what a killed build left running."""
    import psutil

    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.pid != os.getpid() and process.environ().get(_MARK) == str(root):
                process.kill()


@contextmanager
def only_build(root: Path) -> Iterator[None]:
    """Hold the lock of this checkout's build; raises `click.ClickException` if another build holds it.

    The system releases the lock with its holder, however that ends, so a killed build never stops the next.
    """
    (root / "_build").mkdir(exist_ok=True)
    try:
        with filelock.FileLock(root / "_build" / ".lock", timeout=3):
            end_orphans(root)
            yield
    except filelock.Timeout:
        raise click.ClickException("Another build of this folder is running; wait for it to end.") from None


def run_snakemake(root: Path, options: list[str]) -> None:
    """Bring the book's pages up to date; ends the program with Snakemake's code if that fails."""
    path = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH", "")]))
    environment = {**os.environ, _MARK: str(root), "PYTHONPATH": path}
    command = [sys.executable, "-m", "riceutils.book", "graph", *options]
    parent = os.getppid()
    process = subprocess.Popen(command, cwd=root, env=environment)
    while True:
        with suppress(subprocess.TimeoutExpired):
            if process.wait(timeout=0.5) == 0:
                return
            # A failed page has said why; a failed plan is silent when Snakemake is quiet, so plan it again.
            plan = [*command, "--dry-run"]
            again = subprocess.run(plan, cwd=root, env=environment, capture_output=True, text=True)
            if again.returncode:
                click.echo(again.stderr, err=True)
            sys.exit(process.returncode)
        if "MAKELEVEL" in os.environ and os.getppid() != parent:  # make was killed: so is the build
            end_orphans(root)
            sys.exit(1)


@click.group()
def main() -> None:
    """Build the bilingual book (run in the root of a checkout)."""
    if not Path("_toc.yml").exists():
        raise click.ClickException("There is no _toc.yml here; run this in the root of a checkout.")


@main.command()
@click.option("--profile", default="quick", show_default=True, help="Parameters of the build.")
@click.option("--data", help="Images, in place of the profile's: synthetic, kaggle, a folder or a zip.")
@click.option("--cores", default="all", show_default=True, help="Cores Snakemake may use.")
def build(profile: str, data: str | None, cores: str) -> None:
    """Execute what has changed and publish both editions in _build/site."""
    from riceutils.config import chapter_parameters

    root = Path.cwd()
    if data not in (None, "synthetic", "kaggle"):
        data = str(Path(data).expanduser().resolve())
    if missing := [page for page in pages(root) if not source(root, page).exists()]:
        raise click.ClickException(f"_toc.yml names pages that do not exist: {', '.join(missing)}")
    try:  # a wrong profile or value is said before anything starts
        for page in pages(root):
            if page.startswith("notebooks/"):
                chapter_parameters(profile, page.removeprefix("notebooks/"), data)
        config = {"profile": profile} | ({"data": data, "images": _signature(data)} if data else {})
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    with only_build(root):
        given = root / "_build" / "settings.json"  # on its command line, Snakemake would take ": " in a path for YAML
        files.write_json(given, config)
        run_snakemake(root, ["--cores", cores, "--configfile", str(given)])
        click.echo(f"The book is in {publish(root) / 'index.html'}")


def _signature(data: str) -> str:
    """What changes when the images that a build was given may have changed; "" where they always are the same."""
    from riceutils import sources

    return "" if data in ("synthetic", "kaggle") else sources.open_source(data).signature


@main.command("graph", context_settings={"ignore_unknown_options": True}, add_help_option=False)
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def graph_command(options: tuple[str, ...]) -> None:
    """Run Snakemake on the Snakefile with further options, without this program's lock."""
    from snakemake import cli

    quiet = ["rules", "host", "progress"] if "--dry-run" in options else ["all"]
    # Snakemake's own lock outlives a killed build; ours does not.
    always = ["--directory", "_build", "--snakefile", "Snakefile", "--rerun-incomplete", "--nolock", "--quiet", *quiet]
    # Twice, because Snakemake plans before it runs: in the second plan a chapter whose record came out equal no
    # longer counts as changed, and the chapters that read the record stay as they are.
    for target in ("chapters", "html"):
        try:
            cli.main([*options, *always, "--", target])
        except SystemExit as end:
            if end.code:
                raise


@main.command("execute")
@click.argument("page")
@click.argument("output", type=click.Path(path_type=Path))
@click.option("--parameters", default="{}", help="JSON object.")
@click.option("--record", type=click.Path(path_type=Path), help="Where the chapter writes its run record.")
def execute_command(page: str, output: Path, parameters: str, record: Path | None) -> None:
    """Execute one page (called by Snakemake)."""
    execute(Path.cwd(), page, output, json.loads(parameters), record)


@main.command("edition")
@click.argument("language", type=click.Choice(LANGUAGES))
def edition_command(language: str) -> None:
    """Build one edition from the executed pages (called by Snakemake)."""
    build_edition(Path.cwd(), language)


@main.command()
def stamp() -> None:
    """Write the repository's address of _config.yml into the set-up cell of every chapter."""
    address = files.read_yaml(Path("_config.yml"))["repository"]["url"]
    for path in sorted(Path("notebooks").glob("*.ipynb")):
        text = path.read_text(encoding="utf-8")
        new = re.sub(r'(REPOSITORY = \\")[^"\\]*(\\")', rf"\g<1>{address}\g<2>", text)
        if new != text:
            path.write_text(new, encoding="utf-8")
            click.echo(f"{path}: {address}")


if __name__ == "__main__":
    main()
