"""The models: which serves, their metrics, every change of champion, and promotion and rollback by hand."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Form, Request, Response
from fastapi.responses import RedirectResponse

from twin_scanner.console.access.roles import Role, needs
from twin_scanner.console.frame import Frame
from twin_scanner.console.site import Site
from twin_scanner.errors import TwinScannerError
from twin_scanner.models.card import read_card
from twin_scanner.models.store import PackageSummary

Reason = Annotated[str, Form(min_length=3, max_length=500)]

AgainstGate = Annotated[str, Form(max_length=500)]
"""Why the gate is passed over; empty where the gate decides."""


def router(site: Site, frame: Frame) -> APIRouter:
    """``/models``."""
    routes = APIRouter(dependencies=[Depends(needs(Role.VIEWER))], tags=["models"])
    admin = [Depends(needs(Role.ADMIN))]

    @routes.get("/models", include_in_schema=False)
    def models(request: Request) -> Response:
        rows = [_row(package) for package in site.models.list()]
        history = site.models.history()[::-1]
        content = {"rows": rows, "history": history, "can_roll_back": "previous" in site.models.aliases()}
        return frame(request, "models.html", content)

    @routes.post("/models/promote", dependencies=admin, include_in_schema=False)
    def promote(model_hash: Annotated[str, Form(pattern="^[0-9a-f]{64}$")], against_gate: AgainstGate = "") -> Response:
        asked = "promotion against the gate asked" if against_gate else "promotion asked"
        with _noted(site, model_hash, asked, "promoted", "promotion refused"):
            site.promote(model_hash, against_gate)
        return RedirectResponse("/models?said=promoted", 303)

    @routes.post("/models/rollback", dependencies=admin, include_in_schema=False)
    def rollback(reason: Reason) -> Response:
        previous = site.models.aliases().get("previous", "")
        with _noted(site, previous, "rollback asked", "rolled back", "rollback refused"):
            site.models.rollback(reason)
        return RedirectResponse("/models?said=rolled back", 303)

    return routes


@contextmanager
def _noted(site: Site, model_hash: str, asked: str, done: str, refused: str) -> Iterator[None]:
    """The audit has the change before it begins and what became of it; a wish without either was cut off by a crash."""
    site.ledger.saw("models", model_hash, asked)
    try:
        yield
    except TwinScannerError:
        site.ledger.saw("models", model_hash, refused)
        raise
    site.ledger.saw("models", model_hash, done)


def _row(package: PackageSummary) -> dict[str, Any]:
    card = read_card(package.folder)
    return {
        "package": package,
        "phantom_only": card.phantom_only,
        "data": {key: value for key, value in card.training_data.items() if key != "sha256"},
        "metrics": list(_flat(card.about.get("metrics") or {})),
    }


def _flat(values: Any, name: str = "") -> list[tuple[str, str]]:
    """A card's metrics, however deep they lie, as names and numbers."""
    if isinstance(values, dict):
        return [pair for key, value in values.items() for pair in _flat(value, f"{name} {key}".strip())]
    shown = f"{values:.4g}" if isinstance(values, float) else str(values)
    return [(name.replace("_", " "), shown)]
