"""Contents made from an old one (patch.md, Contents), for members, archives and the configuration."""

from . import streams as S
from . import zstd
from .elf import decode_program
from .numbers import need

COPY, NEW, BIDIFF, DICTIONARY, PROGRAM, BYTECODE, ARCHIVE = range(7)


def new(streams, size, kind):
    """Bytes that come from the stream of the kind."""
    return streams[S.KIND + kind].take(size)


def read_runs(streams, size, old_size):
    """Runs of bidiff as (old start, old bytes, inserted bytes), one by one."""
    made, at, first = 0, 0, True
    while made < size:
        if not first:
            at += streams[S.SEEK].signed()
        add, insert = streams[S.ADD].number(), streams[S.INSERT].number()
        need(first or add or insert, "bidiff: empty run")
        made += add + insert
        need(made <= size and 0 <= at and at + add <= old_size, "bidiff: run beyond a content")
        yield at, add, insert
        at += add
        first = False


def bidiff(streams, old, size, kind):
    out, differences = bytearray(), streams[S.DIFFERENCES]
    for at, add, insert in read_runs(streams, size, len(old)):
        for byte in old[at:at + add]:
            out.append(byte + differences.difference(byte) & 255)
        out += new(streams, insert, kind)
    return bytes(out)


def dictionary(streams, old, size):
    length = streams[S.FRAME_LENGTHS].number()
    need(length <= 2 << 20 and max(len(old), size) <= 1 << 20, "dictionary: too long")
    content = zstd.decode(streams[S.FRAMES].take(length), size, magic=False, prefix=old)
    need(len(content) == size, "dictionary: size")
    return content


def program(streams, old, size, kind):
    runs = list(read_runs(streams, size, len(old)))
    need(len(runs) <= 65536, "program: too many runs")
    return decode_program(old, size, runs, streams[S.DIFFERENCES], streams[S.KIND + kind])
