#!/usr/bin/env python3
"""Writes the two layers of the vector of archives: `make.py FOLDER` gives FOLDER/old.tar and FOLDER/new.tar.

A jar in an EAR, gzip of zlib and of GNU gzip, a picture, bytecode of Python and a program for aarch64, each as another writer than
Skerry makes it: Python's zipfile and zlib, and the gzip program. The files are checked in; a rerun with another Python or zlib may give
others, which are as good, but want a new patch (tests/vectors.rs).
"""

import io
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib
from pathlib import Path


class Numbers:
    """Numbers that look random and never change: those of tests/vectors.rs."""

    def __init__(self, seed):
        self.state = seed

    def next(self):
        self.state = (self.state * 6364136223846793005 + 1442695040888963407) % 2**64
        return self.state >> 33

    def lines(self, count):
        return [f"{i:03} {self.next():x} of {self.next() % 77:x}\n".encode() for i in range(count)]


def text(seed, count, new):
    """Lines, of which the new version has one more."""
    lines = Numbers(seed).lines(count)
    if new:
        lines.insert(count // 2, b"a line between the others\n")
    return b"".join(lines)


def archive(entries, day, level=6):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as made:
        for name, content in entries:
            info = zipfile.ZipInfo(name, (2026, 1, day, 12, 0, 0))
            info.compress_type = zipfile.ZIP_STORED if name.endswith(".stored") else zipfile.ZIP_DEFLATED
            made.writestr(info, content, compresslevel=level)
    return out.getvalue()


def ear(new):
    day = 2 if new else 1
    library = archive([(f"Class{i}.class", text(100 + i, 60, new and i == 3)) for i in range(6)], day, 9)
    entries = [("META-INF/MANIFEST.MF", b"Version: %d\n" % day), ("lib/library.jar", library), ("same", text(200, 80, False))]
    return archive([*entries, ("picture.stored", text(201, 40, new))], day)


def gzip_of_zlib(content, time):
    coder = zlib.compressobj(9, zlib.DEFLATED, -15)
    head = struct.pack("<4BI2B", 0x1F, 0x8B, 8, 0, time, 2, 3)
    return head + coder.compress(content) + coder.flush() + struct.pack("<2I", zlib.crc32(content), len(content))


def gzip_of_gnu(content):
    """Long enough that zlib gives other bytes at every level."""
    return subprocess.run(["gzip", "-6", "-n", "-c"], input=content, stdout=subprocess.PIPE, check=True).stdout


def picture(new):
    numbers, width, height = Numbers(300), 96, 64
    rows = [bytearray(numbers.next() % 5 for _ in range(width)) for _ in range(height)]
    if new:
        rows[20][10:30] = bytes(20)
    coded = zlib.compress(b"".join(b"\0" + row for row in rows), 6)

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">2I5B", width, height, 8, 0, 0, 0, 0))
    parts = b"".join(chunk(b"IDAT", coded[at : at + 1024]) for at in range(0, len(coded), 1024))
    return b"\x89PNG\r\n\x1a\n" + head + parts + chunk(b"IEND", b"")


def bytecode(seed, time, new):
    content = text(seed, 90, new)
    return b"\xa7\r\r\n" + struct.pack("<3I", 0, time, len(content)) + content


def program(new):
    """One segment of code for aarch64: calls of functions before which another was put."""
    numbers, moved = Numbers(400), 16 if new else 0
    words = [0xD503201F] * moved
    for i in range(3000):
        by = moved + numbers.next() % 1000 * 2 - len(words)
        words += [0x94000000 | by % 2**26, 0xD2800000 | numbers.next() % 32 << 5]
    code = struct.pack(f"<{len(words)}I", *words)
    size = 4096 + len(code)
    head = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    head += struct.pack("<2HI3QI6H", 2, 183, 1, 0x401000, 64, 0, 0, 64, 56, 1, 64, 0, 0)
    head += struct.pack("<2I6Q", 1, 5, 0, 0x400000, 0x400000, size, size, 4096)
    return head.ljust(4096, b"\0") + code


def layer(new):
    time = 1_700_000_500 if new else 1_700_000_000
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as made:
        for name, content in [
            ("application.ear", ear(new)),
            ("share/doc.gz", gzip_of_zlib(text(500, 300, new), time)),
            ("share/gnu.gz", gzip_of_gnu(text(501, 2500, new))),
            ("share/picture.png", picture(new)),
            ("lib/same.pyc", bytecode(600, time - 7, False)),
            ("lib/changed.pyc", bytecode(601, time - 7, new)),
            ("bin/program", program(new)),
        ]:
            info = tarfile.TarInfo(name)
            info.size, info.mtime, info.mode = len(content), time, 0o644
            made.addfile(info, io.BytesIO(content))
    return out.getvalue()


for name, new in [("old.tar", False), ("new.tar", True)]:
    (Path(sys.argv[1]) / name).write_bytes(layer(new))
