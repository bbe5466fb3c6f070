"""Whether a JPEG or JPEG 2000 stream is sound enough for codecs that end the process on some that are not."""

import struct
from collections.abc import Iterator
from typing import Final

_SOI: Final = 0xD8
_EOI: Final = 0xD9
_SOS: Final = 0xDA
_DHT: Final = 0xC4
_APP0: Final = 0xE0
_FRAMES: Final = frozenset({0xC0, 0xC1, 0xC3})
"""SOF of baseline, extended sequential and lossless Huffman coding: the processes 1, 2 & 4, and 14."""
_BESIDES: Final = frozenset({0xDB, 0xDD, 0xFE, *range(0xE0, 0xF0)})
"""Quantisation tables, restart interval, comments and application segments."""
_RESTARTS: Final = frozenset(range(0xD0, 0xD8))
_LOSSLESS: Final = 0xC3
_SOC_SIZ: Final = bytes((0xFF, 0x4F, 0xFF, 0x51))
_SIZ_END: Final = 42
"""SOC, SIZ, its length and capabilities, eight sizes of four bytes, the number of components."""
_MOST_TILES: Final = 4096
"""64 x 64 tiles of the smallest usual size would be an image of 8192 x 8192."""


class UnsoundJpeg(ValueError):
    """The stream breaks the syntax, or is not the picture that its DICOM header describes."""


def check_jpeg(stream: bytes, rows: int, columns: int) -> None:
    """Raise UnsoundJpeg unless ``stream`` is one grey picture of this size with proper markers and tables."""
    frame_kind = 0
    segments = list(_segments(stream))
    for marker, body, _ in segments:
        if marker in _FRAMES:
            frame_kind = _check_frame(marker, body, rows, columns, frame_kind)
        elif marker == _DHT:
            _check_tables(body)
        elif marker == _SOS:
            _check_scan(body, frame_kind)
        elif marker == _APP0:
            _check_jfif(body)
        elif marker not in _BESIDES:
            raise UnsoundJpeg(f"marker {marker:02X}")
    if all(marker != _DHT for marker, _, _ in segments):
        raise UnsoundJpeg("no Huffman table")
    _check_entropy_coded(stream[segments[-1][2] :])


def check_jpeg2000(stream: bytes, rows: int, columns: int) -> None:
    """Raise UnsoundJpeg where a JPEG 2000 codestream claims another size than the image (ISO/IEC 15444-1 A.5.1, SIZ).

    OpenJPEG believes what the stream claims: a damaged size makes it take memory and time without bound.
    """
    if stream[:4] != _SOC_SIZ or len(stream) < _SIZ_END:
        raise UnsoundJpeg("no size at the start of the codestream")
    width, height, left, top, tile_width, tile_height, tile_left, tile_top = struct.unpack(">8I", stream[8:40])
    (components,) = struct.unpack(">H", stream[40:42])
    if (width - left, height - top, components) != (columns, rows, 1):
        raise UnsoundJpeg("another size than the image")
    if not (tile_width > 0 and tile_height > 0 and tile_left <= left and tile_top <= top):
        raise UnsoundJpeg("impossible tiles")
    if (width // tile_width + 1) * (height // tile_height + 1) > _MOST_TILES:
        raise UnsoundJpeg("more tiles than an image has")


def _segments(stream: bytes) -> Iterator[tuple[int, bytes, int]]:
    """(marker, body, end) of every segment up to the start of the scan."""
    if stream[:2] != bytes((0xFF, _SOI)):
        raise UnsoundJpeg("no start of image")
    place, marker = 2, 0
    while marker != _SOS:
        while stream[place : place + 2] == b"\xff\xff":
            place += 1
        if len(stream) < place + 4 or stream[place] != 0xFF:
            raise UnsoundJpeg("no marker where one belongs")
        marker = stream[place + 1]
        (length,) = struct.unpack_from(">H", stream, place + 2)
        end = place + 2 + length
        if length < 2 or end > len(stream):
            raise UnsoundJpeg("a segment longer than the stream")
        yield marker, stream[place + 4 : end], end
        place = end


def _check_jfif(body: bytes) -> None:
    """GDCM throws, past Python, at a JFIF segment of another version than 1 or an unknown unit of density."""
    if body.startswith(b"JFIF\x00") and (len(body) < 12 or body[5] != 1 or body[7] > 2):
        raise UnsoundJpeg("a JFIF segment of no known version")


def _check_frame(marker: int, body: bytes, rows: int, columns: int, earlier: int) -> int:
    if earlier or len(body) != 9:
        raise UnsoundJpeg("not one frame of one component")
    precision, height, width, components = struct.unpack_from(">BHHB", body)
    sampling, _ = body[7], body[8]
    low, high = (2, 16) if marker == _LOSSLESS else (8, 12)
    if (height, width, components) != (rows, columns, 1) or not low <= precision <= high or sampling != 0x11:
        raise UnsoundJpeg("another picture than the header's")
    return marker


def _check_tables(body: bytes) -> None:
    """Each Huffman table: its class and number, codes that fit into their lengths (Annex C), its values."""
    while body:
        if len(body) < 17 or body[0] >> 4 > 1 or body[0] & 0xF > 3:
            raise UnsoundJpeg("a Huffman table of no kind")
        counts = body[1:17]
        free = 1
        for count in counts:
            free = 2 * free - count
            if free < 0:
                raise UnsoundJpeg("a Huffman table with more codes than there are")
        values = body[17 : 17 + sum(counts)]
        if not values or len(values) != sum(counts) or len(set(values)) != len(values):
            raise UnsoundJpeg("a Huffman table without its values")
        body = body[17 + len(values) :]


def _check_scan(body: bytes, frame_kind: int) -> None:
    if not frame_kind or len(body) != 6 or body[0] != 1:
        raise UnsoundJpeg("not one scan of one component")
    start, end, transform = body[3], body[4], body[5]
    lossless = frame_kind == _LOSSLESS
    sound = 1 <= start <= 7 and end == 0 and transform < 16 if lossless else (start, end, transform) == (0, 63, 0)
    if not sound:
        raise UnsoundJpeg("a scan of impossible parameters")


def _check_entropy_coded(data: bytes) -> None:
    """No marker in the coded pixels but restarts, and the end of the image after them, with padding at most."""
    place = data.find(b"\xff")
    while place >= 0:
        following = data[place + 1 : place + 2]
        if following == bytes((_EOI,)):
            if data[place + 2 :].strip(b"\x00\xff"):
                raise UnsoundJpeg("more after the end of the image")
            return
        if following not in (b"\x00", b"\xff") and not (following and following[0] in _RESTARTS):
            raise UnsoundJpeg("a marker in the coded pixels")
        place = data.find(b"\xff", place + 1)
    raise UnsoundJpeg("no end of image")
