"""The viewer in real headless Chromium: keys, wheel and click, WebGL2 by NiiVue, and the server's slices without it."""

import importlib.util
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles

from tests.conftest import missing
from tests.fakes.console_frame import FOLDER, bare_frame
from tests.samples.viewed_job import CT_GRID, JOB_ID, write_viewed_job
from twin_scanner.console.viewer.memory import ImageMemory
from twin_scanner.console.viewer.router import viewer_router

pytestmark = [pytest.mark.system, pytest.mark.long]
MIDDLE = CT_GRID.shape[0] // 2
DEADLINE_S = 60.0
DECODED = "Promise.all([...document.images].map(image => image.decode()))"
"""Rejected where a picture is none."""
WITH_WEBGL = ("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")
WITHOUT_WEBGL = ("--disable-gpu", "--disable-webgl", "--disable-webgl2", "--disable-3d-apis")


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    jobs = tmp_path_factory.mktemp("jobs")
    write_viewed_job(jobs, phantom_only=True)
    application = FastAPI()
    application.include_router(viewer_router(jobs, ImageMemory(), bare_frame, lambda request, job_id: None))
    application.mount("/static", StaticFiles(directory=FOLDER / "static"))
    server = uvicorn.Server(uvicorn.Config(application, port=0, log_level="error", lifespan="off", ws="none"))
    thread = threading.Thread(target=server.run, name="viewer")
    thread.start()
    deadline = time.monotonic() + DEADLINE_S
    while not server.started and thread.is_alive() and time.monotonic() < deadline:
        thread.join(0.02)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}/jobs/{JOB_ID}/slices"
    server.should_exit = True
    thread.join(DEADLINE_S)


@contextmanager
def opened(address: str, *flags: str, scripts: bool = True, width: int = 1280) -> Iterator[tuple[Any, list[str]]]:
    """The page in a browser with such flags, and what the browser complains of."""
    program = shutil.which("chromium")
    if program is None or importlib.util.find_spec("playwright") is None:
        missing("Chromium, or playwright (pip install -e '.[gate]')")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox", *flags])
        page = browser.new_page(viewport={"width": width, "height": 900}, java_script_enabled=scripts)
        page.set_default_timeout(2 * DEADLINE_S * 1000)
        complaints: list[str] = []
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(address)
        yield page, complaints
        browser.close()


def test_keys_wheel_and_click_move_through_the_slices(address: str) -> None:
    with opened(address, *WITHOUT_WEBGL) as (page, complaints):
        axial, coronal = page.locator("#axial"), page.locator("#coronal")
        axial.focus()
        expected = MIDDLE
        for key, move in (("ArrowUp", 1), ("ArrowUp", 1), ("ArrowDown", -1), ("PageDown", -10), ("PageUp", 10)):
            page.keyboard.press(key)
            expected = min(max(expected + move, 0), CT_GRID.shape[0] - 1)
            assert axial.get_attribute("data-index") == str(expected)
        page.keyboard.press("Home")
        assert axial.get_attribute("data-index") == "0"
        page.keyboard.press("End")
        assert axial.get_attribute("data-index") == str(CT_GRID.shape[0] - 1)
        page.locator("#axial img[src*='/axial/19.jpeg']").wait_for()
        page.keyboard.press("ArrowRight")
        assert page.evaluate("document.activeElement.id") == "coronal"
        box = page.locator("#axial img").bounding_box()
        page.mouse.move(box["x"] + box["width"] * 0.625, box["y"] + box["height"] * 0.42)
        page.locator("#values output", has_text="SUV 8.00").wait_for()
        assert "0 HU" in page.locator("#values output").text_content()
        page.mouse.click(box["x"] + box["width"] * 0.625, box["y"] + box["height"] * 0.42)
        page.locator("#coronal[data-index='10']").wait_for()
        page.mouse.wheel(0, -120)
        page.locator("#axial[data-index='18']").wait_for()
        assert coronal.get_attribute("data-index") == "10"
        page.select_option("select[name=preset]", "lung")
        assert page.input_value("input[name=width]") == "1500"
        page.locator("#coronal img[src*='preset=lung']").wait_for()
        page.evaluate(DECODED)
        assert complaints == []


def test_without_webgl_the_server_draws_and_nothing_is_offered(address: str) -> None:
    with opened(address, *WITHOUT_WEBGL) as (page, complaints):
        assert page.evaluate("document.createElement('canvas').getContext('webgl2')") is None
        page.evaluate(DECODED)
        assert page.locator("#fast").is_hidden()
        assert page.locator("#slices").is_visible()
        assert complaints == []


def test_without_script_the_links_and_the_form_do_the_same(address: str) -> None:
    with opened(address, scripts=False) as (page, _):
        page.get_by_label("axial: forward", exact=True).click()
        assert f"axial={MIDDLE + 1}" in page.url
        page.select_option("select[name=show]", "pet")
        page.get_by_role("button", name="Show").click()
        assert "show=pet" in page.url
        assert f"axial={MIDDLE + 1}" in page.url


def test_niivue_draws_the_same_with_its_warning(address: str, tmp_path: Path) -> None:
    with opened(address, *WITH_WEBGL) as (page, complaints):
        page.locator("#fast-toggle").click()
        page.wait_for_selector("#fast-frame[data-ready='1']", timeout=DEADLINE_S * 1000)
        assert page.locator("#slices").is_hidden()
        assert (
            "SYNTHETIC - research, not for diagnosis - trained on phantoms only"
            in page.locator("#fast-frame").text_content()
        )
        page.screenshot(path=tmp_path / "niivue.png")
        page.locator("#fast-toggle").click()
        assert page.locator("#slices").is_visible()
        assert complaints == []
