"""What every test may ask for: real images, real peers, free ports."""

import importlib.util
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from tests.peers import ports

if TYPE_CHECKING:
    from tests.peers.postgresql import PostgreSQL

# Several tests run at a time on few cores: threads of PyTorch, BLAS and ITK would only wait for each other. Programs
# that the tests start inherit it; it stands here because it must be set before any of the three is imported.
for variable in ("OMP_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"):
    os.environ.setdefault(variable, "1")

# The same examples on every machine, and none that fails because the machine has other work.
settings.register_profile("gate", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("gate")

ROOT = Path(__file__).resolve().parent.parent
PEERS_REQUIRED = os.environ.get("REQUIRE_PEERS") == "1"


SLOWEST_FIRST = tuple(
    ROOT / "tests" / name
    for name in ("system", "twin_scanner/districts/external", "twin_scanner/service/test_delivery_kills.py")
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that take minutes begin first: at the end one worker would run them while the others idle."""
    items.sort(key=lambda item: not any(item.path.is_relative_to(folder) for folder in SLOWEST_FIRST))


def missing(what: str) -> None:
    """Skip, or fail where the peers are promised (CI)."""
    if PEERS_REQUIRED:
        pytest.fail(f"{what} is missing although REQUIRE_PEERS=1")
    pytest.skip(f"{what} is not here")


@pytest.fixture(scope="session")
def project() -> Path:
    """The repository's root."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and reference tools, named by TWIN_SCANNER_SHARED."""
    folder = Path(os.environ.get("TWIN_SCANNER_SHARED", ROOT.parent / "shared"))
    if not folder.is_dir():
        missing("the folder of real images (TWIN_SCANNER_SHARED)")
    return folder.resolve()


@pytest.fixture(scope="session")
def shared_data(shared: Path) -> Path:
    """The real images."""
    return shared / "data"


@pytest.fixture(scope="session")
def peer() -> Callable[[str], str]:
    """The path of an installed program; skips without it."""

    def find(program: str) -> str:
        path = shutil.which(program) or shutil.which(program, path="/usr/sbin:/usr/local/sbin")
        if path is None:
            missing(program)
        assert path is not None
        return path

    return find


@pytest.fixture(scope="session")
def postgresql() -> Iterator["PostgreSQL"]:
    """A PostgreSQL server of the tests' own; skips without Debian's."""
    from tests.peers.postgresql import PostgreSQL, programs

    folder = programs()
    if folder is None:
        missing("PostgreSQL")
    assert folder is not None
    with PostgreSQL(folder) as running:
        yield running


@pytest.fixture(scope="session")
def dask() -> None:
    """The extra of that name; skips without it."""
    if importlib.util.find_spec("distributed") is None:
        missing("Dask (pip install -e '.[dask]')")


@pytest.fixture(scope="session")
def gpu() -> str:
    """The name of a GPU that PyTorch sees; a test that asks for it is marked ``gpu`` and skipped where none is."""
    import torch

    if not torch.cuda.is_available():
        pytest.skip("PyTorch sees no GPU on this machine")
    return "cuda"


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    """Finds a TCP port on loopback on which nothing listens."""
    return ports.free_port
