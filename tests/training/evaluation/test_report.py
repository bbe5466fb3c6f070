"""The report of an evaluation as a reader's browser shows it: whole, quiet, alone and legible."""

from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Final

import pytest

from tests.peers.browser import Browser, browser
from tests.samples.cases import quick_and_long
from tests.samples.known_cases import body_pet, case_of, spot_label, with_spot
from training.evaluation.figures import (
    Picture,
    joint_histogram,
    plot_joint_histograms,
    plot_study,
    study_pictures,
    svg,
)
from training.evaluation.report import PHANTOMS_WARNING, ReportContent, write_report
from training.evaluation.score import DEFINITIONS
from training.evaluation.tables import RESEARCH_ONLY, Table
from twin_scanner.errors import Transient

pytestmark = pytest.mark.system

POLICY: Final = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
HOSTILE: Final = '</title></td><script>alert("x")</script><img src="http://outside.invalid/a.png" onerror="alert(1)">'
WIDTHS: Final = (1280, 390)
LEGIBLE: Final = 4.5
"""Contrast of text on its ground: WCAG 2.2, 1.4.3."""
CONTRAST: Final = """
(() => {
  const light = colour => colour.match(/[0-9.]+/g).slice(0, 3).map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = node => {
    while (node && /^rgba.*, 0\\)$/.test(getComputedStyle(node).backgroundColor)) node = node.parentElement;
    return getComputedStyle(node || document.body).backgroundColor;
  };
  return [...document.querySelectorAll("h1,h2,h3,p,a,th,td,li,figcaption,dt,dd,code")].map(node => {
    const pair = [light(getComputedStyle(node).color), light(ground(node))].sort((a, b) => b - a);
    return (pair[0] + 0.05) / (pair[1] + 0.05);
  });
})()
"""


class Outline(HTMLParser):
    """What a page is made of: tags with attributes, headings in their order, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> ReportContent:
    """Two models, one study with its pictures, a table wider than a telephone."""
    real = with_spot(body_pet(), (30, 12, 12), 12.0)
    case = case_of(real, with_spot(body_pet(1), (30, 12, 12), 7.0), spot_label((30, 12, 12)))
    folder = tmp_path_factory.mktemp("pictures")
    plot_study({"model": case, "baseline": case}, folder)
    header = ("District", "Metric", "model", "baseline", *(f"published: column {n}" for n in range(6)))
    rows = tuple(
        (region, metric, "0.0123 ± 0.0045 (SE 0.0012), n 20 / 18 / 3", *["0.023 ± 0.005"] * 7)
        for region in ("Head", "Trunk")
        for metric in ("MAE ↓", "PSNR, dB ↑")
    )
    histogram = svg(plot_joint_histograms(joint_histogram(case), "model", 1))
    return ReportContent(
        title="Evaluation of model",
        facts=[("Model", "model"), ("Model hash", "0123456789abcdef" * 4)],
        notices=["The published numbers are for orientation."],
        summary=["model has a lower mean absolute error than baseline in: head."],
        tables=[
            Table("Table I: districts", header, rows, "Mean ± SD over studies."),
            Table("Small", ("A",), (("b",),)),
        ],
        figures=[Picture("Real against synthetic SUV.", "Joint histograms by district.", histogram, "image/svg+xml")],
        studies={"study-1": study_pictures("study-1", ["model", "baseline"], folder)},
        refused=[("study-2", "The PET shows nothing of the body.")],
        definitions=DEFINITIONS,
        phantoms_only=True,
    )


@pytest.fixture(scope="module")
def page(content: ReportContent, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(content, path)
    return path


@pytest.fixture(scope="module")
def chromium(peer: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(peer("chromium"), tmp_path_factory.mktemp("profile")) as opened:
        yield opened


def hostile_report(path: Path) -> Path:
    table = Table(HOSTILE, ("A", HOSTILE), ((HOSTILE, "b"),), HOSTILE)
    picture = Picture(HOSTILE, HOSTILE, b"\x89PNG\r\n\x1a\n")
    write_report(
        ReportContent(
            HOSTILE, [(HOSTILE, HOSTILE)], [HOSTILE], [HOSTILE], [table], [], {HOSTILE: [picture]},
            [(HOSTILE, HOSTILE)], {HOSTILE: HOSTILE},
        ),
        path,
    )  # fmt: skip
    return path


@pytest.mark.parametrize(("width", "dark"), quick_and_long([(1280, False), (390, True)], [(390, False), (1280, True)]))
def test_chromium_shows_the_report_without_a_complaint_or_an_outside_request(
    chromium: Browser, page: Path, project: Path, width: int, dark: bool
) -> None:
    seen = chromium.open(page, width, dark=dark)
    assert seen.console == []
    assert seen.requests[0] == page.resolve().as_uri()
    assert seen.outside == []
    assert chromium.value("[...document.images].map(image => image.complete && image.naturalWidth)") == [
        672,
        1120,
        1120,
    ]
    assert chromium.value("document.documentElement.scrollWidth") == width
    kept = project / "build" / "report"
    kept.mkdir(parents=True, exist_ok=True)
    (kept / f"report-{width}-{'dark' if dark else 'light'}.png").write_bytes(chromium.screenshot())


def test_the_watch_sees_errors_exceptions_and_outside_requests(chromium: Browser, tmp_path: Path) -> None:
    """That the test above can fail: a page with all three faults."""
    bad = tmp_path / "bad.html"
    script = "console.error('boo'); setTimeout(() => { throw new Error('bang') }, 0)"
    bad.write_text(f"<!DOCTYPE html><img src='http://outside.invalid/x.png'><script>{script}</script>")
    seen = chromium.open(bad, 390)
    assert seen.outside == ["http://outside.invalid/x.png"]
    assert "error: boo" in seen.console
    assert any(line.startswith("exception: Uncaught") for line in seen.console)
    assert any("ERR_NAME_NOT_RESOLVED" in line for line in seen.console)


def test_the_policy_stops_an_image_and_a_script_that_got_into_the_page(
    chromium: Browser, page: Path, tmp_path: Path
) -> None:
    foul = "<main><img src='http://outside.invalid/x.png'><script>document.title = 'taken'</script>"
    taken = tmp_path / "taken.html"
    taken.write_text(page.read_text("utf-8").replace("<main>", foul), "utf-8")
    seen = chromium.open(taken, 1280)
    assert sum("Content Security Policy" in line for line in seen.console) == 2
    assert not any("ERR_NAME_NOT_RESOLVED" in line for line in seen.console)
    assert chromium.value("document.title") == "Evaluation of model"


def test_markup_in_names_is_shown_as_text(chromium: Browser, tmp_path: Path) -> None:
    report = hostile_report(tmp_path / "report.html")
    seen = chromium.open(report, 1280)
    assert seen.outside == []
    assert not [line for line in seen.console if "Security" in line or "alert" in line]
    assert chromium.value("document.scripts.length") == 0
    assert chromium.value("document.title") == HOSTILE
    outline = Outline(report.read_text("utf-8"))
    assert outline.all("script") == []
    assert [image["alt"] for image in outline.all("img")] == [HOSTILE]
    assert all("onerror" not in attributes for _, attributes in outline.tags)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_all_text_stands_out_from_its_ground(chromium: Browser, page: Path, dark: bool) -> None:
    chromium.open(page, 1280, dark=dark)
    ratios = chromium.value(CONTRAST)
    assert len(ratios) > 50
    assert min(ratios) >= LEGIBLE
    ground = chromium.value("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(255, 255, 255)") is not dark


def test_a_wide_table_scrolls_in_its_own_frame_which_the_keyboard_reaches(chromium: Browser, page: Path) -> None:
    chromium.open(page, 390)
    frame = "document.querySelector('.tables .wide')"
    assert chromium.value(f"{frame}.scrollWidth > {frame}.clientWidth + 100")
    assert chromium.value(f"{frame}.focus(); document.activeElement === {frame}")


def test_it_prints_on_a4_with_its_tables_across(chromium: Browser, page: Path) -> None:
    """Oracle: 595 x 842 points are A4, upright and across, in whole points as PDF's boxes are written."""
    chromium.open(page, 1280)
    printed = chromium.pdf()
    boxes = {part.split(b"]")[0].strip(b" [") for part in printed.split(b"/MediaBox")[1:]}
    sizes = {tuple(round(float(number)) for number in box.split()[2:]) for box in boxes}
    assert sizes == {(595, 842), (842, 595)}


def test_the_page_runs_nothing_and_names_no_other_machine(page: Path) -> None:
    text = page.read_text("utf-8")
    outline = Outline(text)
    policies = [one["content"] for one in outline.all("meta") if one.get("http-equiv") == "Content-Security-Policy"]
    assert policies == [POLICY]
    assert not {"script", "link", "iframe", "object", "form"} & {tag for tag, _ in outline.tags}
    assert "http://" not in text
    assert "https://" not in text
    assert all(
        (image["src"] or "").startswith(("data:image/png;base64,", "data:image/svg+xml;base64,"))
        for image in outline.all("img")
    )
    assert all((link["href"] or "").startswith("#") for link in outline.all("a"))
    ids = [attributes["id"] for _, attributes in outline.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {(link["href"] or "")[1:] for link in outline.all("a")} <= set(ids)


def test_headings_are_in_order_and_every_picture_has_words(page: Path) -> None:
    outline = Outline(page.read_text("utf-8"))
    levels = [int(tag[1]) for tag, _ in outline.tags if tag in ("h1", "h2", "h3", "h4")]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert outline.all("html") == [{"lang": "en"}]
    assert len(outline.all("img")) == len(outline.all("figcaption")) == 3
    assert all(image["alt"] for image in outline.all("img"))
    assert all(cell.get("scope") in ("row", "col") for cell in outline.all("th"))


def test_everything_that_was_given_is_in_the_report(page: Path, content: ReportContent) -> None:
    text = Outline(page.read_text("utf-8")).text
    given = [content.title, *content.notices, *content.summary, *content.definitions.values(), *content.studies]
    given += [part for pair in (*content.facts, *content.refused) for part in pair]
    for table in content.tables:
        given += [table.title, *table.header, *(cell for row in table.rows for cell in row), table.note]
    given += [one.caption for one in (*content.figures, *content.studies["study-1"])]
    assert [part for part in given if part not in text] == []


def test_it_says_first_that_it_is_research_and_whether_the_model_has_seen_phantoms_only(
    page: Path, tmp_path: Path
) -> None:
    text = Outline(page.read_text("utf-8")).text
    assert text.index(RESEARCH_ONLY) < text.index("Notices")
    assert "seen phantoms only" in PHANTOMS_WARNING
    assert PHANTOMS_WARNING in text
    write_report(ReportContent("Bare"), tmp_path / "bare.html")
    outline = Outline((tmp_path / "bare.html").read_text("utf-8"))
    assert RESEARCH_ONLY in outline.text
    assert PHANTOMS_WARNING not in outline.text
    assert outline.all("h2") == outline.all("table") == outline.all("a") == []


def test_the_same_content_gives_the_same_bytes(page: Path, content: ReportContent, tmp_path: Path) -> None:
    write_report(content, tmp_path / "again.html")
    assert (tmp_path / "again.html").read_bytes() == page.read_bytes()


def test_a_name_that_is_no_unicode_is_shown_with_its_bytes_escaped(tmp_path: Path) -> None:
    name = b"study-\xff".decode("utf-8", "surrogateescape")
    write_report(ReportContent("Report", refused=[(name, "It cannot be read.")]), tmp_path / "report.html")
    assert "study-\\udcff" in Outline((tmp_path / "report.html").read_text("utf-8")).text


def test_a_disk_that_refuses_is_said_to_do_so_and_leaves_no_half_report(tmp_path: Path) -> None:
    (tmp_path / "report.html").mkdir()
    with pytest.raises(Transient, match=r"report\.html cannot be written"):
        write_report(ReportContent("Report"), tmp_path / "report.html")
