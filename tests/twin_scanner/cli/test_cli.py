"""The command line's manners: exit codes, one sentence instead of a traceback, stdout for results alone."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.samples.cases import quick_and_long
from tests.samples.command_line import run
from tests.samples.saved_packages import saved_package
from twin_scanner.imaging.volume import Geometry, write_nifti

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (("translate", "nothing", "--out", "x"), 1, "nothing does not exist"),
        (("translate", ".", "--out", "x"), 1, "error: "),
        (("translate", "empty", "--out", "."), 1, "is not empty"),
        (("translate", "noise.nii.gz", "--out", "x"), 1, "error: "),
        (("segment", "noise.nii.gz", "--out", "x.png"), 1, "is no NIfTI name"),
        (("segment", "noise.nii.gz", "--out", "x.nii.gz", "--segmenter", "magic"), 1, "There is no segmenter 'magic'"),
        (("serve", "--config", "bad.toml"), 2, "node.prot"),
        (("serve", "--config", "none.toml"), 2, "cannot be read"),
        (("jobs", "show", "abc"), 1, "There is no ledger"),
        (("jobs", "list"), 1, "There is no ledger"),
        (("jobs", "retry"), 2, "give a job, or --all, or --reason"),
        (("jobs", "retry", "abc", "--all"), 2, "give a job, or --all, or --reason"),
        (("translate", "empty", "--out", "file/x"), 1, "file is no folder"),
        (("segment", "noise.nii.gz", "--out", "file/x.nii.gz"), 1, "file is no folder"),
        (("evaluate", "--model", "champion", "--dataset", "empty", "--out", "file/x"), 1, "file is no folder"),
        (("prepare", "empty", "--out", "file/x"), 1, "file is no folder"),
        (("prepare", "empty", "--out", "x", "--split", "file/x.json"), 1, "file is no folder"),
        (("phantom", "--count", "1", "--out", "file/x"), 1, "file is no folder"),
        (("demo", "--out", "file/x"), 1, "file is no folder"),
        (("models", "export", "champion", "--out", "file/x"), 1, "file is no folder"),
        (("serve", "--config", "file.toml"), 1, "file is no folder"),
        (("jobs", "list", "--state", "asleep"), 2, "choose one of"),
        (("models", "show", "nobody"), 1, "nobody"),
        (("twin", "show", "P1"), 1, "error: "),
        (("train", "none.toml"), 1, "none.toml"),
        (("retrain",), 1, "There is no retraining configuration"),
        (("retrain", "none.toml"), 1, "none.toml"),
        (("prepare", "nothing", "--out", "x"), 1, "nothing"),
        (("models", "promote", "nobody"), 1, "nobody"),
        (("models", "rollback", "by mistake"), 1, "error: "),
        (("models", "import", "empty"), 1, "error: "),
        (("models", "export", "champion", "--out", "empty"), 1, "error: "),
        (("phantom", "--out", "x"), 2, "--count"),
        (("frobnicate",), 2, "frobnicate"),
    ],
)
def test_a_users_mistake_is_one_sentence_and_the_right_exit_code(
    tmp_path: Path, words: tuple[str, ...], code: int, sentence: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.toml").write_text("[node]\nprot = 1\n")
    (tmp_path / "file").write_text("no folder")
    (tmp_path / "file.toml").write_text('[storage]\nfolder = "file/data"\n')
    noise = np.random.default_rng(1).normal(0, 1, (20, 20, 20)).astype(np.float32)
    write_nifti(tmp_path / "noise.nii.gz", noise, Geometry((20, 20, 20), (3.0, 3.0, 3.0), (0.0, 0.0, 0.0)))
    done = run(tmp_path, *words)
    assert done.returncode == code, done.stderr
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_lists_are_json_where_a_script_asks(tmp_path: Path) -> None:
    assert run(tmp_path, "ledger", "migrate").stdout.startswith("migration ")
    assert json.loads(run(tmp_path, "jobs", "list", "--json").stdout) == []
    (demonstration,) = json.loads(run(tmp_path, "models", "list", "--json").stdout)
    assert demonstration["aliases"] == ["champion"]


def test_the_demonstration_models_card_says_what_it_is_not(tmp_path: Path) -> None:
    card = json.loads(run(tmp_path, "models", "show", "champion").stdout)
    text = json.dumps(card).lower()
    assert "phantom" in text
    assert "not for clinical use" in text


@pytest.mark.parametrize("folder", ["head_gantry_tilt", "odd_files/series_notavolume_001"])
def test_a_real_series_that_is_no_regular_volume_is_refused_in_one_sentence(
    tmp_path: Path, shared_data: Path, folder: str
) -> None:
    done = run(tmp_path, "translate", str(shared_data / folder), "--out", "x")
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("layout", ["folder", "monai"])
def test_a_model_that_was_exported_is_imported_again_as_the_same(tmp_path: Path, layout: str) -> None:
    folder = saved_package(tmp_path / "small")
    imported = run(tmp_path, "models", "import", str(folder))
    assert imported.returncode == 0, imported.stderr
    done = run(tmp_path, "models", "export", "small", "--out", "exported", "--layout", layout)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "exported" / "configs" / "metadata.json").is_file() == (layout == "monai")
    done = run(tmp_path, "models", "import", "exported")
    assert done.returncode == 0, done.stderr
    assert done.stdout == imported.stdout


def test_a_model_with_context_is_exported_as_a_folder_and_refused_as_a_monai_bundle(tmp_path: Path) -> None:
    done = run(tmp_path, "models", "export", "champion", "--out", "bundle", "--layout", "monai")
    assert done.returncode == 1 and "export the folder layout" in done.stderr
    assert run(tmp_path, "models", "export", "champion", "--out", "bundle", "--layout", "folder").returncode == 0


def test_looking_for_jobs_in_a_wrong_folder_makes_nothing_there(tmp_path: Path) -> None:
    done = run(tmp_path, "jobs", "list")
    assert (done.returncode, done.stdout) == (1, "")
    assert list(tmp_path.iterdir()) == []


def test_the_configuration_is_the_environments_where_none_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bad.toml").write_text("[node]\nprot = 1\n")
    (tmp_path / "good.toml").write_text("")
    monkeypatch.setenv("TWIN_SCANNER_CONFIG", str(tmp_path / "bad.toml"))
    done = run(tmp_path, "models", "list")
    assert done.returncode == 2
    assert "unknown key node.prot: did you mean port?" in done.stderr
    assert run(tmp_path, "models", "list", "--config", "good.toml").returncode == 0


@pytest.mark.parametrize(
    ("words", "first", "code", "said"),
    quick_and_long(
        [
            (
                ("demo", "--out", "x"),
                "Generating a whole-body CT ...\n",
                130,
                "stopped: the next demonstration clears what is in x.\n",
            )
        ],
        [
            (
                ("phantom", "--count", "3", "--out", "x"),
                "Phantoms ...\n",
                1,
                "error: The phantoms were stopped: x holds 1 of 3 whole, with their table; give another folder to "
                "begin again.\n",
            )
        ],
    ),
)
def test_ctrl_c_says_what_is_kept(tmp_path: Path, words: tuple[str, ...], first: str, code: int, said: str) -> None:
    command = [sys.executable, "-m", "twin_scanner.cli", *words]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        # A test run in the background of a shell ignores Ctrl-C, and so would its children.
        process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    finally:
        signal.signal(signal.SIGINT, before)
    with process:
        assert process.stderr is not None
        assert process.stderr.readline() == first
        process.send_signal(signal.SIGINT)
        assert process.stderr.read() == said
    assert process.returncode == code
