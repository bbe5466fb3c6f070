"""Every page of the console in real headless Chromium: by axe-core, by keyboard, and as wide as a phone."""

import importlib.util
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import pytest

from tests.conftest import missing
from tests.samples.attacked_console import AttackedConsole, attacked_console
from twin_scanner.console.access.control import SESSION
from twin_scanner.console.access.passwords import Passwords
from twin_scanner.console.access.roles import Role
from twin_scanner.console.serving import ConsoleServer, Listening

pytestmark = [pytest.mark.system, pytest.mark.long]
DESKTOP, TABLET, PHONE, NARROWEST = 1280, 1100, 390, 320
"""Widths in CSS pixels. On the tablet a table is still one; WCAG 1.4.10 names the narrowest."""
LEVELS: Final = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
DEADLINE_MS: Final = 60_000
STEPS_INSIDE: Final = 12
"""A date is one control, through whose parts the tab key goes too."""
NAMED: Final = """
const named = one => [one.tagName, one.getAttribute('href'), one.name, one.ariaLabel, one.textContent.trim()].join(' ');
"""
REACHABLE: Final = f"""
() => {{ {NAMED}
  return [...document.querySelectorAll('a[href], button, input, select, textarea, summary, [tabindex]')]
    .filter(one => one.tabIndex >= 0 && !one.disabled && one.checkVisibility() && one.type !== 'hidden').map(named);
}}
"""
FOCUSED: Final = f"""
() => {{ {NAMED}
  const one = document.activeElement, style = getComputedStyle(one), box = one.getBoundingClientRect();
  const outlined = style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2;
  const within = box.bottom > 0 && box.top < innerHeight && box.right > 0 && box.left < innerWidth;
  return one === document.body ? null : {{ name: named(one), shown: outlined && within && box.width * box.height > 0 }};
}}
"""
"""A control is known by its words and where it leads: a live part of a page is replaced while it is read."""


@pytest.fixture(scope="module")
def console(tmp_path_factory: pytest.TempPathFactory, passwords: Passwords) -> Iterator[AttackedConsole]:
    with attacked_console(tmp_path_factory.mktemp("site"), passwords) as console:
        console.silent.add("archive")
        yield console


@pytest.fixture(scope="module")
def address(console: AttackedConsole) -> Iterator[str]:
    server = ConsoleServer(console.app, Listening("127.0.0.1", 0))
    server.start()
    yield server.url.rstrip("/")
    server.stop()


@contextmanager
def opened(
    console: AttackedConsole, address: str, width: int, scheme: str = "light"
) -> Iterator[tuple[Any, list[str]]]:
    """A page of an admin's browser, and what it complained of: errors, and requests to elsewhere."""
    program = shutil.which("chromium")
    if program is None or importlib.util.find_spec("playwright") is None:
        missing("Chromium, or playwright (pip install -e '.[gate]')")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        context.add_cookies([{"name": SESSION, "value": console.session(Role.ADMIN), "url": address}])
        page = context.new_page()
        page.set_default_timeout(DEADLINE_MS)
        complaints: list[str] = []
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda said: complaints.append(said.text) if "violates" in said.text else None)
        page.on("request", lambda asked: None if asked.url.startswith(address) else complaints.append(asked.url))
        yield page, complaints
        browser.close()


def visited(page: Any, console: AttackedConsole, address: str) -> Iterator[str]:
    """The name of each page once it is shown, with everything on it unfolded; at last those before the login."""
    for name, path in console.pages.items():
        page.goto(address + path)
        page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
        yield name
    page.goto(f"{address}/destinations")
    page.get_by_role("button", name="C-ECHO").first.click()
    page.get_by_role("alert").wait_for()
    page.wait_for_load_state()
    yield "destination that does not answer"
    page.context.clear_cookies()
    page.goto(f"{address}/login")
    yield "login"
    page.fill("#name", "nobody")
    page.fill("#password", "a wrong password")
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("alert").wait_for()
    page.wait_for_load_state()
    yield "login refused"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [DESKTOP, PHONE])
def test_axe_finds_no_violation_of_wcag_on_any_page(
    console: AttackedConsole, address: str, width: int, scheme: str
) -> None:
    if importlib.util.find_spec("axe_playwright_python") is None:
        missing("axe-playwright-python (pip install -e '.[gate]')")
    from axe_playwright_python.sync_playwright import Axe

    options = {"runOnly": {"type": "tag", "values": LEVELS}, "resultTypes": ["violations"]}
    found = []
    with opened(console, address, width, scheme) as (page, complaints):
        for name in visited(page, console, address):
            for fault in Axe().run(page, options=options).response["violations"]:
                found += [(name, fault["id"], node["html"][:200]) for node in fault["nodes"]]
        assert complaints == []
    assert found == []


@pytest.mark.parametrize("width", [DESKTOP, TABLET, PHONE, NARROWEST])
def test_no_page_is_wider_than_the_screen_and_nothing_attacked_it(
    console: AttackedConsole, address: str, width: int
) -> None:
    wide, hurt = [], []
    with opened(console, address, width) as (page, complaints):
        for name in visited(page, console, address):
            measured = page.evaluate("document.documentElement.scrollWidth")
            if measured > width:
                wide.append((name, measured))
            if page.evaluate("document.querySelectorAll('xss-probe, [onprobe], img[src=x]').length"):
                hurt.append(name)
        assert complaints == []
    assert (wide, hurt) == ([], [])


@pytest.mark.parametrize("width", [DESKTOP, PHONE])
def test_the_keyboard_reaches_every_control_and_shows_where_it_is(
    console: AttackedConsole, address: str, width: int
) -> None:
    faults = []
    with opened(console, address, width) as (page, _):
        for name in visited(page, console, address):
            controls = set(page.evaluate(REACHABLE))
            page.evaluate("document.activeElement.blur()")
            reached, unseen = set(), set()
            for _ in range(2 * len(controls) + STEPS_INSIDE):
                page.keyboard.press("Tab")
                focused = page.evaluate(FOCUSED)
                if focused is None:
                    if reached >= controls:
                        break
                    continue
                reached.add(focused["name"])
                unseen |= set() if focused["shown"] else {focused["name"]}
            faults += [(name, "not reached", control) for control in sorted(controls - reached)]
            faults += [(name, "not visible", control) for control in sorted(unseen)]
    assert faults == [], faults
