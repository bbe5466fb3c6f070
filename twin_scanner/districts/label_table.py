"""What the numbers of a foreign label map mean: a table from its values or segments to our labels, read from TOML."""

import json
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, TypeAlias

from pydicom.sr.coding import Code

from twin_scanner.errors import Rejected
from twin_scanner.imaging.district_labels import DISTRICT_NAMES, LARGEST_LABEL
from twin_scanner.imaging.volume import LARGEST_LABEL_VALUE

Source: TypeAlias = int | str
"""A value of a NIfTI label map or a segment number of a DICOM SEG; or a SegmentLabel, in lower case."""

LONGEST_NAME: Final = 64
"""Names become SegmentLabel, a LO (PS3.5 6.2)."""
KEYS: Final = ("rest", "ignore", "ignore_unlisted", "labels")
LABEL_KEYS: Final = ("label", "from", "segments", "code")
CODE_KEYS: Final = ("scheme", "value", "meaning")


@dataclass(frozen=True)
class LabelTable:
    """Our labels (1 to LARGEST_LABEL) with their names, and which source becomes which of them.

    A source that leads to 0 is left unlabelled, as are those that stand nowhere where ``ignore_unlisted`` is set;
    without it they are refused. ``rest`` is the label of what is unlabelled inside the body; None: the nearest one's.
    ``codes`` are the DICOM concepts of the labels, by name. Raises Rejected where these do not fit together.
    """

    names: Mapping[int, str]
    sources: Mapping[Source, int]
    rest: int | None = None
    codes: Mapping[str, Code] = field(default_factory=dict)
    ignore_unlisted: bool = False

    def __post_init__(self) -> None:
        wrong = [f"{label} ({name})" for label, name in self.names.items() if not _is_whole(label, LARGEST_LABEL)]
        faults = [f"label {label} is not from 1 to {LARGEST_LABEL}" for label in wrong]
        nameless = [(source, label) for source, label in self.sources.items() if label not in {0, *self.names}]
        faults += [f"source {source!r} leads to label {label}, which has no name" for source, label in nameless]
        if not any(self.sources.values()):
            faults.append("no source leads to a label")
        if self.rest is not None and self.rest not in self.names:
            faults.append(f"rest is label {self.rest}, which has no name")
        if faults:
            raise Rejected(f"The label table is impossible: {'; '.join(faults)}.")

    def of_value(self, value: int) -> int | None:
        """Our label for a value of a NIfTI label map; 0 leaves it unlabelled, None says that it may not be there."""
        return 0 if value == 0 else self._of(value)

    def of_segment(self, number: int, segment_label: str) -> int | None:
        """Our label for a segment: by its SegmentLabel where the table lists any of those, else by its number.

        Numbers say little: programs number anew the segments that are present.
        """
        return self._of(segment_label.strip().casefold() if self.by_segment_label else number)

    @property
    def by_segment_label(self) -> bool:
        """Whether the SegmentLabel decides what a segment of a DICOM SEG is."""
        return any(isinstance(source, str) for source in self.sources)

    def as_json(self) -> str:
        """All that decides the labels and how they are named in DICOM, as canonical JSON."""
        content = {
            "names": sorted(self.names.items()),
            "sources": sorted([str(source), isinstance(source, str), label] for source, label in self.sources.items()),
            "rest": self.rest,
            "ignore_unlisted": self.ignore_unlisted,
            "codes": sorted([name, c.scheme_designator, c.value, c.meaning] for name, c in self.codes.items()),
        }
        return json.dumps(content, sort_keys=True)

    def _of(self, source: Source) -> int | None:
        return self.sources.get(source, 0 if self.ignore_unlisted else None)


def label_table(choice: str) -> LabelTable:
    """A ready table by its name, or one from a TOML file; raises Rejected for neither and for a faulty file."""
    if choice in READY_TABLES:
        return READY_TABLES[choice]
    if not Path(choice).is_file():
        names = " or ".join(f"'{name}'" for name in READY_TABLES)
        raise Rejected(f"There is no label table {choice}: give a TOML file, or {names}.")
    return read_label_table(Path(choice))


def read_label_table(path: Path) -> LabelTable:
    """A LabelTable from a TOML file; raises Rejected with every fault of the file in one sentence.

    ``[labels.NAME]`` holds ``label``, our number; ``from``, the values or segment numbers that become it;
    ``segments``, the SegmentLabels that do; ``code``, its DICOM concept (scheme, value, meaning). At the top stand
    ``rest``, one of the names; ``ignore``, sources that mean nothing; ``ignore_unlisted``, true where all others do.
    """
    content = _content(path)
    labels = content.get("labels")
    entries = dict(labels) if isinstance(labels, dict) else {}
    faults = [*_top_faults(content, entries), *(f for n, e in entries.items() for f in _label_faults(n, e))]
    sound = {name: entry for name, entry in entries.items() if isinstance(entry, dict)}
    faults += _repeated("label", [e["label"] for e in sound.values() if _is_whole(e.get("label"), LARGEST_LABEL)])
    faults += _repeated("source", [*_ignored(content), *(s for e in sound.values() for s in _sources(e))])
    if faults:
        raise Rejected(f"{path.name} is no label table: {'; '.join(faults)}.")
    sources = dict.fromkeys(_ignored(content), 0)
    sources.update({source: entry["label"] for entry in sound.values() for source in _sources(entry)})
    return LabelTable(
        names=MappingProxyType({entry["label"]: name for name, entry in sound.items()}),
        sources=MappingProxyType(sources),
        rest=sound[content["rest"]]["label"] if "rest" in content else None,
        codes=MappingProxyType({name: _code(entry["code"]) for name, entry in sound.items() if "code" in entry}),
        ignore_unlisted=content.get("ignore_unlisted", False),
    )


def _content(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise Rejected(f"The label table {path} cannot be read: give a TOML file in UTF-8.") from error
    except tomllib.TOMLDecodeError as error:
        raise Rejected(f"{path.name} is not TOML: {error}.") from error


def _top_faults(content: Mapping[str, Any], entries: Mapping[str, Any]) -> Iterator[str]:
    yield from _unknown("", content, KEYS)
    if not entries:
        yield "[labels] is missing or empty"
    elif not any(_sources(entry) for entry in entries.values() if isinstance(entry, dict)):
        yield "no label has a source, so give one 'from' or 'segments'"
    if "rest" in content and content["rest"] not in list(entries):
        yield f"rest is {content['rest']!r}, which is none of the labels"
    if not isinstance(content.get("ignore_unlisted", False), bool):
        yield "ignore_unlisted is true or false"
    if not _is_list_of(content.get("ignore", []), _is_source):
        yield f"ignore is a list of values from 1 to {LARGEST_LABEL_VALUE} and of SegmentLabels"


def _label_faults(name: str, entry: object) -> Iterator[str]:
    where = f"labels.{name}"
    if not 0 < len(name.strip()) <= LONGEST_NAME or not name.isprintable() or "\\" in name:
        yield f"{where} has a name that is empty, longer than {LONGEST_NAME} characters, or no plain text"
    if not isinstance(entry, dict):
        yield f"{where} is no table with a label"
        return
    yield from _unknown(f"{where}.", entry, LABEL_KEYS)
    if not _is_whole(entry.get("label"), LARGEST_LABEL):
        yield f"{where}.label is a whole number from 1 to {LARGEST_LABEL}"
    if not _is_list_of(entry.get("from", []), lambda value: _is_whole(value, LARGEST_LABEL_VALUE)):
        yield f"{where}.from is a list of whole numbers from 1 to {LARGEST_LABEL_VALUE}"
    if not _is_list_of(entry.get("segments", []), _is_text):
        yield f"{where}.segments is a list of SegmentLabels"
    code = entry.get("code", dict.fromkeys(CODE_KEYS, "-"))
    if not isinstance(code, dict) or set(code) != set(CODE_KEYS) or not all(_is_text(v) for v in code.values()):
        yield f"{where}.code is a table of the texts {', '.join(CODE_KEYS)}"


def _unknown(where: str, values: Mapping[str, Any], keys: Sequence[str]) -> Iterator[str]:
    return (f"{where}{key} is unknown (known are {', '.join(keys)})" for key in values if key not in keys)


def _repeated(what: str, values: Sequence[object]) -> list[str]:
    return [f"{what} {value!r} stands {n} times" for value, n in Counter(values).items() if n > 1]


def _sources(entry: Mapping[str, Any]) -> list[Source]:
    """The well-formed sources of one label."""
    numbers, segments = entry.get("from", []), entry.get("segments", [])
    values = [*(numbers if isinstance(numbers, list) else []), *(segments if isinstance(segments, list) else [])]
    return [_source(value) for value in values if _is_source(value)]


def _ignored(content: Mapping[str, Any]) -> list[Source]:
    values = content.get("ignore", [])
    return [_source(value) for value in values if _is_source(value)] if isinstance(values, list) else []


def _source(value: Source) -> Source:
    return value.strip().casefold() if isinstance(value, str) else value


def _is_source(value: object) -> bool:
    return _is_whole(value, LARGEST_LABEL_VALUE) or _is_text(value)


def _is_whole(value: object, largest: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= largest


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_list_of(value: object, fits: Callable[[object], bool]) -> bool:
    return isinstance(value, list) and all(fits(item) for item in value)


def _code(values: Mapping[str, str]) -> Code:
    return Code(values["value"], values["scheme"], values["meaning"])


DISTRICTS_TABLE: Final = LabelTable(
    DISTRICT_NAMES, MappingProxyType({1: 1, 2: 2, 3: 3, 4: 4, "head": 1, "trunk": 2, "arms": 3, "legs": 4})
)
"""The districts as they are, and as our own DICOM SEG names them."""
MOOSE_TABLE: Final = LabelTable(
    DISTRICT_NAMES, MappingProxyType({3: 1, 2: 2, 4: 3, 1: 4, "head": 1, "body": 2, "arms": 3, "legs": 4})
)
"""MOOSE's clin_ct_body (1 legs, 2 body, 3 head, 4 arms) in the paper's order."""
READY_TABLES: Final = MappingProxyType({"districts": DISTRICTS_TABLE, "moose": MOOSE_TABLE})
