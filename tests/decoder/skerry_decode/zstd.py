"""Zstd frames with and without magic number, by the zstandard package."""

import zstandard

from .numbers import need

MAGIC = bytes.fromhex("28b52ffd")


def decode(frame, size_limit, magic, prefix=b""):
    """Content of exactly one frame."""
    form = zstandard.FORMAT_ZSTD1 if magic else zstandard.FORMAT_ZSTD1_MAGICLESS
    dictionary = None
    if prefix:
        dictionary = zstandard.ZstdCompressionDict(prefix, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    decoder = zstandard.ZstdDecompressor(
        dict_data=dictionary, format=form, max_window_size=1 << 23).decompressobj()
    content = decoder.decompress(frame)
    need(decoder.eof and not decoder.unused_data, "zstd: not one whole frame")
    need(len(content) <= size_limit, "zstd: too much content")
    return content
