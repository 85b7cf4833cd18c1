"""Numbers, signed numbers and texts (README.md), and a small reader over bytes."""

U64 = (1 << 64) - 1


class FormatError(Exception):
    """The bundle is not as the pages say."""


def need(condition, message):
    """Raise FormatError with the message unless the condition holds."""
    if not condition:
        raise FormatError(message)


def unfold(number):
    """Signed number coded by an unsigned one: 0, -1, 1, -2, ..."""
    return -(number + 1 >> 1) if number & 1 else number >> 1


def log2(number):
    """Logarithm to base two, rounded down."""
    return number.bit_length() - 1


class Reader:
    """Bytes that are read front to back."""

    def __init__(self, data, name="data"):
        self.data = bytes(data)
        self.at = 0
        self.name = name

    def take(self, count):
        end = self.at + count
        need(end <= len(self.data), f"{self.name} ends early")
        piece = self.data[self.at:end]
        self.at = end
        return piece

    def byte(self):
        return self.take(1)[0]

    def number(self):
        value = 0
        for group in range(10):
            byte = self.byte()
            value |= (byte & 0x7F) << 7 * group
            if byte < 0x80:
                need(value <= U64, f"{self.name}: number beyond 64 bits")
                return value
        raise FormatError(f"{self.name}: number of more than ten bytes")

    def signed(self):
        return unfold(self.number())

    def text(self, limit=1 << 20):
        length = self.number()
        need(length <= limit, f"{self.name}: text too long")
        return self.take(length)

    def left(self):
        return len(self.data) - self.at

    def finish(self):
        need(self.left() == 0, f"{self.name}: {self.left()} bytes not read")
