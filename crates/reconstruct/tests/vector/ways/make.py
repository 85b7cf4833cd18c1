#!/usr/bin/env python3
"""Writes the two layers of the vector of ways: `make.py FOLDER` gives FOLDER/old.tar and FOLDER/new.tar.

A zip whose entries go each way that there is, from itself, from other archives and from archives in those; archives in archives as deep
as they may be; class data as a member and as an entry; bytecode that is more than its time. The files are checked in; a rerun with
another Python or zlib may give others, which are as good, but want a new patch (tests/vectors.rs).
"""

import io
import struct
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

    def bytes(self, count):
        return bytes(self.next() % 256 for _ in range(count))


def text(seed, count, new=False):
    """Lines, of which the new version has one more."""
    lines = Numbers(seed).lines(count)
    if new:
        lines.insert(count // 2, b"a line between the others\n")
    return b"".join(lines)


def table(new):
    """Lines that the new version has in another order: runs of the old ones are then of little use."""
    lines = Numbers(700).lines(200)
    if new:
        order = Numbers(701)
        for i in range(len(lines) - 1, 0, -1):
            at = order.next() % (i + 1)
            lines[i], lines[at] = lines[at], lines[i]
    return b"".join(lines)


class Pipe(io.RawIOBase):
    """What cannot be sought in: sums stand behind contents then."""

    def __init__(self):
        self.made = io.BytesIO()

    def writable(self):
        return True

    def write(self, data):
        return self.made.write(data)


def archive(entries, day, piped=False, comment=b""):
    """A zip of entries: name, content, and the level, None for stored, "bzip2", or "huffman": deflated as no level does it."""
    out = Pipe() if piped else io.BytesIO()
    with zipfile.ZipFile(out, "w") as made:
        made.comment = comment
        for name, content, level in entries:
            info = zipfile.ZipInfo(name, (2026, 1, day, 12, 0, 0))
            methods = {None: zipfile.ZIP_STORED, "bzip2": zipfile.ZIP_BZIP2}
            info.compress_type = methods.get(level, zipfile.ZIP_DEFLATED)
            if name.endswith(".noted"):
                info.extra, info.comment = b"\xfe\xca\0\0", b"noted on day %d" % day
            with Huffman(level == "huffman"):
                made.writestr(info, content, compresslevel=level if isinstance(level, int) else 9)
    return (out.made if piped else out).getvalue()


class Huffman:
    """Has zipfile deflate without repetitions."""

    def __init__(self, on):
        self.on, self.stock = on, zipfile.zlib

    def __enter__(self):
        if self.on:
            zipfile.zlib = self

    def __exit__(self, *_):
        zipfile.zlib = self.stock

    def compressobj(self, level, method, bits):
        return self.stock.compressobj(level, method, bits, 8, zlib.Z_HUFFMAN_ONLY)

    def __getattr__(self, name):
        return getattr(self.stock, name)


def program(seed, calls, new):
    """One segment of code for x86-64: calls of functions before which another was put."""
    numbers, moved = Numbers(seed), 64 if new else 0
    code = bytearray(b"\x90" * moved)
    for _ in range(calls):
        by = moved + numbers.next() % 100 * 8 - len(code) - 5
        code += b"\xe8" + struct.pack("<i", by) + bytes([numbers.next() % 8, 0x90, 0xC3])
    size = 4096 + len(code)
    head = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    head += struct.pack("<2HI3QI6H", 2, 62, 1, 0x401000, 64, 0, 0, 64, 56, 1, 64, 0, 0)
    head += struct.pack("<2I6Q", 1, 5, 0, 0x400000, 0x400000, size, size, 4096)
    return bytes(head.ljust(4096, b"\0") + code)


def class_data(seed, new):
    """Class data of Java: words of which every other one is the address of a word, and rows of a hash and the offset of a word.

    The new version has a word more at two places: what is behind them is 8 or 16 farther on. Last come rows that are almost some, and
    stay: of small hashes, of small offsets, and too few."""
    numbers, words, rows, base = Numbers(seed), 800, 200, 0x800000000
    more = [8 * 400, 8 * 625]

    def moved(offset):
        return offset + 8 * sum(new and offset >= place for place in more)

    body = bytearray()
    for word in range(words):
        to, value = 8 * (numbers.next() % words), numbers.next() << 9
        body += struct.pack("<Q", value if word % 2 else base + moved(to))
    for _ in range(rows):
        body += struct.pack("<2I", 2**31 | numbers.next(), moved(4096 + 8 * (numbers.next() % 288)))
    for almost in [(5000, 6000)] * 4 + [(2**31, 3600)] * 4 + [(2**31, 6000), (2**31, 6000), (2**31, 6001)]:
        body += struct.pack("<2I", *almost)
    for place in reversed(more if new else []):
        body[place:place] = b"\x09" * 8
    size = len(body)
    # Two regions: where they are in the file and in memory, and their bytes; the second has none.
    head = struct.pack("<2I", 0xF00BABA2, 0) + struct.pack("<8Q", 17, 4096, 0, size, 7, size + 4096, size, 0)
    return head.ljust(4096, b"\0") + bytes(body)


def bytecode(time, new):
    """The source's size stays, so that but for the time all of the old content stands in the new one."""
    content = text(601, 90, new)
    return b"\xa7\r\r\n" + struct.pack("<3I", 0, time, 4000) + content


def application(new):
    """A zip of which each entry goes another way; the number is that of the way."""
    day = 2 if new else 1
    entries = [
        ("same", text(200, 40), 6),
        # 0: two that change places, one from another archive, two from archives in one that is not mentioned before.
        ("0/left", text(202 if new else 201, 40), 6),
        ("0/right", text(201 if new else 202, 40), 6),
        ("0/elsewhere", text(210, 40) if new else b"elsewhere\n", 6),
        ("0/inner", text(211, 40) if new else b"inner\n", 6),
        ("0/second", text(212, 40) if new else b"second\n", 6),
        # 1: at another level, and no longer stored.
        ("1/level", text(220, 60), 2 if new else 9),
        ("1/stored", text(221, 40), 1 if new else None),
        ("1/deflated", text(222, 40), None if new else 6),
        # 3 and 4.
        ("3/bidiff.noted", text(230, 100, new), 6),
        ("4/table", table(new), 6),
        # 5: archives in archives, as deep as they may be, and one more.
        ("5/3.zip", nested(new, 2, day), 6),
        ("5/doc.gz", gzip(text(271, 60, new), day), 6),
        # 6: deflated as no level does it, and not deflated.
        ("6/huffman", text(240, 30, new), "huffman"),
        ("6/bzip2", text(241, 30, new), "bzip2"),
        # 7: a program, and class data.
        ("7/program.so", program(250, 400, new), 6),
        ("7/classes.jsa", class_data(251, new), 6),
    ]
    if new:
        # 1 and 3 from another archive; 2: of each kind, and one that is not like its base.
        entries[6:6] = [
            ("1/elsewhere", text(210, 40), 1),
            ("first", text(213, 20, True), 6),
            ("2/text", text(260, 30), 1),
            ("2/program", b"\x7fELF" + Numbers(261).bytes(300), 2),
            ("2/binary", bytes(262) + Numbers(262).bytes(90), 3),
            ("2/dense", b"wOF2" + Numbers(263).bytes(300), None),
            ("2/other", text(264, 40), 4),
        ]
    else:
        entries.append(("2/other", Numbers(265).bytes(50), 6))
    return archive(entries, day, comment=b"version %d" % day)


def nested(new, more, day):
    if more:
        inner = nested(new, more - 1, day)
        return archive([("note", b"%d on day %d\n" % (more, day), 6), (f"{more}.zip", inner, 6)], day)
    return archive([("0.gz", gzip(text(270, 120, new), day), None)], day)


def gzip(content, day):
    coder = zlib.compressobj(9, zlib.DEFLATED, -15)
    head = struct.pack("<4BI2B", 0x1F, 0x8B, 8, 0, 1_767_000_000 + day, 2, 3)
    return head + coder.compress(content) + coder.flush() + struct.pack("<2I", zlib.crc32(content), len(content))


def box(new):
    """Archives in an archive, whose entries are found from elsewhere; the new version is no archive."""
    if new:
        return b"a note in the place of the archive\n"
    inner = archive([("a", b"first\n", 6), ("b", text(211, 40), 6)], 1)
    second = archive([("a", text(212, 40), 6)], 1)
    return archive([("note", b"of day 1\n", 6), ("inner.jar", inner, None), ("second.jar", second, 6)], 1)


def layer(new):
    time = 1_700_000_500 if new else 1_700_000_000
    out = io.BytesIO()
    members = [
        ("lib/box.jar", box(new)),
        ("lib/other.jar", archive([("first", text(213, 20, new), 6), ("moved", text(210, 40), 6)], 2 if new else 1, piped=True)),
        ("application.zip", application(new)),
        ("lib/classes.jsa", class_data(400, new)),
        ("lib/changed.pyc", bytecode(time - 7, new)),
        ("bin/program", program(401, 20, new)),
        ("share/text", text(500, 60, new)),
    ]
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as made:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size, info.mtime, info.mode = len(content), time, 0o644
            made.addfile(info, io.BytesIO(content))
        info = tarfile.TarInfo("link")
        info.type, info.linkname, info.mtime = tarfile.SYMTYPE, "share/text", time
        made.addfile(info)
    # After the end, a block that no tar has.
    return out.getvalue() + Numbers(600).bytes(512)


for name, new in [("old.tar", False), ("new.tar", True)]:
    (Path(sys.argv[1]) / name).write_bytes(layer(new))
