"""Everything that the scanner needs is looked at, one file per check, before a patient is there.

Nothing is changed: no migration is run, nothing is stored at the PACS, and the twin is only read.
"""

from collections.abc import Callable

from twin_scanner.doctor.clock import check_clock
from twin_scanner.doctor.destinations import check_destinations
from twin_scanner.doctor.device import check_device
from twin_scanner.doctor.executor import check_executor
from twin_scanner.doctor.finding import Check, Finding, findings_of
from twin_scanner.doctor.identity import check_identity_systems
from twin_scanner.doctor.ledger import check_ledger
from twin_scanner.doctor.memory import check_memory
from twin_scanner.doctor.model import check_model
from twin_scanner.doctor.peers import check_peers
from twin_scanner.doctor.port import check_port
from twin_scanner.doctor.segmenters import check_segmenters
from twin_scanner.doctor.storage import check_storage
from twin_scanner.doctor.tls import check_tls
from twin_scanner.doctor.twin import check_twin
from twin_scanner.settings import Settings


def examine(settings: Settings, on_finding: Callable[[Finding], None] = lambda _: None) -> list[Finding]:
    """Look at everything the scanner needs; each finding is also given to ``on_finding`` as soon as it is there.

    Takes no longer than each peer's timeout_s, twin.timeout_s and the association's own limits allow. No finding
    holds a secret or anything of a patient.
    """
    checks: tuple[tuple[str, Check], ...] = (
        ("storage folder", check_storage),
        ("ledger", check_ledger),
        ("model", check_model),
        ("device", check_device),
        ("memory", check_memory),
        ("clock", check_clock),
        ("segmenter", check_segmenters),
        ("executor", check_executor),
        ("TLS", check_tls),
        ("peers", check_peers),
        ("destinations", check_destinations),
        ("listening port", check_port),
        ("twin record", check_twin),
        ("patient identity", check_identity_systems),
    )
    findings = []
    for name, check in checks:
        for finding in findings_of(name, check, settings):
            on_finding(finding)
            findings.append(finding)
    return findings
