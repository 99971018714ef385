"""The built site in a real browser, without network: RICE_SITE names a site to look at, else a small one is built."""

from __future__ import annotations

import functools
import http.server
import os
import re
import shutil
import threading
from pathlib import Path
from urllib.parse import quote

import pytest
from book_tree import built_tree  # noqa: F401

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs Chromium and chromedriver")

ENGLISH = re.compile(r"\b(search|next|previous|toggle|skip|copy|page|mode|download|hide|show|menu|light|dark)\b", re.I)


@pytest.fixture(scope="session")
def site(request: pytest.FixtureRequest) -> Path:
    """Folder of the site under test."""
    if given := os.environ.get("RICE_SITE"):
        return Path(given)
    return request.getfixturevalue("built_tree") / "_build" / "site"


@pytest.fixture(scope="session")
def address(site):
    """Address of a local server of the site."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('chromium')}")
    for name in (
        *("headless=new", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-sync"),
        *("disable-background-networking", "disable-component-update", "window-size=1300,1000"),
    ):
        options.add_argument(f"--{name}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(autouse=True)
def desktop(browser):
    """Every test starts with the window of a desktop, in light mode, and an empty console."""
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": "light"}]}
    )
    browser.get_log("browser")


def pages(site, language):
    """Every page of an edition, relative to the site; the edition's index is a redirection."""
    found = (path.relative_to(site) for path in sorted((site / language).rglob("*.html")))
    return [str(path) for path in found if "_static" not in path.parts and len(path.parts) > 2]


def run(browser, script, *arguments):
    return browser.execute_script(f"return {script}", *arguments)


def wait(browser, script):
    WebDriverWait(browser, 20).until(lambda driver: run(driver, script))


def test_language_page_leads_to_both_editions(browser, address):
    browser.get(f"{address}/index.html")
    assert browser.title
    links = {link.get_attribute("hreflang"): link for link in browser.find_elements(By.CSS_SELECTOR, "main a")}
    assert set(links) == {"ko", "en"}
    assert browser.find_element(By.CSS_SELECTOR, "link[hreflang=x-default]")
    links["ko"].click()
    wait(browser, "document.documentElement.lang === 'ko' && !location.pathname.endsWith('index.html')")
    wait(browser, "document.querySelector('h1')")


@pytest.mark.parametrize("language", ["ko", "en"])
def test_every_page(browser, address, site, language):
    """Language, title, links to the twin, figures and their alt texts, formulas, console, phone width."""
    other = {"ko": "en", "en": "ko"}[language]
    for page in pages(site, language):
        browser.get(f"{address}/{page}")
        assert run(browser, "document.documentElement.lang") == language, page
        assert browser.title, page
        switch = browser.find_element(By.CSS_SELECTOR, ".language-switch a")
        assert switch.get_attribute("href") == f"{address}/{page.replace(language, other, 1)}", page
        assert (site / page.replace(language, other, 1)).exists(), page
        assert switch.get_attribute("hreflang") == other
        assert switch.get_attribute("aria-label")
        languages = [
            link.get_attribute("hreflang") for link in browser.find_elements(By.CSS_SELECTOR, "link[hreflang]")
        ]
        assert languages == ["ko", "en", "x-default"], page
        for alt, width in run(
            browser, "[...document.querySelectorAll('article img')].map(i => [i.alt, i.naturalWidth])"
        ):
            assert width > 0, page
            assert alt, f"{page}: a figure without alt text"
            assert not re.fullmatch(r"\S*[0-9a-f]{32,}\S*", alt), page
            assert bool(re.search("[가-힣]", alt)) == (language == "ko"), f"{page}: {alt}"
        if browser.find_elements(By.CSS_SELECTOR, "article .math"):
            wait(browser, "document.querySelectorAll('article mjx-container').length > 0")
        assert "<Figure size" not in run(browser, "document.body.innerText"), f"{page}: a figure shown as text"
        prose = run(browser, "[...document.querySelectorAll('article :is(p, h1, h2)')].map(e => e.innerText).join(' ')")
        if page.startswith(f"{language}/notebooks/"):
            assert bool(re.search("[가-힣]", prose)) == (language == "ko"), page
        # A failed load is an error of level SEVERE, as are exceptions.
        assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == [], page


def test_phone_pages_do_not_scroll_sideways(browser, address, site):
    phone = {"width": 375, "height": 812, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    for page in ["index.html", *pages(site, "ko"), *pages(site, "en")]:
        browser.get(f"{address}/{page}")
        assert run(browser, "document.documentElement.scrollWidth") <= 375, page
        if page != "index.html":
            box = browser.find_element(By.CSS_SELECTOR, ".language-switch a").rect
            assert box["x"] >= 0, page
            assert box["x"] + box["width"] <= 375, page
            assert box["y"] >= 0, page


@pytest.mark.parametrize("query", ["필터", "경량", "모델"])
def test_korean_search_finds_parts_of_words(browser, address, query):
    browser.get(f"{address}/ko/search.html?q={quote(query)}")
    wait(browser, "document.querySelectorAll('#search-results li').length > 0")
    wait(browser, "document.querySelectorAll('#search-results li p.context').length > 0")
    summaries = [e.text for e in browser.find_elements(By.CSS_SELECTOR, "#search-results li p.context")]
    assert any(query in summary for summary in summaries)
    assert "page(s)" not in browser.find_element(By.ID, "search-results").text


def test_search_wants_all_terms_and_finds_nothing_for_nonsense(browser, address):
    def found(query, language="ko"):
        browser.get(f"{address}/{language}/search.html?q={quote(query)}")
        wait(browser, "document.querySelector('#search-results .search-summary')?.innerText")
        return len(browser.find_elements(By.CSS_SELECTOR, "#search-results li"))

    assert found("필터 뷁쀍") == 0
    assert found("뷁") == 0
    assert found("필터") > 0
    assert found("filters", "en") > 0


def test_search_field_on_a_page(browser, address, site):
    page = next(page for page in pages(site, "ko") if "/notebooks/" in page)
    browser.get(f"{address}/{page}")
    browser.find_element(By.CSS_SELECTOR, ".bd-sidebar-primary .search-button__button").click()
    field = WebDriverWait(browser, 10).until(lambda d: d.find_element(By.CSS_SELECTOR, "dialog[open] input[name=q]"))
    assert re.search("[가-힣]", field.get_attribute("placeholder"))
    field.send_keys("필터\n")
    wait(browser, "document.querySelectorAll('#search-results li').length > 0")


def test_interface_speaks_korean(browser, address, site):
    """No English word of the theme is left in buttons, labels and titles of a Korean page."""
    for page in pages(site, "ko"):
        browser.get(f"{address}/{page}")
        wait(browser, "document.readyState === 'complete'")
        words = run(
            browser,
            """[...document.querySelectorAll('body *:not(script):not([lang=en])')]
            .filter(e => !e.closest('article :is(pre, code), .highlight pre'))
            .flatMap(e => ['title', 'aria-label', 'placeholder', 'data-bs-title', 'data-tooltip']
              .map(a => e.getAttribute(a))
              .concat(e.matches('button, summary, .skip-link, .prev-next-subtitle, .admonition-title, .page-toc')
                      ? [e.textContent.trim()] : []))
            .filter(Boolean)""",
        )
        assert words
        assert [word for word in words if ENGLISH.search(word)] == [], page


def test_theme_toggle_reaches_the_dark(browser, address, site):
    browser.get(f"{address}/{next(page for page in pages(site, 'en') if '/notebooks/' in page)}")
    button = browser.find_element(By.CSS_SELECTOR, ".article-header-buttons .theme-switch-button")
    for _ in range(3):
        if run(browser, "document.documentElement.dataset.theme") == "dark":
            break
        button.click()
    assert run(browser, "document.documentElement.dataset.theme") == "dark"
    shade = run(browser, "getComputedStyle(document.body).backgroundColor")
    assert max(map(int, re.findall(r"\d+", shade)[:3])) < 80
    browser.execute_script("localStorage.clear()")
