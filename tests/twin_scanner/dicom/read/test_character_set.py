"""Oracles: the encoded examples printed in PS3.5 Annexes H, I, J and K, Python's own codecs, and what DICOM forbids."""

import pytest

from twin_scanner.dicom.read.character_set import NAME_DELIMITERS, TEXT_DELIMITERS, decode

pytestmark = pytest.mark.unit

YAMADA = bytes.fromhex(
    "59616d6164615e5461726f753d1b24423b3345441b28425e"
    "1b244242404f3a1b28423d1b24422464245e24401b28425e1b2442243f246d24261b2842"
)
YAMADA_KATAKANA = bytes.fromhex(
    "d4cfc0de5ec0dbb33d1b24423b3345441b284a5e1b244242404f3a1b284a3d1b24422464245e24401b284a5e1b2442243f246d24261b284a"
)
HONG = bytes.fromhex(
    "486f6e675e47696c646f6e673d1b242943fbf35e1b242943d1ced4d73d1b242943c8ab5e1b242943b1e6b5bf",
)
ZHANG = bytes.fromhex("5a68616e675e5869616f446f6e673d1b242941d5c55e1b242941d0a1b6ab3d20")
ANNEX_EXAMPLES = {
    "H.3-1": (YAMADA, ["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
    "H.3-2": (YAMADA_KATAKANA, ["ISO 2022 IR 13", "ISO 2022 IR 87"], "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう"),
    "I.2-1": (HONG, ["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동"),
    "J.1": (b"Wang^XiaoDong=\xe7\x8e\x8b^\xe5\xb0\x8f\xe6\x9d\xb1=", ["ISO_IR 192"], "Wang^XiaoDong=王^小東="),
    "J.3": (b"Wang^XiaoDong=\xcd\xf5^\xd0\xa1\xb6\xab=", ["GB18030"], "Wang^XiaoDong=王^小东="),
    "J.3 as GBK": (b"Wang^XiaoDong=\xcd\xf5^\xd0\xa1\xb6\xab=", ["GBK"], "Wang^XiaoDong=王^小东="),
    "K.2-1": (ZHANG, ["", "ISO 2022 IR 58"], "Zhang^XiaoDong=张^小东= "),
}


@pytest.mark.parametrize("example", ANNEX_EXAMPLES)
def test_the_examples_of_the_standard_are_read_as_printed_there(example: str) -> None:
    encoded, terms, name = ANNEX_EXAMPLES[example]
    assert decode(encoded, terms, NAME_DELIMITERS) == name


@pytest.mark.parametrize(
    ("term", "codec", "text"),
    [
        ("ISO_IR 100", "latin-1", "Müller^Jérôme"),
        ("ISO_IR 101", "iso8859_2", "Wałęsa^Łukasz"),
        ("ISO_IR 109", "iso8859_3", "Ċetta^Ġorġ"),
        ("ISO_IR 110", "iso8859_4", "Bērziņš^Jānis"),
        ("ISO_IR 126", "iso8859_7", "Διονυσιος"),
        ("ISO_IR 127", "iso8859_6", "قباني^لنزار"),
        ("ISO_IR 138", "iso8859_8", "שרון^דבורה"),
        ("ISO_IR 144", "iso8859_5", "Люкcемборг"),
        ("ISO_IR 148", "iso8859_9", "Çavuşoğlu^Işıl"),
        ("ISO_IR 166", "tis_620", "นามสกุล^ชื่อ"),
        ("ISO_IR 203", "iso8859_15", "Škoda^Œuf"),
    ],
)
def test_a_single_byte_set_reads_what_its_iso_codec_wrote(term: str, codec: str, text: str) -> None:
    assert decode(text.encode(codec), [term], NAME_DELIMITERS) == text


def test_kanji_whose_bytes_look_like_delimiters_stay_in_one_piece() -> None:
    """秋 is 3D 29 and 申 is 3F 3D in JIS X 0208 (3D is =); 誠 ends in 5C (a backslash) in GB18030."""
    japanese = b"Akita^Shin=" + "秋田".encode("iso2022_jp") + b"^" + "申".encode("iso2022_jp")
    assert decode(japanese, ["", "ISO 2022 IR 87"], NAME_DELIMITERS) == "Akita^Shin=秋田^申"
    assert "誠".encode("gb18030").endswith(b"\\")
    assert decode("王^誠".encode("gb18030"), ["GB18030"], NAME_DELIMITERS) == "王^誠"


def test_a_delimiter_brings_back_the_first_character_set() -> None:
    """PS3.5 6.1.2.5.3: after ^ the set of value 1 is active; Latin-1 follows Cyrillic without another escape."""
    encoded = b"\x1b-L" + "Иванов".encode("iso8859_5") + b"^" + "Jérôme".encode("latin-1")
    assert decode(encoded, ["ISO 2022 IR 100", "ISO 2022 IR 144"], NAME_DELIMITERS) == "Иванов^Jérôme"


def test_korean_without_a_second_escape_after_the_delimiter_is_still_korean() -> None:
    """Writers forget it; where value 1 is ASCII nothing else can be meant."""
    encoded = b"\x1b$)C" + "김".encode("euc_kr") + b"^" + "희중".encode("euc_kr")
    assert decode(encoded, ["", "ISO 2022 IR 149"], NAME_DELIMITERS) == "김^희중"


def test_an_equals_sign_is_a_delimiter_in_names_only() -> None:
    encoded = b"\x1b-L" + "а=б".encode("iso8859_5")
    assert decode(encoded, ["ISO 2022 IR 100", "ISO 2022 IR 144"], TEXT_DELIMITERS) == "а=б"


def test_jis_x_0212_and_katakana_share_a_value_with_kanji() -> None:
    encoded = b"\xd4\xcf\x1b$(D" + "丂".encode("iso2022_jp_2")[4:-3] + b"\x1b$B;3\x1b(J\xc0"
    assert decode(encoded, ["ISO 2022 IR 13", "ISO 2022 IR 87", "ISO 2022 IR 159"]) == "ﾔﾏ丂山ﾀ"


@pytest.mark.parametrize("term", ["ISO IR 100", "ISO-IR 100", "ISO_2022_IR_100", "ISO 2022 IR 100", " ISO_IR 100 "])
def test_a_misspelt_separator_does_not_change_the_set(term: str) -> None:
    assert decode(b"J\xe9r\xf4me", [term]) == "Jérôme"


@pytest.mark.parametrize(
    ("encoded", "terms"),
    [
        (b"J\xe9r\xf4me", []),
        (b"J\xe9r\xf4me", [""]),
        (b"J\xe9r\xf4me", ["ISO_IR 6"]),
        (b"J\xe9r\xf4me", ["ISO_IR 192"]),
        (b"J\xe9r\xf4me", ["LATIN 1"]),
        (b"\xe7\x8e\x8b", ["ISO_IR 100"]),
        ("Škoda".encode("cp1252"), ["ISO_IR 100"]),
        ("山田".encode("shift_jis"), ["ISO_IR 13"]),
        (b"\x1b$B;3\x1b(B", ["ISO_IR 192"]),
        (b"\x1b$B;\x1b(B", ["", "ISO 2022 IR 87"]),
        (b"\x1b%Gabc", ["", "ISO 2022 IR 87"]),
        (b"\xb1", ["", "ISO 2022 IR 149"]),
        (b"\xa1", ["ISO_IR 127"]),
    ],
    ids=["absent", "empty", "ascii", "utf8", "unknown", "utf8-as-latin", "cp1252", "sjis", "escape", "half",
         "utf8-escape", "no-escape", "hole"],
)  # fmt: skip
def test_bytes_outside_the_declared_sets_are_refused_not_guessed(encoded: bytes, terms: list[str]) -> None:
    with pytest.raises(UnicodeError):
        decode(encoded, terms)


def test_ascii_is_read_under_every_term_even_an_unknown_one() -> None:
    assert decode(b"Doe^Jane", ["NO SUCH SET"]) == decode(b"Doe^Jane", []) == "Doe^Jane"
