"""A generator of photo files that nobody should send: each breaks another assumption. Used by test_photo_store.

Every file is built from a few bytes of code, the same ones each time. Run as a program it cleans them all and
prints one line of JSON for each: what came of it, and by how many megabytes the process grew meanwhile.
"""

from __future__ import annotations

import io
import json
import random
import struct
import sys
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

PAYLOAD = b"<script>alert('nabz')</script>"
SIZE = (96, 64)
ORIENTATION_ENTRY = struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0)


@dataclass(frozen=True)
class Hostile:
    """One file: what is wrong with it, how it is called, its bytes, and bytes that must not survive cleaning."""

    kind: str
    name: str
    content: bytes
    payload: bytes = PAYLOAD


def base(mode: str = "RGB", size: tuple[int, int] = SIZE) -> Image.Image:
    """A small picture with some detail in it."""
    columns, rows = size
    y, x = np.mgrid[:rows, :columns]
    pixels = np.stack([(x * 5) % 256, (y * 7) % 256, (x * y) % 256], axis=2).astype(np.uint8)
    return Image.fromarray(pixels).convert(mode)


def encoded(kind: str = "JPEG", image: Image.Image | None = None, **options: object) -> bytes:
    """A well-formed file of that kind."""
    buffer = io.BytesIO()
    (image or base()).save(buffer, kind, **options)
    return buffer.getvalue()


def segment(marker: int, data: bytes) -> bytes:
    """A JPEG segment."""
    return bytes([0xFF, marker]) + struct.pack(">H", len(data) + 2) + data


def with_segments(*segments: bytes, jpeg: bytes = b"") -> bytes:
    """A JPEG with further segments at its start."""
    whole = jpeg or encoded()
    return whole[:2] + b"".join(segments) + whole[2:]


def chunk(kind: bytes, data: bytes) -> bytes:
    """A PNG chunk with its checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *chunks: bytes, depth: int = 8, colour: int = 2, interlace: int = 0) -> bytes:
    """A PNG of any header and any chunks."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(chunks) + chunk(b"IEND", b"")


def png_with(*chunks: bytes) -> bytes:
    """A well-formed PNG with further chunks behind its header."""
    whole = encoded("PNG")
    return whole[:33] + b"".join(chunks) + whole[33:]


def webp_with(*chunks: tuple[bytes, bytes], flags: int = 0) -> bytes:
    """A WebP in the extended format with further chunks behind its picture."""
    plain = encoded("WEBP")
    extended = struct.pack("<I", flags) + (SIZE[0] - 1).to_bytes(3, "little") + (SIZE[1] - 1).to_bytes(3, "little")
    body = b"WEBP" + b"VP8X" + struct.pack("<I", 10) + extended + plain[12:]
    body += b"".join(kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2) for kind, data in chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


@cache
def zeros(megabytes: int) -> bytes:
    """A compressed stream of so many megabytes of zeros."""
    packer = zlib.compressobj(6)
    return b"".join([*(packer.compress(bytes(2**20)) for _ in range(megabytes)), packer.flush()])


def tiff(entries: bytes, count: int | None = None, start: int = 8, tail: bytes = b"\0\0\0\0") -> bytes:
    """The inside of an EXIF block: one directory of any entries."""
    said = len(entries) // 12 if count is None else count
    return b"II*\0" + struct.pack("<I", start) + struct.pack("<H", said) + entries + tail


def bombs() -> Iterator[tuple[str, bytes]]:
    """Small files that claim or unpack to much."""
    row = zlib.compress(b"")
    for width, height in ((9000, 8000), (20_000, 20_000), (65_535, 65_535), (2**31 - 1, 2**31 - 1), (2**31 - 1, 1), (1, 2**31 - 1),
                          (1, 60_000_000), (60_000_000, 1), (5_000, 4_900), (4_000, 3_900)):  # fmt: skip
        yield f"png {width} x {height} of nothing", png(width, height, chunk(b"IDAT", row))
    yield "png of 21 megapixels of zeros with transparency", png(6_000, 3_500, chunk(b"IDAT", zeros(81)), colour=6)
    yield "png whose pixels unpack to much more than its size", png(64, 64, chunk(b"IDAT", zeros(64)))
    yield "interlaced png bomb", png(64, 64, chunk(b"IDAT", zeros(32)), interlace=1)
    yield "png of one bit, 64 megapixels", png(8_000, 8_000, chunk(b"IDAT", zeros(8)), depth=1, colour=0)
    squeezed = zeros(64)
    yield "profile bomb", png_with(chunk(b"iCCP", b"icc\0\0" + squeezed))
    yield "text bomb", png_with(chunk(b"zTXt", b"Comment\0\0" + squeezed))
    yield "international text bomb", png_with(chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + squeezed))
    yield "a thousand text bombs", png_with(*[chunk(b"zTXt", b"Comment\0\0" + zeros(1))] * 1000)
    yield "nested text bomb", png_with(chunk(b"zTXt", b"Comment\0\0" + zlib.compress(squeezed)))
    yield "jpeg of 65535 x 65535", encoded().replace(struct.pack(">HH", SIZE[1], SIZE[0]), b"\xff\xff\xff\xff")
    yield "jpeg of 8000 x 8000 with little in it", encoded().replace(struct.pack(">HH", SIZE[1], SIZE[0]), struct.pack(">HH", 8000, 8000))
    yield "jpeg with two million comments", with_segments(segment(0xFE, b"") * 2_000_000)
    yield "jpeg with two million fill bytes", with_segments(b"\xff" * 2_000_000)
    yield "jpeg with fill bytes before stuffing", with_segments(b"\xff" * 300_000 + b"\0" + b"\xff" * 300_000)
    yield "png with a million empty chunks", png_with(chunk(b"teST", b"") * 1_000_000)
    yield "png with a million empty pixel chunks", png_with(chunk(b"IDAT", b"") * 1_000_000)
    yield "webp with a million chunks", webp_with(*[(b"JUNK", b"")] * 1_000_000)
    yield "webp of 16383 x 16383", webp_with().replace(webp_with()[24:30], b"\xfe\x3f\0\xfe\x3f\0", 1)
    yield "large webp", encoded("WEBP", Image.new("RGB", (4_000, 3_250)), lossless=True, method=0)


def scan_bombs() -> Iterator[tuple[str, bytes]]:
    """Progressive JPEGs with many passes over many pixels."""
    for side, repeats in ((64, 3_000), (1_000, 400), (3_000, 400), (4_800, 50)):
        whole = encoded(image=Image.new("L", (side, side)), progressive=True)
        last = whole[whole.rfind(b"\xff\xc4") : -2]
        yield f"{repeats} further scans of {side} x {side}", whole[:-2] + last * repeats + whole[-2:]
    yield "large progressive jpeg", encoded(image=Image.new("RGB", (6_000, 4_000)), progressive=True, subsampling=0)
    yield "too large progressive jpeg", encoded(image=Image.new("L", (6_000, 4_100)), progressive=True)


def truncations() -> Iterator[tuple[str, bytes]]:
    """Files that end too early, at every kind of place."""
    files = {"jpeg": encoded(), "progressive": encoded(progressive=True), "png": encoded("PNG"), "webp": encoded("WEBP"),
             "lossless webp": encoded("WEBP", lossless=True)}  # fmt: skip
    for kind, whole in files.items():
        for length in sorted(
            {0, 1, 2, 3, 4, 7, 8, 11, 12, 16, 20, 21, 30, 33, 40, *range(60, len(whole), len(whole) // 9), len(whole) - 1}
        ):
            yield f"{kind} cut to {length} bytes", whole[:length]


def bit_flips() -> Iterator[tuple[str, bytes]]:
    """One to five bits of a good file turned, where chance wants it."""
    chance = random.Random(3)
    for kind, options in (("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {}), ("WEBP", {})):
        whole = encoded(kind, **options)
        for number in range(20):
            altered = bytearray(whole)
            for _ in range(1 + number % 5):
                place = chance.randrange(min(len(altered), 600 if number % 2 else len(altered)))
                altered[place] ^= 1 << chance.randrange(8)
            yield f"{kind} {options} with bits turned ({number})", bytes(altered)


def disguises() -> Iterator[tuple[str, bytes]]:
    """Files of other kinds that are called a photo."""
    for kind in ("GIF", "TIFF", "BMP", "ICO", "PPM", "TGA", "PCX", "ICNS", "EPS", "PDF", "JPEG2000", "SGI", "DDS", "MSP"):
        image = base("1") if kind == "MSP" else base("RGB")
        yield f"{kind} called jpg", encoded(kind, image)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("a.html", PAYLOAD)
    svg = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)">' + PAYLOAD + b"</svg>"
    entity = b'<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><svg>&a;</svg>'
    others = {"zip": archive.getvalue(), "svg": svg, "svg with an entity": entity, "html": b"<html>" + PAYLOAD, "php": b"<?php system($_GET[0]);",
              "psd": b"8BPS\0\1" + bytes(6) + b"\0\3\0\0\0\1\0\0\0\1\0\x08\0\3" + bytes(12), "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n(%pipe%id) (r) file\n",
              "elf": b"\x7fELF\2\1\1" + bytes(40), "exe": b"MZ" + bytes(100), "empty": b"", "zeros": bytes(5_000), "text": b"GIF89a" + PAYLOAD,
              "json": b'{"a": 1}', "heic": b"\0\0\0\x18ftypheic" + bytes(40), "avif": b"\0\0\0\x18ftypavif" + bytes(40),
              "mvg": b"push graphic-context\nimage over 0,0 0,0 'https://127.0.0.1/x.php?a=`id`'\n", "dicom": bytes(128) + b"DICM" + bytes(40),
              "riff of another kind": b"RIFF\x24\0\0\0WAVEfmt " + bytes(28), "flv": b"FLV\1" + bytes(20)}  # fmt: skip
    for kind, content in others.items():
        yield f"{kind} called jpg", content
    for magic in (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\x40\0\0\0WEBP", b"RIFF\xff\xff\xff\xffWEBPVP8 \xff\xff\xff\xff"):
        yield f"{magic!r} before noise", magic + random.Random(1).randbytes(2_000)
        yield f"{magic!r} before zeros", magic + bytes(2_000)


def polyglots() -> Iterator[tuple[str, bytes]]:
    """A good photo that is something else as well; the other part must be gone afterwards."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("a.html", PAYLOAD)
    for kind in ("JPEG", "PNG", "WEBP"):
        whole = encoded(kind)
        yield f"{kind} before a zip", whole + archive.getvalue()
        yield f"{kind} before html", whole + b"<html>" + PAYLOAD
        yield f"{kind} before php", whole + b"<?php /*" + PAYLOAD + b"*/ ?>"
        yield f"{kind} before another photo", whole + PAYLOAD + whole
        yield f"{kind} before a pdf", whole + b"%PDF-1.4\n" + PAYLOAD + b"\n%%EOF"
    riff = encoded("WEBP") + PAYLOAD + b"\0\0"
    yield "webp with a script inside its length", riff[:4] + struct.pack("<I", len(riff) - 8) + riff[8:]
    for marker in (0xE0, 0xE1, 0xE2, 0xE3, 0xED, 0xEE, 0xEF, 0xFE, 0xF0, 0xDB, 0xDD):
        yield f"jpeg with a script in segment {marker:X}", with_segments(segment(marker, PAYLOAD))
    yield "jpeg with a script in its frame header", with_segments(segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\x09\x09" + PAYLOAD * 9))
    yield "jpeg with a script behind stuffing", encoded()[:-2] + PAYLOAD + b"\xff\xd9"
    yield "jpeg with a script between its segments", with_segments(PAYLOAD)
    for name in (b"tEXt", b"eXIf", b"prVt", b"iCCP", b"sPLT", b"pHYs", b"tIME", b"gAMA", b"acTL", b"fdAT", b"tRNS", b"bKGD"):
        yield f"png with a script in {name.decode()}", png_with(chunk(name, b"Comment\0" + PAYLOAD))
    for name in (b"EXIF", b"XMP ", b"ICCP", b"JUNK", b"ALPH"):
        yield f"webp with a script in {name.decode()}", webp_with((name, PAYLOAD), flags=0x2C)
    palette = base("RGB").quantize(8)
    palette.putpalette(PAYLOAD[:24])
    yield "png with a script for a palette", encoded("PNG", palette)
    pixels = Image.frombytes("RGB", (10, 1), PAYLOAD[:30])
    yield "png with a script for pixels, stored", png(10, 1, chunk(b"IDAT", zlib.compress(b"\0" + pixels.tobytes(), 0)))


def broken_exif() -> Iterator[tuple[str, bytes]]:
    """Directories that point astray, count wrongly, or never end: in each of the three formats."""
    entry = struct.Struct("<HHII")
    cases = {
        "empty": b"",
        "cut": b"II*\0",
        "of no order": b"XX*\0" + bytes(20),
        "with its directory outside": tiff(b"", start=0xFFFFFFF0),
        "with its directory at its own start": tiff(b"", start=0),
        "with 65535 entries said": tiff(ORIENTATION_ENTRY, count=0xFFFF),
        "with a huge count": tiff(entry.pack(0x010F, 2, 0xFFFFFFFF, 8)),
        "with an offset outside": tiff(entry.pack(0x010F, 2, 200, 0xFFFFFF00)),
        "of a type that is none": tiff(entry.pack(0x0112, 99, 1, 6)),
        "of a long orientation": tiff(entry.pack(0x0112, 4, 1, 6)),
        "of an orientation in text": tiff(entry.pack(0x0112, 2, 1, 0x36)),
        "of an orientation far away": tiff(entry.pack(0x0112, 3, 1000, 8)),
        "whose directory follows itself": tiff(ORIENTATION_ENTRY, tail=struct.pack("<I", 8)),
        "whose sub-directory is itself": tiff(entry.pack(0x8769, 4, 1, 8) + entry.pack(0x8825, 4, 1, 8) + ORIENTATION_ENTRY),
        "whose maker note is itself": tiff(entry.pack(0x927C, 7, 60, 0) + ORIENTATION_ENTRY),
        "with a hundred orientations": tiff(ORIENTATION_ENTRY * 100),
        "with 4000 entries of all of it": tiff(b"".join(entry.pack(n + 1, 7, 40_000, 8) for n in range(4_000))),
        "of rationals over zero": tiff(entry.pack(0x011A, 5, 1, 8) + entry.pack(0x0128, 3, 1, 2), tail=bytes(12)),
        "of big TIFF": b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, 2**63),
        "with a script for a thumbnail": tiff(ORIENTATION_ENTRY, tail=struct.pack("<I", 26)) + PAYLOAD,
    }
    for kind, exif in cases.items():
        yield f"jpeg exif {kind}", with_segments(segment(0xE1, b"Exif\0\0" + exif[:65_000]), jpeg=without_jfif())
        yield f"png exif {kind}", png_with(chunk(b"eXIf", exif))
        yield f"webp exif {kind}", webp_with((b"EXIF", exif), flags=0x08)
    for orientation in (0, *range(1, 10), 255, 65_535):
        said = struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0)
        yield f"orientation {orientation}", with_segments(segment(0xE1, b"Exif\0\0" + tiff(said)))
    many = [segment(0xE1, b"Exif\0\0" + b"x" * 60_000)] * 40
    yield (
        "exif in forty segments",
        with_segments(segment(0xE1, b"Exif\0\0" + tiff(entry.pack(1, 7, 2_000_000, 8) * 999)), *many, jpeg=without_jfif()),
    )
    pointer = b"MPF\0II*\0\x08\0\0\0\x01\0" + entry.pack(0xB001, 4, 1, 60_000) + bytes(60)
    yield "of sixty thousand pictures", with_segments(segment(0xE2, pointer))
    yield "photoshop resources without end", with_segments(segment(0xED, b"Photoshop 3.0\0" + b"8BIM\4\4\0\0\xff\xff\xff\xff" * 4_000))


def without_jfif() -> bytes:
    """A JPEG that says no resolution, so that a reader looks for it in EXIF."""
    whole = encoded()
    return whole[:2] + whole[20:]


def odd_kinds() -> Iterator[tuple[str, bytes]]:
    """Photos that are allowed to be what they are, and rare."""
    frames = [Image.new("RGB", SIZE, (40 * n, 90, 60)) for n in range(5)]
    yield "animated webp", encoded("WEBP", frames[0], save_all=True, append_images=frames[1:])
    yield "animated png", encoded("PNG", frames[0], save_all=True, append_images=frames[1:])
    yield "animated png of a billion frames", png_with(chunk(b"acTL", struct.pack(">II", 10**9, 0)))
    yield "jpeg of two pictures", encoded("MPO", frames[0], save_all=True, append_images=frames[1:])
    for mode in ("1", "L", "P", "LA", "RGBA", "I;16"):
        image = Image.fromarray(np.full((64, 96), 40_000, np.uint16)) if mode == "I;16" else base(mode)
        yield f"png of mode {mode}", encoded("PNG", image)
    yield "palette with transparency", encoded("PNG", base("P"), transparency=bytes(range(200)))
    yield "png of 16 bits", png(2, 1, chunk(b"IDAT", zlib.compress(bytes(13))), depth=16)
    yield "cmyk jpeg", encoded("JPEG", base("CMYK"))
    yield "grey jpeg", encoded("JPEG", base("L"))
    yield "jpeg with its colours as they are", encoded("JPEG", keep_rgb=True)
    for depth, colour in ((3, 2), (16, 3), (8, 1), (0, 0), (255, 255)):
        yield f"png of depth {depth} and colour {colour}", png(8, 8, chunk(b"IDAT", zlib.compress(bytes(400))), depth=depth, colour=colour)
    for width, height in ((0, 0), (0, 64), (64, 0), (1, 1), (1, 20_000), (20_000, 1), (1, 40_000)):
        rows = b"".join(b"\0" + bytes(3 * width) for _ in range(height))
        yield f"png of {width} x {height}", png(width, height, chunk(b"IDAT", zlib.compress(rows)))
        yield f"jpeg of {width} x {height} said", encoded().replace(struct.pack(">HH", SIZE[1], SIZE[0]), struct.pack(">HH", height, width))
    for width, height in ((65_500, 1), (1, 65_500), (30_000, 3)):
        yield f"jpeg of {width} x {height}", encoded(image=Image.new("RGB", (width, height), (200, 150, 120)))
    yield "png without pixels", png(64, 64)
    yield "png of a palette without one", png(8, 8, chunk(b"IDAT", zlib.compress(bytes(72))), colour=3)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0))
    yield "png of two headers", png_with(header)
    yield "png that ends at once", encoded("PNG")[:33] + chunk(b"IEND", b"") + PAYLOAD
    yield "png of false checksums", encoded("PNG")[:-16] + b"\0\0\0\0" + encoded("PNG")[-12:]
    frame = encoded()[encoded().index(b"\xff\xc0") :][:19]
    yield "jpeg of two frames", with_segments(frame.replace(struct.pack(">HH", *SIZE[::-1]), struct.pack(">HH", 9_000, 7_000)))
    yield "jpeg of nothing but scans", b"\xff\xd8" + segment(0xDA, b"\1\1\0\0\x3f\0") * 500 + b"\xff\xd9"
    yield "jpeg in a jpeg", b"\xff\xd8" + encoded()
    for marker in (0xC1, 0xC2, 0xC3, 0xC5, 0xC9, 0xCA, 0xCB, 0xC8):
        yield f"jpeg with frame type {marker:X}", encoded().replace(b"\xff\xc0", bytes([0xFF, marker]))


def odd_names() -> Iterator[tuple[str, str]]:
    """Names that lead out, turn the text, hide, or are far too long."""
    yield from {
        "up the tree": "../../../../etc/passwd", "absolute": "/etc/shadow", "of Windows": "C:\\Users\\ayesha\\a.jpg", "with a null byte": "a.jpg\0.exe",
        "that turns the text": "a\u202egpj.exe", "with line ends": "a.jpg\r\nSet-Cookie: x=1", "very long": "a" * 100_000, "empty": "", "a dot": ".", "dots": "..",
        "of spaces": "   ", "with an escape": "\x1b[2J\x1b[31ma.jpg", "half a character": "a\ud800.jpg", "in Urdu": "تصویر.jpg", "a share": "\\\\host\\share\\a.jpg",
        "with markup": "<img src=x onerror=alert(1)>.jpg", "with a format": "%s%n{0.__class__}.jpg",
    }.items()  # fmt: skip


def hostile_photos() -> Iterator[Hostile]:
    """All of them, in a fixed order."""
    for make in (bombs, scan_bombs, truncations, bit_flips, disguises, polyglots, broken_exif, odd_kinds):
        for kind, content in make():
            yield Hostile(f"{make.__name__}: {kind}", "/srv/nabz/ayesha/a.jpg", content)
    for kind, name in odd_names():
        yield Hostile(f"names: {kind}, a good photo", name, encoded())
        yield Hostile(f"names: {kind}, a broken photo", name, encoded()[:300])


def peak_megabytes(*, reset: bool = False) -> float:
    """The most memory that this process has held since the last reset (Linux)."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def main() -> None:
    """Clean every file and say what came of it; any exception but PhotoError ends the run."""
    from inference.errors import PhotoError
    from inference.service.photo_store import clean_photo

    clean_photo(encoded(), "warm.jpg")
    for hostile in hostile_photos():
        before = peak_megabytes(reset=True)
        answer: dict[str, object] = {"kind": hostile.kind}
        try:
            clean = clean_photo(hostile.content, hostile.name)
            again = Image.open(io.BytesIO(clean.content))
            answer |= {"size": again.size, "format": again.format, "info": sorted(again.info), "leaks": hostile.payload in clean.content,
                       "ends": clean.content.endswith(b"\xff\xd9") and clean.content.count(b"\xff\xd9") == 1}  # fmt: skip
        except PhotoError as error:
            answer["error"] = str(error)
        sys.stdout.write(json.dumps(answer | {"grew": peak_megabytes() - before}) + "\n")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    main()
