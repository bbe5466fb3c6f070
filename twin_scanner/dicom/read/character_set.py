"""Bytes of a DICOM string to Unicode by Specific Character Set (PS3.3 C.12.1.1.2, PS3.5 6.1.2).

pydicom decodes most of it, but replaces what it cannot decode, takes an unknown set for Latin-1, and keeps a
character set beyond the delimiter that ends it. A patient's name must be right or refused.
"""

import re
from collections.abc import Sequence
from typing import Final

TEXT_DELIMITERS: Final = b"\\\r\n\f\t"
"""Each ends a code extension: the set of value 1 is active again (PS3.5 6.1.2.5.3)."""
NAME_DELIMITERS: Final = TEXT_DELIMITERS + b"^="

_STAND_ALONE: Final = {"ISO_IR 192": "utf-8", "GB18030": "gb18030", "GBK": "gbk"}
_LATIN: Final = {
    100: "iso8859_1",
    101: "iso8859_2",
    109: "iso8859_3",
    110: "iso8859_4",
    126: "iso8859_7",
    127: "iso8859_6",
    138: "iso8859_8",
    144: "iso8859_5",
    148: "iso8859_9",
    166: "iso8859_11",
    203: "iso8859_15",
}
_INITIAL: Final[dict[int, tuple[str, str]]] = {
    **{number: ("ascii", codec) for number, codec in _LATIN.items()},
    6: ("ascii", ""),
    13: ("jis_x_0201", "katakana"),
    58: ("ascii", "gb2312"),
    87: ("ascii", ""),
    149: ("ascii", "euc_kr"),
    159: ("ascii", ""),
}
"""ISO registration number -> what value 1 puts into G0 (bytes below 0x80) and G1 (above): PS3.3 Tables C.12-2 to -4."""
_ESCAPES: Final[dict[bytes, tuple[int, str]]] = {
    b"\x1b(B": (0, "ascii"),
    b"\x1b(J": (0, "jis_x_0201"),
    b"\x1b$B": (0, "jis_x_0208"),
    b"\x1b$(D": (0, "jis_x_0212"),
    b"\x1b)I": (1, "katakana"),
    b"\x1b$)C": (1, "euc_kr"),
    b"\x1b$)A": (1, "gb2312"),
    **{
        b"\x1b-" + final: (1, codec)
        for final, codec in zip(
            (b"A", b"B", b"C", b"D", b"F", b"G", b"H", b"L", b"M", b"T", b"b"), _LATIN.values(), strict=True
        )
    },
}
"""Escape sequence -> the code element (G0 or G1) and what it puts there: PS3.3 Tables C.12-3 and C.12-4."""
_TWO_BYTES_IN_G0: Final = {"jis_x_0208": (b"\x1b$B", "iso2022_jp"), "jis_x_0212": (b"\x1b$(D", "iso2022_jp_2")}
_TOKEN: Final = re.compile(
    rb"\x1b\$[()][@-~]|\x1b\$[@-~]|\x1b[()\-][@-~]|[\x80-\xff]+|[\x00-\x1a\x1c-\x7f]+|\x1b", re.DOTALL
)
_SPELLING: Final = re.compile(r"ISO[ _-](?:2022[ _-])?IR[ _-](\d+)")
_C1_CONTROL: Final = re.compile("[\x80-\x9f]")


def decode(value: bytes, terms: Sequence[str], delimiters: bytes = TEXT_DELIMITERS) -> str:
    """The text of ``value`` under the values of Specific Character Set (none: ASCII).

    Several values stay joined by a backslash. ``delimiters``: NAME_DELIMITERS for a person's name. An escape sequence
    names its own set, so one that was not declared is read all the same. Raises UnicodeError for anything that the
    sets do not define.
    """
    terms = [term.strip() for term in terms] or [""]
    if terms[0] in _STAND_ALONE:
        text = _without_escapes(value).decode(_STAND_ALONE[terms[0]])
    else:
        text = _decode_extended(value, initial_sets(terms[0]), delimiters)
    if _C1_CONTROL.search(text):
        raise UnicodeError("control characters in place of letters: the bytes belong to another character set")
    return text


def initial_sets(term: str) -> tuple[str, str]:
    """What the first value of Specific Character Set puts into G0 and G1; ASCII alone where the term is not known."""
    spelling = _SPELLING.fullmatch(term)
    return _INITIAL.get(int(spelling[1]), ("ascii", "")) if spelling else ("ascii", "")


def defines_more_than_ascii(terms: Sequence[str]) -> bool:
    """Whether a text that is not ASCII can have been encoded under these terms at all."""
    if any(term.strip() in _STAND_ALONE for term in terms[:1]):
        return True
    numbers = [int(match[1]) for term in terms if (match := _SPELLING.fullmatch(term.strip()))]
    return any(number in _INITIAL and number != 6 for number in numbers)


def _without_escapes(value: bytes) -> bytes:
    if b"\x1b" in value:
        raise UnicodeError("an escape sequence where the character set allows none")
    return value


def _decode_extended(value: bytes, initial: tuple[str, str], delimiters: bytes) -> str:
    sets = list(initial)
    text = []
    for match in _TOKEN.finditer(value):
        token = match[0]
        if token[0] == 0x1B:
            if token not in _ESCAPES:
                raise UnicodeError("an escape sequence that DICOM does not define")
            element, name = _ESCAPES[token]
            sets[element] = name
            continue
        text.append(_decode_run(token, sets[int(token[0] >= 0x80)]))
        if sets[0] not in _TWO_BYTES_IN_G0 and any(byte in delimiters for byte in token):
            sets = [initial[0], initial[1] or sets[1]]
    return "".join(text)


def _decode_run(run: bytes, name: str) -> str:
    """The text of bytes that lie all below or all above 0x80 in one character set."""
    if name in _TWO_BYTES_IN_G0:
        escape, codec = _TWO_BYTES_IN_G0[name]
        return (escape + run + b"\x1b(B").decode(codec)
    if name == "jis_x_0201":
        return run.decode("ascii").replace("~", "\u203e")
    if name == "katakana":
        if not all(0xA1 <= byte <= 0xDF for byte in run):
            raise UnicodeError("bytes outside JIS X 0201")
        return "".join(chr(0xFF61 + byte - 0xA1) for byte in run)
    if not name:
        raise UnicodeError("bytes above 0x7F where only ASCII is declared")
    return run.decode(name)
