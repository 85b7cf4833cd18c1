"""Codec 5, compiled Python (codec-bytecode.md)."""

from . import streams as S
from .contents import bidiff
from .numbers import need

M32 = (1 << 32) - 1


def decode(streams, times, old, size, kind):
    """The new content; times is the state that members and bytecode share."""
    need(len(old) >= 16 and kind in (0, 2), "bytecode: source or kind")
    old_time = int.from_bytes(old[8:12], "little")
    if old_time in times.map:
        expected = times.map[old_time] & M32
    else:
        expected = old_time + times.code_shift & M32
    time = expected + streams[S.CODE_TIME].signed() & M32
    if kind == 0:
        need(len(old) == size, "bytecode: another size")
        content = old
    else:
        content = bidiff(streams, old, size, kind)
        need(content[8:12] == old[8:12], "bytecode: time is not the old one")
    times.map[old_time] = time
    times.code_shift = time - old_time
    return content[:8] + time.to_bytes(4, "little") + content[12:]
