"""The index of a layer (index.md)."""

from dataclasses import dataclass

from . import zstd
from .numbers import Reader, need

MAGIC = b"SKI\x01"


@dataclass
class File:
    path: bytes
    size: int
    cost: int
    kind: int
    digest: bytes                           # the first 8 bytes
    hashes: list
    whole: bool


@dataclass
class Index:
    size: int
    bare: int
    raw: int
    files: list


def read(data, layer_size):
    """The index in these bytes, of a layer of this size."""
    need(data[:4] == MAGIC, "index: another kind of file or version")
    limit = 4 * layer_size + (64 << 10)
    reader = Reader(zstd.decode(data[4:], limit, magic=True), "index")
    size, bare, raw, count = (reader.number() for _ in range(4))
    columns = []
    for place in range(7):
        length = int.from_bytes(reader.take(8), "little")
        columns.append(Reader(reader.take(length), f"column {place + 1}"))
    reader.finish()
    paths, sizes, costs, kinds, digests, counts, sketches = columns
    files, path, all_paths = [], b"", 0
    for _ in range(count):
        shared, own = paths.number(), paths.number()
        need(shared <= len(path), "index: path")
        path = path[:shared] + paths.take(own)
        all_paths += len(path)
        need(len(path) <= 1 << 20 and all_paths <= limit, "index: paths too long")
        head, last, hashes = counts.number(), 0, []
        need(head >> 1 <= 256, "index: sketch too long")
        for _ in range(head >> 1):
            last += sketches.number()
            need(last < 1 << 32, "index: hash")
            hashes.append(last)
        kind = kinds.byte()
        need(kind <= 3, "index: kind")
        files.append(File(path, sizes.number(), costs.number(), kind, digests.take(8), hashes,
                          bool(head & 1)))
    for column in columns:
        column.finish()
    return Index(size, bare, raw, files)
