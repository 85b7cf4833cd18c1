#!/usr/bin/env python3
"""Reads the fixed index of a layer (index.md) and compares what it tells with the layer.

    check_index.py INDEX TAR
"""

import argparse
import hashlib
import io
import pathlib
import tarfile

from skerry_decode import index
from skerry_decode.numbers import need

TEXT, PROGRAM, BINARY, DENSE = range(4)
STARTS = {b"\x7fELF": PROGRAM, b"PK\3\4": DENSE}


def check(found, tar):
    need(found.size == len(tar), "index: size of the layer")
    with tarfile.open(fileobj=io.BytesIO(tar)) as layer:
        members = layer.getmembers()
        files = [(member, layer.extractfile(member).read())
                 for member in members if member.isreg() and member.size]
    need(found.bare == len(members) - len(files), "index: members without content")
    need(len(found.files) == len(files), "index: files")
    for file, (member, content) in zip(found.files, files):
        need(file.path == member.name.encode() and file.size == len(content), "index: path or size")
        need(file.digest == hashlib.sha256(content).digest()[:8], f"{member.name}: digest")
        need(0 < file.cost <= file.size, f"{member.name}: cost")
        need(file.hashes == sorted(set(file.hashes)), f"{member.name}: sketch")
        need(file.kind == STARTS.get(content[:4], file.kind), f"{member.name}: kind")
        # A whole sketch may be short; another has as many hashes as its content is worth.
        most = min(256, max(16, int(len(content) ** 0.5) // 4))
        enough = len(file.hashes) <= most if file.whole else len(file.hashes) == most
        need(enough, f"{member.name}: number of hashes")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("index", type=pathlib.Path)
    parser.add_argument("layer", type=pathlib.Path)
    args = parser.parse_args()
    tar = args.layer.read_bytes()
    found = index.read(args.index.read_bytes(), len(tar))
    check(found, tar)
    kinds = {file.kind for file in found.files}
    need(found.raw and found.bare and kinds == {TEXT, PROGRAM, BINARY, DENSE}, "index: not all that there is")
    need({file.whole for file in found.files} == {False, True}, "index: one kind of sketch")


if __name__ == "__main__":
    main()
