"""Files in Deflated Explicit VR Little Endian (PS3.5 A.5), inflated no further than a bound.

pydicom inflates such a file at once and whole, also where only its header is asked for: 1.5 MB became 3.2 GB.
"""

import zlib
from typing import BinaryIO, Final

from pydicom.filereader import data_element_generator
from pydicom.tag import BaseTag
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

_START: Final = 132
"""Preamble and prefix (PS3.10 7.1)."""
_SYNTAX: Final = 0x00020010
_CHUNK_BYTES: Final = 1 << 16
_DEFLATED: Final = DeflatedExplicitVRLittleEndian.encode("ascii")
_PLAIN: Final = ExplicitVRLittleEndian.encode("ascii").ljust(len(_DEFLATED), b"\0")


def is_deflated(stream: BinaryIO) -> bool:
    """Whether the file's meta information names the deflated transfer syntax; the stream is left at its beginning."""
    try:
        return _syntax(stream) == _DEFLATED
    finally:
        stream.seek(0)


def inflated(stream: BinaryIO, most: int) -> tuple[bytes, bool]:
    """A deflated file as one in Explicit VR Little Endian, and whether that is all of it.

    At most ``most`` bytes of its data set are inflated. Raises EOFError where the deflated stream is cut short,
    zlib.error where it is damaged.
    """
    stream.seek(0)
    _syntax(stream)
    start = stream.tell()
    stream.seek(0)
    parts = [stream.read(start).replace(_DEFLATED, _PLAIN, 1)]
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    missing = most
    while missing and not unpacker.eof:
        packed = unpacker.unconsumed_tail or stream.read(_CHUNK_BYTES)
        parts.append(unpacker.decompress(packed, missing))
        if not packed and not parts[-1]:
            raise EOFError("the deflated data set is cut short")
        missing -= len(parts[-1])
    return b"".join(parts), unpacker.eof


def _syntax(stream: BinaryIO) -> bytes:
    """The transfer syntax of the meta information; the stream is left where the data set begins."""
    if stream.read(_START)[-4:] != b"DICM":
        return b""
    meta = data_element_generator(stream, is_implicit_VR=False, is_little_endian=True, stop_when=_is_beyond_meta)
    found = [bytes(element.value or b"") for element in meta if element.tag == _SYNTAX]
    return found[0].strip(b" \0") if found else b""


def _is_beyond_meta(tag: BaseTag, vr: str | None, length: int) -> bool:
    return tag >> 16 != 2
