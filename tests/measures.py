"""A gate on the code's shape: function lengths, annotations, broad excepts, file names."""

import ast
import sys
from pathlib import Path

ROOMS = ("twin_scanner", "training", "dicom_node", "fhir")
LONGEST_LINES = 80
P90_LINES = 40
BROAD_EXCEPTS = 1
NAMES_THAT_SAY_NOTHING = {"utils", "util", "helpers", "helper", "common", "misc", "manager"}
MARKS = ("TO" + "DO", "FIX" + "ME", "X" + "XX")


def measure(root: Path) -> list[str]:
    """Every fault of the tree below ``root``, one sentence each."""
    lengths: list[tuple[int, str]] = []
    broad: list[str] = []
    faults: list[str] = []
    for path in sorted(p for room in ROOMS for p in (root / room).rglob("*.py")):
        text = path.read_text("utf-8")
        where = path.relative_to(root).as_posix()
        if path.stem in NAMES_THAT_SAY_NOTHING:
            faults.append(f"{where}: the file's name says nothing")
        faults += [f"{where}: '{mark}' is left behind" for mark in MARKS if mark in text]
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lengths.append(((node.end_lineno or 0) - node.lineno + 1, f"{where}:{node.lineno} {node.name}"))
                faults += _unannotated(node, where)
            elif isinstance(node, ast.ExceptHandler) and _is_broad(node):
                broad.append(f"{where}:{node.lineno}")
    if len(broad) > BROAD_EXCEPTS:
        faults.append(f"{len(broad)} broad excepts, {BROAD_EXCEPTS} allowed: {', '.join(broad)}")
    return faults + _long(lengths)


def _unannotated(node: ast.FunctionDef | ast.AsyncFunctionDef, where: str) -> list[str]:
    arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    bare = [a.arg for a in arguments if a.annotation is None and a.arg not in {"self", "cls"}]
    missing = bare + (["return"] if node.returns is None else [])
    return [f"{where}:{node.lineno} {node.name}: no annotation for {', '.join(missing)}"] if missing else []


def _is_broad(node: ast.ExceptHandler) -> bool:
    named = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
    return any(name is None or getattr(name, "id", "") in {"Exception", "BaseException"} for name in named)


def _long(lengths: list[tuple[int, str]]) -> list[str]:
    sizes = sorted(size for size, _ in lengths)
    p90 = sizes[int(0.9 * (len(sizes) - 1))]
    print(f"{len(sizes)} functions, p90 {p90} lines (hold {P90_LINES}), longest {sizes[-1]} (hold {LONGEST_LINES})")
    faults = [f"{where}: {size} lines" for size, where in lengths if size > LONGEST_LINES]
    return faults + ([f"p90 of the functions is {p90} lines, {P90_LINES} allowed"] if p90 > P90_LINES else [])


if __name__ == "__main__":
    found = measure(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent.parent)
    print("\n".join(found))
    sys.exit(1 if found else 0)
