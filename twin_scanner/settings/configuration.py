"""The configuration as a whole: a TOML file, each key also an environment variable; all faults are found at once."""

import os
import tomllib
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from dicom_node.peers import Role
from twin_scanner.errors import Misconfigured
from twin_scanner.settings.console import AuditSection, ConsoleSection, OidcSection
from twin_scanner.settings.destinations import DestinationSection
from twin_scanner.settings.dicom import NodeSection, ReadingSection, ScannerSection, SelectionSection
from twin_scanner.settings.executor import ExecutorSection
from twin_scanner.settings.faults import fault_sentences, unknown_name
from twin_scanner.settings.peers import CALLING_ROLES, PACS, PacsSection, PeerSection, TlsSection
from twin_scanner.settings.service import LedgerSection, LimitsSection, LogSection, RetrainSection, RetrySection
from twin_scanner.settings.storage import Folders, StorageSection
from twin_scanner.settings.synthesis import DistrictsSection, ModelSection, OutputsSection, PetSection
from twin_scanner.settings.twin import TwinSection

ENVIRONMENT_PREFIX = "TWIN_SCANNER__"
MACHINE_CONFIGURATION = Path("/etc/twin-scanner/twin-scanner.toml")
"""Where a machine's configuration lies; the unit and the container keep theirs there."""


class Settings(BaseSettings):
    """Every key of the configuration; the environment wins over the file."""

    model_config = SettingsConfigDict(
        env_prefix=ENVIRONMENT_PREFIX,
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        nested_model_default_partial_update=True,
    )

    node: NodeSection = NodeSection()
    peers: tuple[PeerSection, ...] = ()
    pacs: PacsSection = PacsSection()
    destinations: tuple[DestinationSection, ...] = ()
    tls: TlsSection = TlsSection()
    storage: StorageSection = StorageSection()
    ledger: LedgerSection = LedgerSection()
    executor: ExecutorSection = ExecutorSection()
    limits: LimitsSection = LimitsSection()
    retry: RetrySection = RetrySection()
    model: ModelSection = ModelSection()
    districts: DistrictsSection = DistrictsSection()
    pet: PetSection = PetSection()
    outputs: OutputsSection = OutputsSection()
    twin: TwinSection = TwinSection()
    scanner: ScannerSection = ScannerSection()
    selection: SelectionSection = SelectionSection()
    reading: ReadingSection = ReadingSection()
    retrain: RetrainSection = RetrainSection()
    console: ConsoleSection = ConsoleSection()
    oidc: OidcSection = OidcSection()
    audit: AuditSection = AuditSection()
    log: LogSection = LogSection()

    @model_validator(mode="after")
    def _peers_fit_together(self) -> "Settings":
        names = [peer.name for peer in self.peers]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two [[peers]] are named '{twice[0]}': give each its own name")
        if PACS in names and "pacs" in self.model_fields_set:
            raise ValueError("[pacs] is short for the peer 'pacs', which [[peers]] names too: leave one of them out")
        for peer in self.peers:
            if peer.tls and self.tls.certificate is None:
                raise ValueError(
                    f"the peer '{peer.name}' has tls = true: name our certificate, key and ca_file in [tls]"
                )
            if peer.tls and not self.tls.listen_tls and CALLING_ROLES & set(peer.roles):
                said = f"the peer '{peer.name}' calls us by TLS alone"
                raise ValueError(f"{said}: set tls.listen_tls = true, or take 'send_ct' and 'commit' from its roles")
        return self

    @model_validator(mode="after")
    def _destinations_fit_together(self) -> "Settings":
        names = [destination.name for destination in self.known_destinations]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two destinations are named '{twice[0]}', [pacs] among them: give each its own name")
        if not any(destination.required for destination in self.known_destinations):
            raise ValueError("no destination is required: the twin record lists what a required one has confirmed")
        peers = {peer.name: peer for peer in self.known_peers}
        for destination in self.known_destinations:
            if destination.peer:
                _check_roles(destination, peers.get(destination.peer))
        return self

    @property
    def known_destinations(self) -> tuple[DestinationSection, ...]:
        """Where images go; the one that [pacs] is short for is the last, its defaults where there is no other."""
        if "pacs" in self.model_fields_set or not self.destinations:
            return (*self.destinations, self.pacs.as_destination())
        return self.destinations

    @property
    def known_peers(self) -> tuple[PeerSection, ...]:
        """Every peer; the one that [pacs] is short for is the last, its defaults where nothing names another PACS."""
        another = self.destinations or any(peer.name == PACS for peer in self.peers)
        if "pacs" in self.model_fields_set or not another:
            return (*self.peers, self.pacs.as_peer())
        return self.peers

    @property
    def ledger_url(self) -> str:
        """The database of the ledger: the configured one, else the storage folder's."""
        return self.ledger.url or Folders(self.storage.folder).ledger_url

    @property
    def model_store(self) -> Path:
        """The folder of the model packages: the configured one, else the storage folder's."""
        return self.model.store or Folders(self.storage.folder).models

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment first, then what the file holds; no .env file is ever read."""
        return env_settings, init_settings


def _check_roles(destination: DestinationSection, peer: PeerSection | None) -> None:
    """Raise ValueError where a destination's peer is not there, or cannot be what it is to be."""
    said = f"the destination '{destination.name}'"
    if peer is None:
        raise ValueError(f"{said} names the peer '{destination.peer}', which [[peers]] does not have")
    if not peer.host:
        raise ValueError(f"{said} needs a host of the peer '{peer.name}'")
    by_confirmation = {"query": Role.QUERY, "commitment": Role.COMMIT, "status": Role.TAKE_PET}
    for role in (Role.TAKE_PET, by_confirmation[destination.confirm]):
        if role not in peer.roles:
            raise ValueError(f"{said} needs the role '{role}' of the peer '{peer.name}'")


def configuration_file(given: Path | None, machine: Path = MACHINE_CONFIGURATION) -> Path | None:
    """The file that is read: the given one, else the machine's where it exists, else none."""
    if given is not None:
        return given
    try:
        return machine if machine.is_file() else None
    except PermissionError:
        # It is there, and reading it says in one sentence why its keys are not known.
        return machine


def load_settings(file: Path | None) -> Settings:
    """The validated configuration; raises Misconfigured with every fault, one on each line."""
    values = {} if file is None else _read(file)
    sections = sections_of(Settings)
    variables = _variables()
    faults = [
        unknown_name([section], sections, variable)
        for section, variable in sorted((key.split(".")[0], variable) for key, variable in variables.items())
        if section not in sections
    ]
    try:
        settings = Settings(**values)
    except ValidationError as error:
        faults += fault_sentences(error, sections, variables)
    if faults:
        which = "The configuration" if file is None else f"The configuration {file}"
        count = "a fault" if len(faults) == 1 else f"{len(faults)} faults"
        raise Misconfigured(f"{which} has {count}:\n" + "\n".join(f"  {fault}" for fault in faults))
    return settings


def sections_of(settings: type[BaseSettings]) -> dict[str, type[BaseModel]]:
    """The model of each section; of a list of tables, that of a table."""
    kinds: dict[str, Any] = {name: field.annotation for name, field in settings.model_fields.items()}
    return {name: get_args(kind)[0] if get_args(kind) else kind for name, kind in kinds.items()}


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text("utf-8"))
    except OSError as error:
        raise Misconfigured(f"The configuration {file} cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Misconfigured(f"The configuration {file} is not valid TOML: {error}.") from error


def _variables() -> dict[str, str]:
    """The environment's variables with our prefix, by the dotted key that each stands for."""
    names = (name for name in os.environ if name.upper().startswith(ENVIRONMENT_PREFIX))
    return {name[len(ENVIRONMENT_PREFIX) :].lower().replace("__", ".", 1): name for name in names}
