"""The part of CBOR (RFC 8949) that bundles use: definite lengths, no floats, no tags."""

from .numbers import Reader, need, FormatError


def load(data):
    """Decode one item that takes all of the data."""
    reader = Reader(data, "CBOR")
    item = _item(reader)
    need(reader.left() == 0, "CBOR: bytes after the end")
    return item


def _item(reader, depth=0):
    need(depth < 16, "CBOR: too deep")
    head = reader.byte()
    major, small = head >> 5, head & 31
    if small < 24:
        value = small
    elif small < 28:
        value = int.from_bytes(reader.take(1 << small - 24), "big")
    else:
        raise FormatError("CBOR: indefinite length")
    if major == 0:
        return value
    if major == 1:
        return -1 - value
    if major == 2:
        return reader.take(value)
    if major == 3:
        return reader.take(value).decode()
    if major == 4:
        return [_item(reader, depth + 1) for _ in range(value)]
    if major == 5:
        return {_item(reader, depth + 1): _item(reader, depth + 1) for _ in range(value)}
    raise FormatError("CBOR: type not used here")


def dump_sig_structure(protected, external, payload):
    """Sig_structure of RFC 9052 for a COSE_Sign1."""
    def head(major, value):
        if value < 24:
            return bytes([major << 5 | value])
        for code, size in ((24, 1), (25, 2), (26, 4), (27, 8)):
            if value < 1 << 8 * size:
                return bytes([major << 5 | code]) + value.to_bytes(size, "big")
        raise FormatError("CBOR: number beyond 64 bits")

    text = b"Signature1"
    parts = [head(4, 4), head(3, len(text)), text]
    for piece in (protected, external, payload):
        parts += [head(2, len(piece)), piece]
    return b"".join(parts)
