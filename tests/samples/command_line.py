"""The command line as a process of its own, forked from one that has imported the program already."""

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

PRELOADED: Final = [
    "tests.samples.command_line",
    "twin_scanner.cli",
    "twin_scanner.app",
    "twin_scanner.render.render",
    "training.data.prepare",
    "training.evaluation.evaluate",
    "training.exchange.monai_bundle",
]
"""What most verbs import when they are called; that a verb imports too much is for test_start to find."""

FORKS: Final = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(PRELOADED)


def run(folder: Path, *words: str, timeout_s: float = 120) -> "subprocess.CompletedProcess[str]":
    """What `twin-scanner` with these words does in ``folder``: its exit code, stdout and stderr."""
    with TemporaryDirectory() as scratch:
        paths = Path(scratch, "stdout"), Path(scratch, "stderr")
        for path in paths:
            path.touch()
        process = FORKS.Process(target=_call, args=(folder, words, dict(os.environ), *paths))
        process.start()
        process.join(timeout_s)
        if process.exitcode is None:
            process.kill()
            raise subprocess.TimeoutExpired(list(words), timeout_s)
        return subprocess.CompletedProcess(list(words), process.exitcode, *(path.read_text() for path in paths))


def _call(folder: Path, words: tuple[str, ...], environment: dict[str, str], stdout: Path, stderr: Path) -> None:
    """The program's entry point where a shell would have started it."""
    for stream, path in ((1, stdout), (2, stderr)):
        os.dup2(os.open(path, os.O_WRONLY), stream)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["twin-scanner", *words]
    from twin_scanner.cli import main

    main()
