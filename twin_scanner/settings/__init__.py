"""The configuration, one file per group of sections; every public name is imported from here."""

from twin_scanner.settings.configuration import (
    ENVIRONMENT_PREFIX,
    MACHINE_CONFIGURATION,
    Settings,
    configuration_file,
    load_settings,
)
from twin_scanner.settings.console import AuditSection, ConsoleSection, OidcSection
from twin_scanner.settings.destinations import DestinationSection
from twin_scanner.settings.dicom import NodeSection, ReadingSection, ScannerSection, SelectionSection
from twin_scanner.settings.executor import ExecutorSection
from twin_scanner.settings.peers import PacsSection, PeerSection, TlsSection
from twin_scanner.settings.service import LedgerSection, LimitsSection, LogSection, RetrainSection, RetrySection
from twin_scanner.settings.storage import Folders, StorageSection
from twin_scanner.settings.synthesis import DistrictsSection, ModelSection, OutputsSection, PetSection
from twin_scanner.settings.twin import TwinSection

__all__ = [
    "ENVIRONMENT_PREFIX",
    "MACHINE_CONFIGURATION",
    "AuditSection",
    "ConsoleSection",
    "DestinationSection",
    "DistrictsSection",
    "ExecutorSection",
    "Folders",
    "LedgerSection",
    "LimitsSection",
    "LogSection",
    "ModelSection",
    "NodeSection",
    "OidcSection",
    "OutputsSection",
    "PacsSection",
    "PeerSection",
    "PetSection",
    "ReadingSection",
    "RetrainSection",
    "RetrySection",
    "ScannerSection",
    "SelectionSection",
    "Settings",
    "StorageSection",
    "TlsSection",
    "TwinSection",
    "configuration_file",
    "load_settings",
]
