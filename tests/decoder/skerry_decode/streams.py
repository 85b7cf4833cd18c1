"""The streams of a patch (patch.md, Streams): sections, coders and the pack."""

import lzma
import struct

from . import mix, zstd
from .bundle import is_lzma
from .numbers import Reader, need

PACK, FLAGS, BASE, PATH_NUMBERS, PATH_BYTES, LINKS, TIMES, SIZES, FORMS = range(9)
NEW_FORMS, EXTRAS, RAW, CODEC, SOURCE, ADD, INSERT, SEEK, DIFFERENCES = range(9, 18)
KIND = 18                                   # 18 to 21: new bytes of kinds 0 to 3
FRAMES, FRAME_LENGTHS, DIGESTS = 22, 23, 24
CODE_TIME = 31


class Stream(Reader):
    """A stream whose bytes are all decoded beforehand."""

    def difference(self, _old):
        return self.byte()


class Chain:
    """A stream of differences in sections, some of which need the old bytes."""

    def __init__(self, parts):
        self.parts = parts

    def difference(self, old):
        while not self._left(self.parts[0]) and len(self.parts) > 1:
            self.parts.pop(0)
        part = self.parts[0]
        return part.next(old) if isinstance(part, mix.Differences) else part.byte()

    @staticmethod
    def _left(part):
        return part.left if isinstance(part, mix.Differences) else part.left()

    def finish(self):
        need(not any(self._left(part) for part in self.parts), "differences not read")


def open_streams(sections):
    """All streams by number; one that is nowhere is empty."""
    parts = {}
    for section in sections:
        parts.setdefault(section.stream, []).append(_open_section(section))
    streams = {number: _join(number, list_) for number, list_ in parts.items()}
    if PACK in streams:
        for number, data in _unpack(streams.pop(PACK)).items():
            need(number not in streams, "a stream in the pack and outside")
            streams[number] = Stream(data, f"stream {number}")
    for number in range(1, 32):
        streams.setdefault(number, Stream(b"", f"stream {number}"))
    return streams


def _join(number, parts):
    if any(isinstance(part, mix.Differences) for part in parts):
        need(number == DIFFERENCES, "coder of differences for another stream")
        return Chain([part if isinstance(part, mix.Differences) else Stream(part) for part in parts])
    return Stream(b"".join(parts), f"stream {number}")


def _unpack(reader):
    lengths = {}
    while number := reader.byte():
        need(number not in lengths and number < 32, "pack: stream twice or unknown")
        lengths[number] = reader.number()
    streams = {number: reader.take(length) for number, length in lengths.items()}
    reader.finish()
    return streams


def _open_section(section):
    coder, data, length = section.coder, section.data, section.decoded
    if coder in (129, 130):
        return mix.Differences(data, length, fast=coder == 130)
    if coder == 0:
        content = data
    elif coder == 128:
        content = mix.decode_bytes(data, length)
    elif is_lzma(coder):
        content = _lzma(data, coder, length)
    else:
        content = zstd.decode(data, length, magic=False)
    need(len(content) == length, f"stream {section.stream}: decoded length")
    return content


def _lzma(data, coder, length):
    """LZMA (codec-mix.md): a byte of properties and a bare stream, perhaps filtered."""
    properties = data[0]
    need(properties < 9 * 5 * 5, "LZMA: properties")
    rest, lc = divmod(properties, 9)
    pb, lp = divmod(rest, 5)
    settings = {"id": lzma.FILTER_LZMA1, "lc": lc, "lp": lp, "pb": pb,
                "dict_size": max(4096, 1 << coder % 32)}
    decoder = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[settings])
    content = decoder.decompress(data[1:], max_length=length)
    if coder >= 96:
        return _arm64(content)
    return _x86(content) if coder >= 64 else content


def _x86(data):
    """Undo xz's x86 filter: the standard library has it only in front of a compressor."""
    inner = {"id": lzma.FILTER_LZMA2, "preset": 0}
    packed = lzma.compress(data, lzma.FORMAT_RAW, filters=[inner])
    return lzma.decompress(packed, lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_X86}, inner])


def _arm64(data):
    """Undo xz's ARM64 filter with the first byte at place 0."""
    out = bytearray(data)
    for at in range(0, len(data) - 3, 4):
        word, = struct.unpack_from("<I", out, at)
        if word >> 26 == 0x25:
            word = 0x94000000 | (word - (at >> 2)) & 0x03FFFFFF
        elif word & 0x9F000000 == 0x90000000:
            source = word >> 29 & 3 | word >> 3 & 0x001FFFFC
            if source + 0x00020000 & 0x001C0000:
                continue
            page = source - (at >> 12)
            word = word & 0x9000001F | (page & 3) << 29 | (page & 0x0003FFFC) << 3
            word |= -(page & 0x00020000) & 0x00E00000
        else:
            continue
        struct.pack_into("<I", out, at, word)
    return bytes(out)
