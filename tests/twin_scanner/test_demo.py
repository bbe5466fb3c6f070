"""What the demonstration leaves behind, on a short field of view: files that name each other, and a twin record."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pydicom
import pytest

from tests.samples.command_line import run

pytestmark = [pytest.mark.system, pytest.mark.long, pytest.mark.timeout(600)]

SHORT = """
import twin_scanner.demo as demonstration
from training.phantom.phantom import PhantomOptions
demonstration.PHANTOM = PhantomOptions(height_mm=1550.0, field_of_view=(1200.0, 1550.0), sex="F")
from twin_scanner.cli import main
main()
"""


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, "subprocess.CompletedProcess[str]"]:
    """The folder in which the demonstration was run, and how it ended."""
    folder = tmp_path_factory.mktemp("demonstrated")
    command = [sys.executable, "-c", SHORT, "demo", "--out", "out"]
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=500)
    assert ended.returncode == 0, ended.stderr
    return folder, ended


def test_the_report_names_the_files_that_are_there(done: tuple[Path, "subprocess.CompletedProcess[str]"]) -> None:
    out = done[0] / "out"
    report = json.loads((out / "report.json").read_text("utf-8"))
    named = {*report["pet_files"], *(companion["file"] for companion in report["companions"])}
    folders = ("pet", "seg", "sr", "key", "ko")
    there = {str(file.relative_to(out)) for folder in folders for file in (out / folder).iterdir()}
    assert named == there


def test_the_twin_lists_every_series_that_was_made(done: tuple[Path, "subprocess.CompletedProcess[str]"]) -> None:
    bundle = json.loads((done[0] / "out" / "twin.json").read_text("utf-8"))
    (study,) = [entry["resource"] for entry in bundle["entry"] if entry["resource"]["resourceType"] == "ImagingStudy"]
    assert sorted(series["modality"]["code"] for series in study["series"]) == ["CT", "KO", "OT", "PT", "SEG", "SR"]


def test_the_pets_files_sort_by_slice(done: tuple[Path, "subprocess.CompletedProcess[str]"]) -> None:
    slices = [pydicom.dcmread(file, stop_before_pixels=True) for file in sorted((done[0] / "out" / "pet").iterdir())]
    heights = [float(header.ImagePositionPatient[2]) for header in slices]
    assert len(heights) > 10
    assert heights in (sorted(heights), sorted(heights, reverse=True))


def test_nothing_but_the_stages_comes_between(done: tuple[Path, "subprocess.CompletedProcess[str]"]) -> None:
    lines = done[1].stderr.splitlines()
    assert len(lines) >= 5
    assert [line for line in lines if not line.endswith(" ...")] == []


def test_the_printed_command_shows_the_record(done: tuple[Path, "subprocess.CompletedProcess[str]"]) -> None:
    folder, ended = done
    (line,) = [line for line in ended.stdout.splitlines() if "twin show" in line]
    words = shlex.split(line[line.index("twin-scanner twin show") :])
    timeline = run(folder, *words[1:])
    assert timeline.returncode == 0 and "SYNTHETIC" in timeline.stdout, timeline.stderr
    shown = run(folder, *words[1:], "--bundle")
    assert shown.returncode == 0, shown.stderr
    assert json.loads(shown.stdout) == json.loads((folder / "out" / "twin.json").read_text("utf-8"))


def test_a_second_demonstration_takes_the_firsts_place_and_a_folder_with_other_things_stays(
    done: tuple[Path, "subprocess.CompletedProcess[str]"], tmp_path: Path
) -> None:
    from twin_scanner.demo import RESULTS

    assert {entry.name for entry in (done[0] / "out").iterdir()} == set(RESULTS)
    (tmp_path / "letter.txt").write_text("mine")
    refused = run(tmp_path, "demo", "--out", str(tmp_path))
    assert refused.returncode == 1
    assert "letter.txt" in refused.stderr and (tmp_path / "letter.txt").read_text() == "mine"
