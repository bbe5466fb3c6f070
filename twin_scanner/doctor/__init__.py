"""What `twin-scanner doctor` looks at, one file per check; no check knows the command line."""

from twin_scanner.doctor.examine import examine
from twin_scanner.doctor.finding import Check, Finding, FindingState, findings_of

__all__ = ["Check", "Finding", "FindingState", "examine", "findings_of"]
