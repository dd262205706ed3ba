"""A photo's file reduced to what its pixels need, before any decoder sees it.

Metadata is where hostile files hide their weight (millions of comments, tables without end, other files behind
the end), and a decoder's own readers of metadata are where it goes wrong. Only the orientation is read, here,
within bounds. It knows nothing of pixels, sizes or models, and accepts nothing: a decoder decides what is a photo.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

# Cameras write tens of segments; a PNG of the largest accepted file has about 8,000 chunks of the usual 8 KiB.
PARTS_LIMIT = 20_000
EXIF_ENTRIES_LIMIT = 1_000
ORIENTATION_TAG, SHORT_TYPE = 0x0112, 3

_JPEG, _PNG = b"\xff\xd8", b"\x89PNG\r\n\x1a\n"
# A marker is never followed by 00 (stuffing) or FF (filling); restarts (D0-D7) and TEM (01) have no segment.
_MARKER = re.compile(rb"\xff[^\x00\x01\xff\xd0-\xd7]")
_START, _END, _SCAN, _EXIF_SEGMENT = 0xD8, 0xD9, 0xDA, 0xE1
# Frames, Huffman and arithmetic tables (C0-CF), quantisation, restart interval; JFIF and Adobe tell the colour space.
_JPEG_KEPT = frozenset({*range(0xC0, 0xD0), _SCAN, 0xDB, 0xDC, 0xDD, 0xE0, 0xEE})
_PNG_KEPT = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND"})
_WEBP_KEPT = frozenset({b"VP8X", b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF"})
_WEBP_METADATA_FLAGS = 0x20 | 0x08 | 0x04  # ICC profile, EXIF, XMP
_XMP_ORIENTATION = re.compile(rb'tiff:Orientation(?:="|>)([1-8])')


@dataclass(frozen=True, slots=True)
class BareFile:
    """The parts of a photo's file that make its pixels.

    `orientation` is EXIF's (1 to 8; 1 where nothing is said). `scans` counts the passes over the pixels.
    """

    content: bytes
    orientation: int = 1
    scans: int = 1


def bare_file(content: bytes) -> BareFile:
    """Drop all metadata and whatever follows the end of the photo; bytes of another format come back as they are.

    Raises ValueError when the file is cut short inside a part, or has more parts than a photo can have.
    """
    if content.startswith(_JPEG):
        return _bare_jpeg(content)
    if content.startswith(_PNG):
        return _bare_png(content)
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return _bare_webp(content)
    return BareFile(content)


def exif_orientation(exif: bytes) -> int:
    """EXIF's orientation (tag 274 of the first directory; Exif 2.32, 4.6.4); 1 when missing or broken."""
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    try:
        if order is None:
            return 1
        (start,) = struct.unpack_from(f"{order}I", exif, 4)
        (entries,) = struct.unpack_from(f"{order}H", exif, start)
        for place in range(min(entries, EXIF_ENTRIES_LIMIT)):
            tag, kind, _, value = struct.unpack_from(f"{order}HHIH", exif, start + 2 + 12 * place)
            if tag == ORIENTATION_TAG:
                return int(value) if kind == SHORT_TYPE and 1 <= value <= 8 else 1
    except struct.error:
        return 1
    return 1


def _orientation(exif: bytes, xmp: bytes) -> int:
    """EXIF's word first; XMP's where EXIF says nothing else than upright."""
    said = exif_orientation(exif.removeprefix(b"Exif\0\0"))
    found = _XMP_ORIENTATION.search(xmp) if said == 1 else None
    return int(found[1]) if found else said


def _bare_jpeg(content: bytes) -> BareFile:
    kept, exif, xmp, scans, place = [_JPEG], b"", b"", 0, 2
    for _ in range(PARTS_LIMIT):
        found = _MARKER.search(content, place)
        if found is None or found[0][1] == _END:
            return BareFile(b"".join([*kept, b"\xff\xd9"] if found else kept), _orientation(exif, xmp), scans)
        start, marker = found.start(), found[0][1]
        (length,) = struct.unpack(">H", content[start + 2 : start + 4].rjust(2, b"\0"))
        place = start + 2 + length
        if length < 2 or place > len(content) or marker == _START:
            raise ValueError("a segment is cut short, or a second file begins inside the first")
        segment = content[start + 4 : place]
        if marker == _EXIF_SEGMENT and segment.startswith(b"Exif\0\0") and not exif:
            exif = segment
        elif marker == _EXIF_SEGMENT and not xmp:
            xmp = segment
        if marker in _JPEG_KEPT:
            kept.append(content[start:place])
        if marker == _SCAN:
            scans += 1
            after = _MARKER.search(content, place)
            end = after.start() if after else len(content)
            kept.append(content[place:end])
            place = end
    raise ValueError(f"more than {PARTS_LIMIT} segments")


def _bare_png(content: bytes) -> BareFile:
    kept, exif, place = [_PNG], b"", len(_PNG)
    for _ in range(PARTS_LIMIT):
        if place == len(content):
            break
        header = content[place : place + 8]
        if len(header) < 8:
            raise ValueError("a chunk is cut short")
        length, kind = struct.unpack(">I4s", header)
        end = place + 12 + length
        if end > len(content) or (kind == b"IHDR" and len(kept) > 1):
            raise ValueError("a chunk is cut short, or a second header begins inside the photo")
        if kind == b"eXIf":
            exif = exif or content[place + 8 : end - 4]
        if kind in _PNG_KEPT:
            kept.append(content[place:end])
        place = end
        if kind == b"IEND":
            break
    else:
        raise ValueError(f"more than {PARTS_LIMIT} chunks")
    return BareFile(b"".join(kept), _orientation(exif, b""))


def _bare_webp(content: bytes) -> BareFile:
    (size,) = struct.unpack_from("<I", content, 4)
    last, place = min(len(content), 8 + size), 12
    kept: list[bytes] = []
    exif, xmp, frames = b"", b"", 0
    for _ in range(PARTS_LIMIT):
        if place + 8 > last:
            break
        kind, length = struct.unpack_from("<4sI", content, place)
        data = content[place + 8 : min(place + 8 + length, last)]
        if len(data) < length:
            raise ValueError("a chunk is cut short")
        place += 8 + length + length % 2
        exif = exif or (data if kind == b"EXIF" else b"")
        xmp = xmp or (data if kind == b"XMP " else b"")
        frames += kind == b"ANMF"
        if kind not in _WEBP_KEPT or (kind == b"ANMF" and frames > 1):
            continue
        if kind == b"VP8X":
            data = bytes([data[0] & ~_WEBP_METADATA_FLAGS & 0xFF]) + data[1:] if data else data
        kept.append(struct.pack("<4sI", kind, length) + data + b"\0" * (length % 2))
    else:
        raise ValueError(f"more than {PARTS_LIMIT} chunks")
    body = b"WEBP" + b"".join(kept)
    return BareFile(b"RIFF" + struct.pack("<I", len(body)) + body, _orientation(exif, xmp))
