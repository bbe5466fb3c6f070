"""``python -m benchmarks.page [NAME...] --out PAGE``: runs the benchmarks one by one, and writes their page.

Each one's figures are kept beside it in a folder when it ends, so a run that was interrupted goes on where it stood.
"""

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Final

import typer

from benchmarks.__main__ import NAMES
from benchmarks.causes import cause_of
from benchmarks.figures import Figure
from benchmarks.quick import words_of

KEPT: Final = Path(".bench")
PACKAGES: Final = ("twin-scanner", "torch", "monai", "numpy", "pydicom", "pynetdicom", "highdicom", "sqlalchemy")
BAR: Final = "\\|"
"""A bar in a cell of a table."""
NO_CAUSE: Final = "not known"
HEAD: Final = """# Performance

`make bench` writes this page: every benchmark, one after the other, each with its peers in the same run. A ratio above
1 says that we are ahead of the peer or of the goal; what falls short names its likely cause, which no experiment has
isolated unless it says so. A figure without a goal has the ratio 1.

`make bench QUICK=1` has fewer repetitions and smaller sizes, and ends within 40 minutes on 2 idle cores; each part of
the page says how it was measured. `CT=FOLDER` measures on that CT series too.

"""
Run = Callable[[str], str]


def main(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help=f"Of {', '.join(NAMES)}.")] = None,
    out: Annotated[Path, typer.Option("--out", help="The page that is written.", dir_okay=False)] = Path(
        "docs/performance.md"
    ),
    again: Annotated[bool, typer.Option("--again", help="Also measure what was measured before.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="In the quick settings: all in 40 minutes.")] = False,
    ct: Annotated[
        Path | None, typer.Option("--ct", help="A folder with a CT series, for those that take one.", file_okay=False)
    ] = None,
) -> None:
    """Measure NAME (default: all) where that was not done yet, and write the page of all that was measured.

    What was measured in its quick setting counts as measured for a quick run alone.
    """
    chosen = names or list(NAMES)
    if unknown := sorted(set(chosen) - set(NAMES)):
        raise typer.BadParameter(f"there is no benchmark {', '.join(unknown)}: choose of {', '.join(NAMES)}.")
    measure = partial(run, quick=quick, ct=ct)
    failed = [name for name in chosen if not measured(name, KEPT, measure, again=again, quick=quick)]
    out.write_text(page(KEPT), encoding="utf-8")
    print(f"{out}" + (f"; not measured: {', '.join(failed)}" if failed else ""))
    raise typer.Exit(1 if failed else 0)


def run(name: str, *, quick: bool = False, ct: Path | None = None) -> str:
    """The figures of one benchmark, as lines of JSON; raises CalledProcessError where it failed."""
    options = [*(["--quick"] if quick else []), *([] if ct is None else ["--ct", str(ct)])]
    command = [sys.executable, "-m", "benchmarks", name, "--json", *options]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


def measured(name: str, kept: Path, run: Run, *, again: bool = False, quick: bool = False) -> bool:
    """Whether the benchmark's figures are kept, after a run where they were not."""
    file, setting = kept / f"{name}.json", words_of(name, quick=quick)
    if file.exists() and not again and _setting(file) in ("", setting):
        return True
    begun_s = time.monotonic()
    try:
        lines = run(name).splitlines()
    except subprocess.CalledProcessError as error:
        print(f"{name} ended with {error.returncode}", file=sys.stderr)
        return False
    kept.mkdir(exist_ok=True)
    found = {
        "machine": machine(),
        "versions": versions(),
        "setting": setting,
        "minutes": round((time.monotonic() - begun_s) / 60, 1),
        "figures": [json.loads(line) for line in lines],
    }
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps(found, indent=1), encoding="utf-8")
    partial.replace(file)
    return True


def page(kept: Path) -> str:
    """The page of all figures that are kept, in the order of the names."""
    results = {name: json.loads((kept / f"{name}.json").read_text("utf-8")) for name in NAMES if _is_kept(kept, name)}
    text = HEAD
    for name, found in results.items():
        figures = [Figure(**values) for values in found["figures"]]
        how = f"Quick setting: {found['setting']}. " if found.get("setting") else ""
        text += f"## {name}\n\n{how}{found.get('minutes', 0):g} minutes. {found['machine']}; {found['versions']}.\n\n"
        text += (
            "\n".join(_table(figures)) + "\n\n" if figures else "Not measured: this machine has not what it needs.\n\n"
        )
    missing = [name for name in NAMES if name not in results]
    return text + (f"Not measured: {', '.join(missing)}.\n" if missing else "")


def _setting(file: Path) -> str:
    """In which setting the kept figures were measured; empty for the full one."""
    return str(json.loads(file.read_text("utf-8")).get("setting", ""))


def _is_kept(kept: Path, name: str) -> bool:
    return (kept / f"{name}.json").exists()


def _table(figures: Sequence[Figure]) -> Iterator[str]:
    yield "| figure | value | peer | peer's value | ratio | likely cause, where it falls short |"
    yield "|---|---|---|---|---|---|"
    for f in figures:
        short = f.ratio < 1
        cause = (cause_of(f.name, f.figure) or NO_CAUSE) if short else ""
        ratio = f"{f.ratio:.2f}" + (" behind" if short else "")
        values = (f.figure, f"{f.value:,.3g} {f.unit}", f.peer, f"{f.peer_value:,.3g} {f.unit}", ratio, cause)
        yield f"| {' | '.join(value.strip().replace('|', BAR) for value in values)} |"


def machine() -> str:
    """The processor's name and how many cores there are: of the machine nothing else is said."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.machine()
    return f"{name}, {os.cpu_count()} cores"


def versions() -> str:
    """Of Python and of what the figures depend on."""
    return f"Python {platform.python_version()}, " + ", ".join(f"{name} {version(name)}" for name in PACKAGES)


if __name__ == "__main__":
    typer.run(main)
