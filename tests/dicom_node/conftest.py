"""Nodes of ours and an Orthanc, started for a test and stopped after it."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dicom_node.spool import Spool
from tests.peers.orthanc import Orthanc
from tests.samples.loopback_node import DEADLINE_S, Node, Start, start_node


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts nodes, and stops them."""
    nodes: list[Node] = []

    def begin(**options: Any) -> Node:
        spool = options.pop("spool", None) or Spool(tmp_path / f"spool{len(nodes)}")
        nodes.append(start_node(spool, **options))
        return nodes[-1]

    yield begin
    for node in nodes:
        node.listener.stop(DEADLINE_S)


@pytest.fixture
def orthanc(peer: Callable[[str], str], tmp_path: Path, free_port: Callable[[], int]) -> Iterator[Orthanc]:
    with Orthanc(tmp_path / "orthanc", free_port(), free_port(), program=peer("Orthanc")) as running:
        yield running
