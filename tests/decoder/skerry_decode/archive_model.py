"""Zips, gzip files and PNG pictures as entries (codec-archive.md): taking apart and writing."""

import struct
import zlib
from dataclasses import dataclass, replace

from .numbers import need

ZIP, GZIP, PNG = range(3)
STORED, DEFLATED = 0, 8
PNG_START = bytes.fromhex("89504e470d0a1a0a")


@dataclass
class Meta:
    """Six words, attributes and three texts."""
    words: tuple = (0, 0, 0, 0, 0, 0)       # version, flags, method, maker, directory's version, internal
    attributes: int = 0
    texts: tuple = (b"", b"", b"")


@dataclass
class Entry:
    """One entry; checksum is the Adler-32 in a picture, else the CRC-32."""
    name: bytes = b""
    time: int = 0
    meta: Meta = None
    coded: bytes = b""
    checksum: int = 0
    size: int = 0

    @property
    def method(self):
        return self.meta.words[2]

    def content(self):
        if self.method == STORED:
            return self.coded
        decoder = zlib.decompressobj(-15)
        content = decoder.decompress(self.coded)
        need(self.method == DEFLATED and decoder.eof and len(content) == self.size, "entry: content")
        return content


@dataclass
class Archive:
    """An archive as its entries."""
    kind: int
    entries: list
    prefix: bytes = b""
    comment: bytes = b""


# Taking apart

def take_apart(data):
    """The model of an old archive."""
    if data[:3] == b"\x1f\x8b\x08":
        return Archive(GZIP, [_gzip_entry(data)])
    if data[:8] == PNG_START:
        return Archive(PNG, [_png_entry(data)])
    return _zip(data)


def _zip(data):
    end = data.rfind(b"PK\5\6")
    while end >= 0 and (end + 22 > len(data) or end + 22 + _u16(data, end + 20) != len(data)):
        end = data.rfind(b"PK\5\6", 0, end)
    need(end >= 0, "source is no archive")
    count, size, start = struct.unpack_from("<HII", data, end + 10)
    need(start + size == end, "zip: directory does not end at the end record")
    at, entries, first = start, [], start
    for _ in range(count):
        entry, local, at = _zip_entry(data, at)
        entries.append(entry)
        first = min(first, local)
    return Archive(ZIP, entries, data[:first], data[end + 22:])


def _u16(data, at):
    return int.from_bytes(data[at:at + 2], "little")


def _zip_entry(data, at):
    need(data[at:at + 4] == b"PK\1\2", "zip: directory")
    (maker, version, flags, method, time, date, checksum, coded, size, name_size, extra_size,
     comment_size, _, internal, external, local) = struct.unpack_from("<6H3I5H2I", data, at + 4)
    place = at + 46
    name = data[place:place + name_size]
    extra = data[place + name_size:place + name_size + extra_size]
    end = place + name_size + extra_size + comment_size
    comment = data[end - comment_size:end]
    need(data[local:local + 4] == b"PK\3\4", "zip: local header")
    local_version = _u16(data, local + 4)
    local_extra = _u16(data, local + 28)
    start = local + 30 + name_size + local_extra
    meta = Meta((local_version, flags, method, maker, version, internal), external,
                (data[start - local_extra:start], extra, comment))
    return Entry(name, date << 16 | time, meta, data[start:start + coded], checksum, size), local, end


def _gzip_entry(data):
    flags, time, extra_flags, system = struct.unpack_from("<BIBB", data, 3)
    at, extra, name, comment, check = 10, b"", b"", b"", b""
    if flags & 4:
        end = at + 2 + _u16(data, at)
        extra, at = data[at + 2:end], end
    if flags & 8:
        end = data.index(b"\0", at)
        name, at = data[at:end], end + 1
    if flags & 16:
        end = data.index(b"\0", at)
        comment, at = data[at:end], end + 1
    if flags & 2:
        check, at = data[at:at + 2], at + 2
    checksum, size = struct.unpack("<II", data[-8:])
    meta = Meta((flags, extra_flags | system << 8, 8, 0, 0, 0), 0, (extra, comment, check))
    return Entry(name, time, meta, data[at:-8], checksum, size)


def _png_entry(data):
    at, chunks, first, last = 8, [], None, None
    while at < len(data):
        length = int.from_bytes(data[at:at + 4], "big")
        if data[at + 4:at + 8] == b"IDAT":
            first = at if first is None else first
            chunks.append(data[at + 8:at + 8 + length])
            last = at + 12 + length
        at += 12 + length
    stream = b"".join(chunks)
    attributes = 0 if len(chunks) == 1 else len(chunks[0])
    meta = Meta((stream[0] << 8 | stream[1], 0, 8, 0, 0, 0), attributes,
                (data[:first], data[last:], b""))
    size = len(zlib.decompress(stream))
    return Entry(b"", 0, meta, stream[2:-4], int.from_bytes(stream[-4:], "big"), size)


# Writing

def write(archive):
    """The bytes of an archive."""
    if archive.kind == GZIP:
        return _write_gzip(archive.entries[0])
    if archive.kind == PNG:
        return _write_png(archive.entries[0])
    out, directory = bytearray(archive.prefix), bytearray()
    for entry in archive.entries:
        place = len(out)
        version, flags, method, maker, directory_version, internal = entry.meta.words
        extra, directory_extra, comment = entry.meta.texts
        sums = struct.pack("<3I", entry.checksum, len(entry.coded), entry.size)
        both = struct.pack("<HHI", flags, method, entry.time & 0xFFFF | (entry.time >> 16) << 16)
        described = flags & 8
        out += b"PK\3\4" + struct.pack("<H", version) + both + (bytes(12) if described else sums)
        out += struct.pack("<HH", len(entry.name), len(extra)) + entry.name + extra + entry.coded
        if described:
            out += b"PK\7\x08" + sums
        directory += b"PK\1\2" + struct.pack("<HH", maker, directory_version) + both + sums
        directory += struct.pack("<5H2I", len(entry.name), len(directory_extra), len(comment), 0,
                                 internal, entry.meta.attributes, place)
        directory += entry.name + directory_extra + comment
    start, count = len(out), len(archive.entries)
    end = struct.pack("<4H2IH", 0, 0, count, count, len(directory), start, len(archive.comment))
    return bytes(out + directory + b"PK\5\6" + end + archive.comment)


def _write_gzip(entry):
    flags, both = entry.meta.words[:2]
    extra, comment, check = entry.meta.texts
    out = b"\x1f\x8b\x08" + struct.pack("<BIH", flags, entry.time, both)
    if flags & 4:
        out += struct.pack("<H", len(extra)) + extra
    if flags & 8:
        out += entry.name + b"\0"
    if flags & 16:
        out += comment + b"\0"
    out += check + entry.coded
    return out + struct.pack("<II", entry.checksum, entry.size & 0xFFFFFFFF)


def _write_png(entry):
    before, after, _ = entry.meta.texts
    stream = struct.pack(">H", entry.meta.words[0]) + entry.coded + struct.pack(">I", entry.checksum)
    step, out = entry.meta.attributes or len(stream), before
    for at in range(0, len(stream), step):
        chunk = b"IDAT" + stream[at:at + step]
        out += struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return out + after


def with_content(entry, kind, content, coded):
    """An entry with another content, whose checksum and size follow."""
    checksum = zlib.adler32(content) if kind == PNG else zlib.crc32(content)
    return replace(entry, coded=coded, checksum=checksum, size=len(content))
