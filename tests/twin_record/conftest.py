"""The servers that the record is tested on, each started once a session, and the rig on each of them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import missing
from tests.peers.fhir_server import running_server, server_folder
from tests.peers.sekmet_server import peers_folder, running_sekmet
from tests.peers.twin_rig import Rig, server_rig, store_rig


@pytest.fixture(scope="session")
def r4_url() -> Iterator[str]:
    """Medplum's router: not atomic, lenient, in memory."""
    if server_folder() is None:
        missing("the R4 server (tests/peers/fhir-r4-server/node_modules)")
    with running_server() as url:
        yield url


@pytest.fixture(scope="session")
def sekmet_url() -> Iterator[str]:
    """sekmet-fhir: as shipped: atomic and strict, and it cannot search for a List."""
    if peers_folder() is None:
        missing("sekmet-fhir (tests/peers/sekmet/install.sh)")
    with running_sekmet() as url:
        yield url


@pytest.fixture(scope="session")
def r4_rig(r4_url: str) -> Iterator[Rig]:
    """One client of Medplum's router for all tests: reading the authorities that it trusts takes half a second."""
    rig = server_rig(r4_url)
    yield rig
    rig.target.close()


@pytest.fixture(scope="session")
def sekmet_rig(sekmet_url: str) -> Iterator[Rig]:
    """One client of sekmet-fhir for all tests."""
    rig = server_rig(sekmet_url)
    yield rig
    rig.target.close()


@pytest.fixture
def embedded_rig(tmp_path: Path) -> Iterator[Rig]:
    """A fresh embedded store."""
    rig = store_rig(tmp_path)
    yield rig
    rig.target.close()


SEKMET = pytest.param("sekmet_rig", id="sekmet", marks=pytest.mark.long)
"""The second server repeats what the first has shown: for the long run."""


@pytest.fixture(
    params=[pytest.param("r4_rig", id="R4 server"), SEKMET, pytest.param("embedded_rig", id="embedded store")]
)
def rig(request: pytest.FixtureRequest) -> Rig:
    """Each behaviour is asked of all targets."""
    found: Rig = request.getfixturevalue(request.param)
    return found
