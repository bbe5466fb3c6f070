"""Wires the console: settings in, served pages out; beside a running scanner, or from the ledger alone."""

import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, nullcontext
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from dicom_node.addresses import is_loopback
from dicom_node.associations import Timeouts
from dicom_node.client import echo
from dicom_node.peers import Peer
from twin_record.embedded import EmbeddedStore
from twin_record.target import TwinTarget
from twin_record.timeline import Timeline, timeline_of
from twin_record.update import TwinUpdate
from twin_scanner.app import open_stow, open_twin, peer_of
from twin_scanner.console import health, metrics
from twin_scanner.console.access.control import check_may_listen
from twin_scanner.console.access.guard import AccessRules
from twin_scanner.console.access.oidc import Provider
from twin_scanner.console.access.roles import Role
from twin_scanner.console.access.sessions import Lifetime
from twin_scanner.console.access.tokens import Machines, Purpose, read_tokens
from twin_scanner.console.application import create_application
from twin_scanner.console.serving import ConsoleServer, Listening
from twin_scanner.console.site import DestinationState, Site
from twin_scanner.errors import Misconfigured, Rejected, Transient
from twin_scanner.models.store import ModelStore
from twin_scanner.monitoring import health_of, monitored_of
from twin_scanner.service.ledger import KeptUpdate, Ledger
from twin_scanner.service.steps import TWIN
from twin_scanner.settings import DestinationSection, Folders, OidcSection, Settings

if TYPE_CHECKING:
    from twin_scanner.app import Scanner

PORT: Final = 8042
"""Where `twin-scanner console` serves the pages if the configuration names no port."""
ECHO_S: Final = 10.0
PROMOTION_S: Final = 300.0
"""How long the command that promotes a model may take: it loads PyTorch, which this process never does."""


@contextmanager
def serving(
    settings: Settings, config: Path | None, ledger: Ledger, scanner: "Scanner | None" = None
) -> Iterator[ConsoleServer]:
    """The console, served within a ``with`` block; ``scanner`` is the one that runs in this process.

    Raises Misconfigured where it would be open to others without TLS or login, Rejected where the port is not free.
    """
    with _made(settings, config, ledger, scanner) as server:
        server.start()
        yield server


def check_console(settings: Settings, config: Path | None, ledger: Ledger, scanner: "Scanner") -> None:
    """Raise what ``serving`` would raise, before the scanner starts: one that ends again is to have taken no CT."""
    if settings.console.port is not None:
        with _made(settings, config, ledger, scanner):
            pass


@contextmanager
def _made(
    settings: Settings, config: Path | None, ledger: Ledger, scanner: "Scanner | None"
) -> Iterator[ConsoleServer]:
    section = settings.console
    has_login = ledger.users.exist() or bool(settings.oidc.issuer)
    check_may_listen(section.host, has_tls=section.certificate is not None, has_login=has_login)
    port = PORT if section.port is None else section.port
    with ExitStack() as closing_last:
        twin = closing_last.enter_context(closing(open_twin(settings)))
        site = make_site(settings, config, ledger, scanner, twin)
        application = create_application(site, access_rules(settings))
        server = ConsoleServer(application, Listening(section.host, port, section.certificate, section.key))
        closing_last.callback(server.stop)
        yield server


def access_rules(settings: Settings) -> AccessRules:
    """Who may come in; raises Misconfigured where a file of theirs cannot be read."""
    section = settings.console
    return AccessRules(
        local_only=is_loopback(section.host),
        lifetime=Lifetime(timedelta(minutes=section.idle_minutes), timedelta(hours=section.session_hours)),
        machines=Machines(
            () if section.tokens_file is None else read_tokens(section.tokens_file),
            {Purpose.FHIR: section.fhir_addresses, Purpose.METRICS: section.metrics_addresses},
        ),
        provider=_provider(settings.oidc) if settings.oidc.issuer else None,
    )


def _provider(section: OidcSection) -> Provider:
    roles = dict.fromkeys(section.viewers, Role.VIEWER)
    roles |= dict.fromkeys(section.operators, Role.OPERATOR)
    roles |= dict.fromkeys(section.admins, Role.ADMIN)
    return Provider(
        section.issuer,
        section.client_id,
        section.redirect_uri,
        roles,
        client_secret=_secret(section.client_secret_file),
        roles_claim=section.roles_claim,
        name_claim=section.name_claim,
        scope=section.scope,
        ca_file=section.ca_file,
    )


def _secret(file: Path | None) -> str:
    try:
        return "" if file is None else file.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Misconfigured(f"oidc.client_secret_file {file} cannot be read: {type(error).__name__}.") from error


def make_site(
    settings: Settings,
    config: Path | None,
    ledger: Ledger,
    scanner: "Scanner | None" = None,
    twin: TwinTarget | None = None,
) -> Site:
    """What the pages need of this installation; without ``twin`` the record is opened whenever a page shows it."""
    return Site(
        name=settings.node.name,
        ledger=ledger,
        jobs_folder=Folders(settings.storage.folder.resolve()).jobs,
        models=ModelStore(settings.model_store),
        destinations=partial(_destinations, settings, scanner),
        echo=partial(_echo, settings),
        promote=partial(_promote, config),
        twin_of=partial(_twin_of, settings, twin),
        training_folder=partial(_training_folder, settings),
        operation=(
            health.router(health_of(settings, ledger, scanner)),
            metrics.router(monitored_of(settings, ledger, has_storage=scanner is not None)),
        ),
        records=twin if isinstance(twin, EmbeddedStore) else None,
    )


def _destinations(settings: Settings, scanner: "Scanner | None") -> list[DestinationState]:
    names = None if scanner is None else scanner.down
    found = []
    for section in settings.known_destinations:
        is_down = None if names is None else section.name in names
        address = _shown_url(section.url) or str(_peer(settings, section))
        found.append(
            DestinationState(section.name, address, section.confirm, section.required, is_down, not section.url)
        )
    record = _shown_url(settings.twin.url) or "the embedded store"
    is_down = None if names is None else TWIN in names
    found.append(DestinationState(TWIN, record, "FHIR transaction", True, is_down, takes_echo=False))
    return found


def _shown_url(url: str) -> str:
    """Without a name and a password, where somebody has put them into it."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _peer(settings: Settings, section: DestinationSection) -> Peer:
    return peer_of(settings, next(peer for peer in settings.known_peers if peer.name == section.peer))


def _echo(settings: Settings, name: str) -> None:
    section = next(one for one in settings.known_destinations if one.name == name)
    if section.url:
        with closing(open_stow(section)) as service:
            service.check()
        return
    echo(_peer(settings, section), settings.node.ae_title, Timeouts(connection_s=ECHO_S, response_s=ECHO_S))


def _promote(config: Path | None, model_hash: str, against_gate: str) -> None:
    """By our own verb, as a process of its own: what decides it needs PyTorch."""
    command = [sys.executable, "-m", "twin_scanner.cli", "models", "promote", model_hash]
    command += [f"--force={against_gate}"] if against_gate else []
    command += [] if config is None else ["--config", str(config.resolve())]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PROMOTION_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise Transient(
            f"The promotion took longer than {PROMOTION_S:g} s: look at the models, then repeat it."
        ) from error
    if done.returncode:
        raise Rejected(done.stderr.strip().removeprefix("error: ") or "The model could not be promoted.")


def _twin_of(settings: Settings, twin: TwinTarget | None, update: KeptUpdate) -> Timeline:
    """The record of the patient whom the update is about."""
    patient = TwinUpdate.from_json(update.document)
    with nullcontext(twin) if twin is not None else closing(open_twin(settings)) as target:
        return timeline_of(target.patient_record(patient.patient_id, patient.issuer_of_patient_id))


def _training_folder(settings: Settings) -> Path | None:
    """Where the runs of the configured retraining lie."""
    file = settings.retrain.config
    if file is None or not file.is_file():
        return None
    out = tomllib.loads(file.read_text("utf-8")).get("train", {}).get("out")
    return None if out is None else file.parent / out
