"""Mutated images through ``to_array``, in a process of their own: what comes out, and how much memory it took.

    python tests/fuzz_images.py --count 2400 --seed 1     mutated images
    python tests/fuzz_images.py --one < image           one image; --spare BYTES limits the memory for it

Prints one JSON object. It imports nothing but NumPy, Pillow and the decoder, so that its memory is the decoder's.
"""

import argparse
import io
import json
import random
import resource
import struct
import sys
import traceback
import warnings
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile

from gender_classifier.data.images import MAX_BYTES_PER_PIXEL, Crop, to_array
from gender_classifier.errors import ImageError

MAX_PIXELS = 4_000_000
CROP = Crop(0.99, 0.99)  # of squares, it leaves nearly all, in a copy
REASONS = {"empty", "not_an_image", "truncated", "too_large", "unreadable"}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=2400)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--one", action="store_true")
    parser.add_argument("--spare", type=int)
    options = parser.parse_args()
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", category=UserWarning)
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
    seeds = build_pictures()
    for name, data in seeds.items():  # loads every codec, before memory is measured
        assert classify(data) == "array", name
    if options.one:
        print(json.dumps(measure(sys.stdin.buffer.read(), options.spare)))
        return
    bad = bombs()
    inputs = [*bad.items(), *mutate_all(seeds, options.count, random.Random(options.seed))]
    before = read_peak()
    outcomes: Counter[str] = Counter()
    failures = []
    for name, data in inputs:
        try:
            outcomes[classify(data)] += 1
        except BaseException:
            failures.append(f"{name}: {traceback.format_exc()}")
    found = {
        "count": sum(outcomes.values()) + len(failures),
        "bombs": len(bad),
        "outcomes": outcomes,
        "failures": failures[:5],
        "growth_bytes": read_peak() - before,
        "bound_bytes": MAX_PIXELS * MAX_BYTES_PER_PIXEL,
    }
    print(json.dumps(found))


def classify(data: bytes) -> str:
    """Return ``array`` or the error's reason; let any other error out."""
    try:
        array = to_array(data, 64, max_pixels=MAX_PIXELS, crop=CROP)
    except ImageError as error:
        assert error.reason in REASONS, error.reason
        assert "\n" not in str(error)
        return error.reason
    assert (array.shape, array.dtype) == ((64, 64, 3), np.uint8)
    return "array"


def measure(data: bytes, spare: int | None) -> dict[str, object]:
    """Decode one image, with at most ``spare`` bytes more of address space than are in use."""
    if spare is not None:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + spare
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    before = read_peak()
    outcome = classify(data)
    return {"outcome": outcome, "growth_bytes": read_peak() - before}


def read_peak() -> int:
    """Return the most memory that this process has had, bytes; ``ru_maxrss`` would count its parent's."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))


def save(image: Image.Image, format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def build_pictures() -> dict[str, bytes]:
    """Return small whole images: every format, and in each what decoders do not see every day."""
    patches = np.random.default_rng(3).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    rgb = Image.fromarray(patches).resize((40, 48), Image.Resampling.BICUBIC)
    grey, alpha, palette = rgb.convert("L"), rgb.convert("RGBA"), rgb.quantize(16)
    alpha.putalpha(grey)
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    real = Image.fromarray(np.asarray(grey).astype(np.float32) / np.float32(3))
    turned = Image.Exif()
    turned[0x0112] = 6
    frames = [rgb.rotate(angle) for angle in (90, 180)]
    return {
        "jpeg": save(rgb, "JPEG", exif=turned.tobytes()),
        "jpeg progressive": save(rgb, "JPEG", progressive=True, subsampling=0),
        "jpeg cmyk": save(rgb.convert("CMYK"), "JPEG"),
        "jpeg grey": save(grey, "JPEG"),
        "jpeg of two images": save(rgb, "MPO", save_all=True, append_images=frames),
        "png": save(rgb, "PNG", exif=turned),
        "png alpha": save(alpha, "PNG"),
        "png 16 bit": save(deep, "PNG"),
        "png palette and transparency": save(palette, "PNG", transparency=bytes(range(0, 160, 10))),
        "png grey and transparency": save(grey, "PNG", transparency=40),
        "png animated": save(rgb, "PNG", save_all=True, append_images=frames),
        "png one bit": save(grey.convert("1"), "PNG"),
        "gif": save(palette, "GIF", transparency=3),
        "gif animated": save(rgb, "GIF", save_all=True, append_images=frames, disposal=3),
        "webp": save(rgb, "WEBP", exif=turned.tobytes()),
        "webp lossless": save(alpha, "WEBP", lossless=True),
        "webp animated": save(rgb, "WEBP", save_all=True, append_images=frames),
        "bmp": save(rgb, "BMP"),
        "bmp palette": save(palette, "BMP"),
        "tiff": save(rgb, "TIFF", exif=turned),
        "tiff lzw": save(alpha, "TIFF", compression="tiff_lzw"),
        "tiff deflate 16 bit": save(deep, "TIFF", compression="tiff_deflate"),
        "tiff jpeg": save(rgb, "TIFF", compression="jpeg"),
        "tiff cmyk": save(rgb.convert("CMYK"), "TIFF"),
        "tiff float": save(real, "TIFF"),
        "tiff fax": save(grey.convert("1"), "TIFF", compression="group4"),
        "tiff tiled": tiled_tiff(64),
    }


def build_large_pictures(side: int) -> dict[str, bytes]:
    """Return images of ``side`` x ``side`` px, stored turned, of the kinds whose decoders take the most memory."""
    patches = np.random.default_rng(4).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    rgb = Image.fromarray(patches).resize((side, side))
    exif = Image.Exif()
    exif[0x0112] = 6
    deep = Image.fromarray(np.asarray(rgb.convert("L")).astype(np.uint16) * 257)
    alpha = rgb.convert("RGBA")
    return {
        "jpeg progressive cmyk": save(rgb.convert("CMYK"), "JPEG", progressive=True, exif=exif.tobytes()),
        "png 16 bit": save(deep, "PNG", compress_level=1, exif=exif),
        "png alpha": save(alpha, "PNG", compress_level=1, exif=exif),
        "webp lossless alpha": save(alpha, "WEBP", lossless=True, method=0, exif=exif.tobytes()),
        "tiff float": save(Image.fromarray(np.asarray(deep, np.float32)), "TIFF", exif=exif),
    }


def bombs() -> dict[str, bytes]:
    """Return small files that would unpack to much, and odd values in whole images."""
    broken = np.full((8, 8), np.nan, np.float32)
    broken[0] = np.inf
    huge = [(side, side) for side in (2100, 20_000, 65_535, 2**31 - 1)]
    lab = Image.new("LAB", (30, 30), (90, 128, 128))
    thin = Image.new("RGB", (1, 65_000), (9, 9, 9))
    return {
        "nothing": b"",
        "float TIFF without numbers": save(Image.fromarray(broken), "TIFF"),
        "CIELAB TIFF": save(lab, "TIFF"),
        "one column": save(thin, "PNG"),
        "one row": save(thin.transpose(Image.Transpose.ROTATE_90), "PNG"),
        "PNG of zeros": png(9000, 9000, zeros(9000 * 27_001)),
        "PNG longer than its header says": png(30, 30, zeros(100_000_000)),
        "TIFF of huge tiles": tiled_tiff(12_000),
        "PNG with 60 MB of text": png_with_text(60_000_000),
        **{f"PNG header {size}": png(*size, zeros(1000)) for size in huge},
        **{f"GIF header {size}": b"GIF89a" + struct.pack("<HH", size[0] & 65_535, size[1] & 65_535) + b"\0" * 40
           for size in huge},
    }  # fmt: skip


def zeros(size: int) -> bytes:
    """Deflate ``size`` zeros, without having them in memory: that would count as the decoder's."""
    packer = zlib.compressobj(9)
    return (
        b"".join(packer.compress(bytes(min(2**20, size - start))) for start in range(0, size, 2**20)) + packer.flush()
    )


def png(width: int, height: int, pixels: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_with_text(size: int) -> bytes:
    whole = save(Image.new("RGB", (10, 10)), "PNG")
    return whole[:33] + chunk(b"zTXt", b"note\0\0" + zeros(size)) + whole[33:]


def tiled_tiff(side: int) -> bytes:
    """Return a 10 x 10 image whose one tile has ``side`` x ``side`` pixels, deflated."""
    raw = zeros(side * side * 3)
    start = 8 + 2 + 12 * 10 + 4
    entries = [(256, 10), (257, 10), (258, start), (259, 8), (262, 2), (277, 3), (322, side), (323, side),
               (324, start + 6), (325, len(raw))]  # fmt: skip
    directory = b"".join(
        struct.pack("<HHII", tag, 3 if tag == 258 else 4, 3 if tag == 258 else 1, value) for tag, value in entries
    )
    head = b"II*\0" + struct.pack("<IH", 8, len(entries)) + directory + bytes(4)
    return head + struct.pack("<HHH", 8, 8, 8) + raw


def mutate_all(seeds: dict[str, bytes], count: int, rng: random.Random) -> list[tuple[str, bytes]]:
    names, mutations = sorted(seeds), [truncate, flip_bits, splice, zero, repeat, enlarge, insert]
    found = []
    for number in range(count):
        name = names[number % len(names)]
        data = seeds[name]
        for mutation in rng.choices(mutations, k=rng.randint(1, 3)):
            data = mutation(data, rng, seeds) or b"\0"
        found.append((f"{number} {name}", data))
    return found


Mutation = Callable[[bytes, random.Random, dict[str, bytes]], bytes]


def truncate(data: bytes, rng: random.Random, _: dict[str, bytes]) -> bytes:
    return data[: rng.randrange(len(data))]


def flip_bits(data: bytes, rng: random.Random, _: dict[str, bytes]) -> bytes:
    changed = bytearray(data)
    for _turn in range(rng.choice((1, 2, 8, 40))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def splice(data: bytes, rng: random.Random, seeds: dict[str, bytes]) -> bytes:
    other = seeds[rng.choice(sorted(seeds))]
    return data[: rng.randrange(len(data))] + other[rng.randrange(len(other)) :]


def zero(data: bytes, rng: random.Random, _: dict[str, bytes]) -> bytes:
    start = rng.randrange(len(data))
    length = min(rng.randint(1, 64), len(data) - start)
    return data[:start] + bytes([rng.choice((0, 255))]) * length + data[start + length :]


def repeat(data: bytes, rng: random.Random, _: dict[str, bytes]) -> bytes:
    start = rng.randrange(len(data))
    end = start + rng.randint(1, 200)
    return data[:end] + data[start:end] * rng.randint(1, 4) + data[end:]


def enlarge(data: bytes, rng: random.Random, _: dict[str, bytes]) -> bytes:
    """Write a large number of 2 or 4 bytes into the head, where sizes and offsets stand."""
    value, order = rng.choice((1900, 4000, 30_000, 65_535, 2**24, 2**31 - 1, 2**32 - 1)), rng.choice("<>")
    number = struct.pack(order + "I", value) if rng.random() < 0.5 else struct.pack(order + "H", value & 65_535)
    start = rng.randrange(min(len(data), 200))
    return data[:start] + number + data[start + len(number) :]


def insert(data: bytes, rng: random.Random, _: dict[str, bytes]) -> bytes:
    start = rng.randrange(len(data))
    return data[:start] + rng.randbytes(rng.randint(1, 30)) + data[start:]


if __name__ == "__main__":
    assert not ImageFile.LOAD_TRUNCATED_IMAGES
    sys.exit(main())
