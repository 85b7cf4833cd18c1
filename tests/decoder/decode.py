#!/usr/bin/env python3
"""Makes a target image from a bundle and its base images: configuration and layers.

    decode.py BUNDLE OUT.json OUT.tar [--base CONFIGURATION TAR...] [--key FILE]
"""

import argparse
import hashlib
import json
import pathlib

from skerry_decode import bundle, streams
from skerry_decode.numbers import need
from skerry_decode.patch import Patch


def diff_ids(configuration):
    digests = json.loads(configuration)["rootfs"]["diff_ids"]
    return [bytes.fromhex(digest.removeprefix("sha256:")) for digest in digests]


def decode(data, configurations, tars, public_key=None):
    """Configuration and layers (None for one that a base has) of the bundle's target.

    The configurations are those of the base images in any order; the tars are base layers."""
    toc = bundle.read(data, public_key)
    by_id = {hashlib.sha256(text).digest(): text for text in configurations}
    by_diff_id = {hashlib.sha256(tar).digest(): tar for tar in tars}
    base_texts = [by_id[base] for base in toc.bases]
    ids = [diff_ids(text) for text in base_texts]
    layers = [layer if isinstance(layer, list) else [ids[layer // 512][layer % 512], None]
              for layer in toc.layers]
    patch = Patch(streams.open_streams(toc.sections),
                  [by_diff_id[ids[place // 512][place % 512]] for place in toc.places])
    configuration = patch.configuration(base_texts[0] if base_texts else b"",
                                        [diff_id for diff_id, _ in layers])
    need(hashlib.sha256(configuration).digest() == toc.target, "configuration: another digest")
    need(diff_ids(configuration) == [diff_id for diff_id, _ in layers], "layers of another image")
    made = []
    for diff_id, size in layers:
        made.append(None if size is None else patch.layer(size))
        need(size is None or hashlib.sha256(made[-1]).digest() == diff_id, "layer: another digest")
    patch.finish()
    return configuration, made


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=pathlib.Path)
    parser.add_argument("configuration", type=pathlib.Path)
    parser.add_argument("layer", type=pathlib.Path)
    parser.add_argument("--base", nargs=2, action="append", default=[], type=pathlib.Path,
                        metavar=("CONFIGURATION", "TAR"))
    parser.add_argument("--key", type=pathlib.Path, help="private key in hexadecimal, for its public half")
    args = parser.parse_args()
    key = None
    if args.key:
        key = bytes.fromhex(args.key.read_text().split()[1])[-32:]
    configuration, layers = decode(args.bundle.read_bytes(),
                                   [base.read_bytes() for base, _ in args.base],
                                   [tar.read_bytes() for _, tar in args.base], key)
    args.configuration.write_bytes(configuration)
    args.layer.write_bytes(b"".join(layer for layer in layers if layer is not None))


if __name__ == "__main__":
    main()
