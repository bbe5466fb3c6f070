"""What every test may ask for: real images, real peers, free ports."""

import os
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.peers.postgresql import PostgreSQL

# Several tests run at a time on few cores: threads of PyTorch, BLAS and ITK would only wait for each other. Programs
# that the tests start inherit it; it stands here because it must be set before any of the three is imported.
for variable in ("OMP_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"):
    os.environ.setdefault(variable, "1")

ROOT = Path(__file__).resolve().parent.parent
PEERS_REQUIRED = os.environ.get("REQUIRE_PEERS") == "1"


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


@pytest.fixture
def free_port() -> Callable[[], int]:
    """A TCP port on loopback that was free a moment ago."""

    def find() -> int:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return int(probe.getsockname()[1])

    return find
