"""The ledger: its database opens and is at this version's migration."""

from collections.abc import Iterator

from twin_scanner.doctor.finding import Finding
from twin_scanner.service.ledger import migration_state
from twin_scanner.settings import Settings


def check_ledger(settings: Settings) -> Iterator[Finding]:
    """The database's migration is compared with ours, not run: the service may be at work with it."""
    state = migration_state(settings.ledger_url)
    if state is None:
        yield Finding("ledger", "ok", "The ledger's file is not there yet and is created at the first start.")
    elif state.found == state.wanted:
        yield Finding("ledger", "ok", f"The ledger opens and is at migration {state.found}.")
    elif state.found is None:
        yield Finding("ledger", "ok", "The ledger's database is empty and gets its tables at the first start.")
    elif state.found in state.known:
        fact = f"The ledger is at migration {state.found} and this version needs {state.wanted}"
        yield Finding("ledger", "warning", f"{fact}: back it up, the next start migrates it.")
    else:
        fact = f"The ledger is at migration {state.found}, which this version does not know"
        yield Finding("ledger", "fault", f"{fact}: install the newer twin-scanner that wrote it.")
