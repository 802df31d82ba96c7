"""Image files that cost much more than their pixels: each is small, made by code, and cheap for the decoder to refuse.

    python tests/attack_images.py     decode all; print, of each, seconds of CPU, bytes at the peak, and what came out

Prints one JSON object. Memory is that of this process, so it imports nothing but NumPy, Pillow and the decoder.
"""

import json
import struct
import time
from collections.abc import Callable
from pathlib import Path

from fuzz_images import build_pictures, chunk, classify, png, read_peak, save, zeros
from PIL import Image

SIDE = 1900  # px; just below what is decoded at most


def many_scans(count: int, side: int = SIDE) -> bytes:
    """Return a progressive JPEG whose last scan is repeated."""
    whole = save(Image.new("L", (side, side), 90), "JPEG", progressive=True)
    last = whole.rindex(b"\xff\xda")
    return whole[:last] + whole[last:-2] * count + whole[-2:]


def segment(marker: int, content: bytes = b"") -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content


def exif_of_many_entries(entries: int, size: int) -> bytes:
    """Return an EXIF block in which all entries have the same ``size`` bytes for a value."""
    start = 8 + 2 + 12 * entries + 4
    directory = b"".join(struct.pack("<HHII", 40_000 + n, 7, size, start) for n in range(entries))
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, entries) + directory + bytes(4 + size)


def jpeg_with(middle: bytes) -> bytes:
    whole = save(Image.new("RGB", (40, 48), "red"), "JPEG")
    return whole[:2] + middle + whole[2:]


def png_with(*chunks: bytes) -> bytes:
    whole = save(Image.new("RGB", (40, 48), "red"), "PNG")
    return whole[:33] + b"".join(chunks) + whole[33:]


def bmp_of_deltas(side: int, compression: int) -> bytes:
    """Return a run-length BMP of jumps: each makes Pillow append rows of zeros in a loop of Python."""
    header = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 8, compression, 0, 0, 0, 256, 0)
    palette = bytes(range(256)) * 4
    return (
        b"BM" + struct.pack("<IHHI", 0, 0, 0, 54 + 1024) + header + palette + b"\0\2\xff\xff" * 100 + b"\1\0" * 10_000
    )


Entry = tuple[int, int, int, int]


def tiff(*entries: Entry, data: bytes = b"") -> bytes:
    """Return a TIFF of the given directory entries (tag, type, number, value), with ``data`` behind the directory."""
    directory = b"".join(struct.pack("<HHII", *entry) for entry in sorted(entries))
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + directory + bytes(4) + data


def grey_tiff(*more: Entry, side: int = 40, compression: int = 8, data: bytes = b"") -> bytes:
    """Return a grey TIFF; ``more`` replaces its entries and adds to them."""
    packed = data or zeros(side * side)
    entries = {256: (256, 4, 1, side), 257: (257, 4, 1, side), 258: (258, 3, 1, 8), 259: (259, 3, 1, compression),
               262: (262, 3, 1, 1), 273: (273, 4, 1, 0), 277: (277, 3, 1, 1), 278: (278, 4, 1, side),
               279: (279, 4, 1, len(packed))}  # fmt: skip
    entries |= {entry[0]: entry for entry in more}
    start = 8 + 2 + 12 * len(entries) + 4
    if entries[273][2] == 1:
        entries[273] = (273, 4, 1, start)
    if 322 in entries:
        del entries[278]
    return tiff(*entries.values(), data=packed)


def tiled(kind: int, side: int) -> bytes:
    """Return a grey TIFF whose tiles' sides are stated in a number of another type."""
    packed = zeros(side * side)
    value = struct.unpack("<I", struct.pack("<f", side))[0] if kind == 11 else side
    start = 8 + 2 + 12 * 9 + 4
    return tiff((256, 4, 1, 40), (257, 4, 1, 40), (258, 3, 1, 8), (259, 3, 1, 8), (262, 3, 1, 1), (322, kind, 1, value),
                (323, kind, 1, value), (324, 4, 1, start), (325, 4, 1, len(packed)), data=packed)  # fmt: skip


def many_strips(count: int) -> bytes:
    """Return an uncompressed TIFF of one row a strip, with far more strips than rows."""
    places = struct.pack("<I", 8) * count
    start = 8 + 2 + 12 * 9 + 4
    return grey_tiff((273, 4, count, start), (279, 4, count, start), (278, 4, 1, 1), compression=1, data=places)


def tiff_of_many_values(tags: int, size: int) -> bytes:
    return grey_tiff(*((50_000 + n, 7, size, 8) for n in range(tags)), data=zeros(1600) + bytes(size))


def gif(before: bytes, screen: tuple[int, int] = (40, 48), frame: tuple[int, int] = (40, 48)) -> bytes:
    image = save(Image.new("P", (40, 48)), "GIF")
    start = image.index(b",", 13)
    descriptor = b"," + struct.pack("<HHHH", 0, 0, *frame)
    return image[:6] + struct.pack("<HH", *screen) + image[10:start] + before + descriptor + image[start + 9 :]


def webp_canvas(side: int) -> bytes:
    whole = save(Image.new("RGB", (40, 48)), "WEBP")
    canvas = b"VP8X" + struct.pack("<I", 10) + bytes(4) + struct.pack("<I", side - 1)[:3] * 2
    body = b"WEBP" + canvas + whole[12:]
    return b"RIFF" + struct.pack("<I", len(body)) + body


def webp_frames(count: int) -> bytes:
    frames = [Image.new("RGB", (400, 480), (n, n, 9)) for n in range(count)]
    return save(frames[0], "WEBP", save_all=True, append_images=frames[1:])


def png_frames(count: int) -> bytes:
    frames = [Image.new("RGB", (400, 480), (n, n, 9)) for n in range(count)]
    return save(frames[0], "PNG", save_all=True, append_images=frames[1:])


REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "JPEG of 3,000 scans": (lambda: many_scans(3000), "has more than 55 scans of 3,610,000 px"),
    "large JPEG of 60 scans": (lambda: many_scans(60, 4900), "has more than 20 scans of 24,010,000 px"),
    "JPEG of short segments": (lambda: jpeg_with(segment(0xFE) * 1_000_000), "more than 100,000 segments"),
    "JPEG of short segments in its scans": (
        lambda: many_scans(1)[:-2] + segment(0xC4) * 1_000_000 + b"\xff\xd9", "more than 100,000 segments"),
    "BMP in RLE8": (lambda: bmp_of_deltas(SIDE, 1), "a BMP compressed with RLE8 is not read"),
    "BMP in RLE4": (lambda: bmp_of_deltas(SIDE, 2), "a BMP compressed with RLE4 is not read"),
    **{f"TIFF tile of type {kind}": (lambda kind=kind: tiled(kind, 5000), f"the tag 322 has 1 values of type {kind}")
       for kind in (1, 5, 8, 9, 11, 16, 17)},
    "TIFF tile larger than its image": (lambda: tiled(4, 1900), "tiles of 1900 x 1900 px are larger than the imag"),
    "TIFF of many strips": (lambda: many_strips(500_000), "lists 500,000 strips or tiles"),
    "TIFF in LZMA": (lambda: grey_tiff(compression=34925), "a TIFF compressed with LZMA (34925) is not read"),
    "TIFF in Zstandard": (lambda: grey_tiff(compression=50000), "a TIFF compressed with Zstandard (50000) is not"),
    "TIFF in WebP": (lambda: grey_tiff(compression=50001), "a TIFF compressed with WebP (50001) is not read"),
    "TIFF of one tag of a million values": (
        lambda: grey_tiff((320, 3, 2_000_000, 8), data=bytes(4_000_000)), "the tag 320 has 4,000,000 bytes"),
    "TIFF that states its width twice": (
        lambda: tiff((256, 4, 1, 40), (256, 4, 1, 60_000), (257, 4, 1, 40)), "states the tag 256 twice"),
    "BigTIFF": (lambda: b"II+\0\x08\0\0\0" + bytes(500), "BigTIFF is not read"),
    "GIF of short blocks": (lambda: gif(b"!\xfe\x01x\0" * 500_000), "more than 100,000 blocks before its first frame"),
    "GIF of a giant screen": (lambda: gif(b"", screen=(13_000, 13_000)), "13000 x 13000 px is more than"),
    "GIF of a giant frame": (
        lambda: gif(b"!\xf9\x04\x08\0\0\0\0", frame=(13_000, 13_000)), "13000 x 13000 px is more than"),
    "WebP of a giant canvas": (lambda: webp_canvas(13_000), "13000 x 13000 px is more than"),
    "PNG of short chunks": (lambda: png_with(chunk(b"teXt", b"") * 500_000), "more than 100,000 chunks"),
}  # fmt: skip
"""What is refused by name: name to what makes it, and a part of the message."""

READ: dict[str, Callable[[], bytes]] = {
    "small JPEG of 90 scans": lambda: many_scans(80, 400),
    "JPEG whose EXIF unpacks to 200 MB": lambda: jpeg_with(segment(0xE1, exif_of_many_entries(4000, 16_000))),
    "JPEG of padding": lambda: jpeg_with(b"\xff" * 8_000_000),
    "JPEG of stuffed zeros": lambda: jpeg_with(b"\xff\0" * 4_000_000),
    "PNG whose EXIF unpacks to 600 MB": lambda: png_with(chunk(b"eXIf", exif_of_many_entries(2000, 300_000)[6:])),
    "PNG with compressed profile and text": lambda: png_with(
        chunk(b"iCCP", b"p\0\0" + zeros(60_000_000)), *[chunk(b"zTXt", b"Raw profile type exif\0\0" + zeros(60_000_000))] * 20),
    "PNG that goes on behind its pixels": lambda: png(40, 48, zeros(1_000_000_000)),
    "PNG of 60 frames": lambda: png_frames(60),
    "TIFF whose tags unpack to 600 MB": lambda: tiff_of_many_values(2000, 300_000),
    "GIF of garbage": lambda: gif(b"\1" * 8_000_000),
    "GIF of comments": lambda: gif((b"!\xfe\xff" + b"x" * 255 + b"\0") * 30_000),
    "WebP of 60 frames": lambda: webp_frames(60),
    "large PNG": lambda: save(Image.new("RGB", (SIDE, SIDE), "red"), "PNG"),
    "large interlaced": lambda: save(Image.new("P", (SIDE, SIDE)), "GIF", interlace=True),
    "large TIFF": lambda: grey_tiff(side=SIDE),
    "large deep TIFF": lambda: save(Image.new("F", (SIDE, SIDE), 0.5), "TIFF"),
    "large WebP": lambda: save(Image.effect_noise((SIDE, SIDE), 90).convert("RGBA"), "WEBP", lossless=True, method=0),
}  # fmt: skip
"""What is read all the same: what would cost much is cut off, or is the price of the pixels."""


def main() -> None:
    for data in build_pictures().values():  # loads every codec, before memory is measured
        classify(data)
    found = {}
    for name, build in {**{name: build for name, (build, _) in REFUSED.items()}, **READ}.items():
        data = build()
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
        before, began = read_peak(), time.process_time()
        outcome = classify(data)
        found[name] = {
            "seconds": time.process_time() - began,
            "growth_bytes": read_peak() - before,
            "outcome": outcome,
            "size": len(data),
        }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
