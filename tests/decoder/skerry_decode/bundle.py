"""Bundle, version 1 (bundle.md): envelope, table of contents, chunks and sections."""

import hashlib
from dataclasses import dataclass

from . import cbor, zstd
from .numbers import Reader, U64, need

PURPOSE = b"skerry/bundle/1"
KNOWN_FEATURES = range(1, 11)
CHUNK = 65536
CODERS = {0, *range(10, 24), 128, 129, 130}


def is_lzma(coder):
    """Coders 32, 64 and 96 plus the logarithm of the window."""
    return 32 <= coder < 128


@dataclass
class Section:
    """One section of the payload."""
    stream: int
    coder: int
    decoded: int
    data: bytes


@dataclass
class Bundle:
    """The table of contents and the sections."""
    features: list
    target: bytes
    bases: list
    places: list
    layers: list
    memory_kib: int
    disk_kib: int
    sections: list


def read(data, public_key=None):
    """Parse and check a bundle; the signature too when there is a key."""
    reader = Reader(data, "bundle")
    need(reader.take(4) == b"SKB\x01", "no bundle of version 1")
    length = reader.number()
    need(length <= 4 << 20, "envelope too long")
    content = open_envelope(reader.take(length), PURPOSE, public_key)
    payload = data[reader.at:]
    return _table(content, payload)


def open_envelope(data, purpose, public_key):
    """Payload of a COSE_Sign1 (envelope.md)."""
    parts = cbor.load(data)
    need(isinstance(parts, list) and len(parts) == 4, "envelope is no array of four")
    protected, unprotected, payload, signature = parts
    header = cbor.load(protected)
    need(set(header) == {1, 4} and header[1] == -8, "protected header")
    need(unprotected == {} and len(signature) == 64, "envelope")
    if public_key is not None:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        need(header[4] == hashlib.sha256(public_key).digest()[:8], "another key id")
        signed = cbor.dump_sig_structure(protected, purpose, payload)
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, signed)
    return payload


def _table(content, payload):
    need(content[:1] in (b"\0", b"\1"), "table of contents of an unknown form")
    table = content[1:] if content[0] == 0 else zstd.decode(content[1:], 4 << 20, magic=True)
    items = cbor.load(table)
    unknown = set(items[0]) - set(KNOWN_FEATURES)
    need(not unknown, f"unknown features {unknown}")
    need(len(items) == 9, "table of contents is no array of nine")
    features, target, bases, places, layers, numbers, memory, disk, digests = items
    need(len(target) == 32 and len(bases) <= 64 and 1 <= len(layers) <= 512, "table of contents")
    _check_chunks(payload, digests)
    return Bundle(features, target, bases, places, layers, memory, disk,
                  _sections(numbers, payload))


def _check_chunks(payload, digests):
    chunks = [payload[at:at + CHUNK] for at in range(0, len(payload), CHUNK)]
    need(len(digests) == 16 * len(chunks), "number of chunk digests")
    for index, chunk in enumerate(chunks):
        need(hashlib.sha256(chunk).digest()[:16] == digests[16 * index:16 * index + 16],
             f"chunk {index} is damaged")


def _sections(numbers, payload):
    need(len(numbers) % 4 == 0 and len(numbers) <= 4 * 8192, "sections")
    sections, at, last = [], 0, 0
    for index in range(0, len(numbers), 4):
        stream, coder, decoded, length = numbers[index:index + 4]
        need(last <= stream <= 31, "stream unknown or out of order")
        need(coder in CODERS or is_lzma(coder), f"unknown coder {coder}")
        sections.append(Section(stream, coder, decoded, payload[at:at + length]))
        at += length
        last = stream
    need(at == len(payload) and at <= U64, "payload is not its sections")
    return sections
