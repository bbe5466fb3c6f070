"""Retraining: when it ran, the curves of its runs, and what the gate decided on which numbers."""

import json
from pathlib import Path
from typing import Any, Final

from fastapi import APIRouter, Depends, Request, Response

from twin_scanner.console.access.roles import Role, needs
from twin_scanner.console.frame import Frame
from twin_scanner.console.site import Site

SHOWN: Final = 20
CURVE: Final = "curve.jsonl"
"""What training writes for each step: the network, the step, and each loss."""
WIDTH, HEIGHT = 600, 200
POINTS: Final = 300
"""More points than that are thinned out: nobody sees more."""


def router(site: Site, frame: Frame) -> APIRouter:
    """``/retraining``."""
    routes = APIRouter(dependencies=[Depends(needs(Role.VIEWER))], tags=["models"])

    @routes.get("/retraining", include_in_schema=False)
    def retraining(request: Request) -> Response:
        content = {
            "runs": site.ledger.runs.newest("retrain", SHOWN),
            "decisions": _decisions(site.models.folder / "decisions"),
            "curves": _curves(site.training_folder()),
            "size": (WIDTH, HEIGHT),
        }
        return frame(request, "retraining.html", content)

    return routes


def _decisions(folder: Path) -> list[dict[str, Any]]:
    """The gate's records, newest first."""
    files = sorted(folder.glob("*.json"), reverse=True)[:SHOWN]
    return [json.loads(file.read_bytes()) for file in files]


def _curves(folder: Path | None) -> list[dict[str, Any]]:
    """One chart per run and network."""
    if folder is None:
        return []
    files = sorted(folder.glob(f"*/{CURVE}"), key=lambda file: file.stat().st_mtime, reverse=True)
    return [chart for file in files[:SHOWN] for chart in _charts(file)]


def _charts(file: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in file.read_text("utf-8").splitlines() if line.endswith("}")]
    charts = []
    for network in dict.fromkeys(row["network"] for row in rows):
        mine = [row for row in rows if row["network"] == network]
        names = [name for name in mine[0] if name not in ("network", "step") and _is_number(mine[0][name])]
        lines = [
            {"name": name, **_line([(r["step"], r[name]) for r in mine if _is_number(r.get(name))])} for name in names
        ]
        charts.append({"run": file.parent.name, "network": network, "steps": mine[-1]["step"], "lines": lines})
    return charts


def _line(points: list[tuple[int, float]]) -> dict[str, Any]:
    """A polyline over the whole chart, each loss in its own range, which is said beside it."""
    points = points[:: max(1, len(points) // POINTS)]
    low, high = min(y for _, y in points), max(y for _, y in points)
    first, last = points[0][0], points[-1][0]
    across, up = max(last - first, 1), (high - low) or 1.0
    place = [f"{(x - first) / across * WIDTH:.1f},{HEIGHT - (y - low) / up * HEIGHT:.1f}" for x, y in points]
    return {"points": " ".join(place), "low": low, "high": high, "last": points[-1][1]}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
