#!/usr/bin/env python3
"""Decodes the fixed streams of coders (codec-mix.md, patch.md) and compares their digests.

    check_coders.py FOLDER      with coders.txt and the coder-N.bin that it names
"""

import argparse
import hashlib
import pathlib

from skerry_decode import streams
from skerry_decode.bundle import Section
from skerry_decode.numbers import need


def beside(count):
    """The old bytes beside the differences."""
    state, old = 11, bytearray()
    for _ in range(count):
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        old.append((state >> 33) % 256)
    return old


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path)
    folder = parser.parse_args().folder
    lines = [line.split() for line in (folder / "coders.txt").read_text().splitlines()]
    named = {f"coder-{number}.bin" for number, _, _ in lines}
    need(named == {path.name for path in folder.glob("coder-*.bin")}, "coders.txt names other streams")
    for number, length, digest in lines:
        coder, length = int(number), int(length)
        data = (folder / f"coder-{number}.bin").read_bytes()
        if coder in (129, 130):
            section = Section(streams.DIFFERENCES, coder, length, data)
            stream = streams.open_streams([section])[streams.DIFFERENCES]
            content = bytes(stream.difference(old) for old in beside(length))
        else:
            section = Section(streams.KIND, coder, length, data)
            stream = streams.open_streams([section])[streams.KIND]
            content = stream.take(length)
        stream.finish()
        found = "sha256:" + hashlib.sha256(content).hexdigest()
        need(found == digest, f"coder {number}: another stream")
        print(f"coder-{number}.bin: the same stream")


if __name__ == "__main__":
    main()
