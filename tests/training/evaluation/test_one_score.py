"""A synthetic PET is scored in one place: nowhere else in training is an absolute difference of images taken."""

import ast
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

ALLOWED = {
    "evaluation/metrics.py:mae": "the metric itself",
    "evaluation/calibration.py:error": "how far each voxel lies off, the score of conformal prediction; not averaged",
    "fit/losses.py:l1_distance": "the loss itself, over a mask; a gradient passes through it",
    "data/dicom_pairing.py:_check_tracer": "how far a half-life is off",
    "evaluation/seam.py:_jumps": "steps between neighbours of one image",
    "evaluation/window_edges.py:_steps": "steps between neighbours of one image",
}
METRICS = {"mae", "psnr", "nrmse", "mean_ratio", "similarity", "ms_ssim"}
SCORED_IN = {"evaluation/metrics.py", "evaluation/score.py"}


def absolute_differences(tree: ast.AST) -> list[tuple[str, int]]:
    """Where abs(a - b) or (a - b).abs() is taken, by any name: the function and the line."""
    found = []
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef):
            continue
        for node in ast.walk(function):
            if isinstance(node, ast.Call) and _name(node.func) in {"abs", "absolute", "fabs"}:
                taken = node.args[0] if node.args else getattr(node.func, "value", None)
                if isinstance(taken, ast.BinOp) and isinstance(taken.op, ast.Sub):
                    found.append((function.name, node.lineno))
    return found


def calls(tree: ast.AST) -> set[str]:
    return {_name(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}


def _name(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def test_only_the_score_takes_absolute_differences_and_calls_the_metrics(project: Path) -> None:
    second: list[str] = []
    seen: set[str] = set()
    for path in sorted((project / "training").rglob("*.py")):
        where, tree = path.relative_to(project / "training").as_posix(), ast.parse(path.read_text("utf-8"))
        if where.startswith("phantom/"):
            continue
        for function, line in absolute_differences(tree):
            seen.add(f"{where}:{function}")
            if f"{where}:{function}" not in ALLOWED:
                second.append(f"{where}:{line} {function}")
        if where not in SCORED_IN and calls(tree) & METRICS:
            second.append(f"{where} calls {calls(tree) & METRICS}")
    assert second == [], "ask training.evaluation.score for rows"
    assert seen == ALLOWED.keys(), "an exception that is no longer needed goes"


def test_all_four_callers_ask_the_score(project: Path) -> None:
    for caller in (
        "evaluation/evaluate.py", "evaluation/calibrate.py", "fit/validation.py", "retraining/gate_scores.py",
    ):  # fmt: skip
        assert "score" in calls(ast.parse((project / "training" / caller).read_text("utf-8"))), caller


@pytest.mark.parametrize("loop", ["np.abs(made - real).mean()", "abs(a[m] - b[m]).sum()", "(a - b).abs().mean()"])
def test_the_rule_finds_a_second_loop(loop: str) -> None:
    assert absolute_differences(ast.parse(f"def error(real, made):\n    return {loop}\n")) == [("error", 2)]
