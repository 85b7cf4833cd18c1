"""Context mixing: coders 128, 129 and 130 (codec-mix.md)."""

from .numbers import log2, need

M32 = (1 << 32) - 1
FRESH = 1 << 15


def _curve():
    """squash for -3071..3071 (index x + 3071), and stretch for p >> 4."""
    decay, power = 18374827189232735005, 1 << 64
    upper = []
    for _ in range(3072):
        upper.append(min(65535, (1 << 80) // ((1 << 64) + power)))
        power = power * decay >> 64
    lower = [max(1, 65535 - value) for value in upper[:0:-1]]
    squashed = lower + upper
    stretched, x = [], 0
    for index in range(4096):
        while x < len(squashed) - 1 and squashed[x] < index * 16 + 8:
            x += 1
        stretched.append(x - 3071)
    return squashed, stretched


SQUASH, STRETCH = _curve()


def squash(x):
    return SQUASH[max(-3071, min(3071, x)) + 3071]


def mix_hash(a, b):
    """hash(a, b) of two 32-bit numbers."""
    h = ((a * 0x2C1B3C6D ^ b + 0x9E3779B9) * 0x297A2D39) & M32
    return h ^ h >> 15


class Bits:
    """The arithmetic decoder."""

    def __init__(self, data):
        self.data, self.at = data, 4
        self.low, self.high = 0, M32
        self.code = int.from_bytes(data[:4].ljust(4, b"\0"), "big")

    def bit(self, probability):
        mid = self.low + ((self.high - self.low) * probability >> 16)
        bit = int(self.code <= mid)
        if bit:
            self.high = mid
        else:
            self.low = mid + 1
        while (self.low ^ self.high) < 1 << 24:
            byte = self.data[self.at] if self.at < len(self.data) else 0
            self.at += 1
            self.low = self.low << 8 & M32
            self.high = self.high << 8 & M32 | 0xFF
            self.code = self.code << 8 & M32 | byte
        return bit


class Engine:
    """Slots and weights of one kind of bit."""

    def __init__(self, bits, slots, limit, contexts, *sets):
        self.bits, self.limit, self.mask = bits, limit, (1 << slots) - 1
        self.probability = [FRESH] * (1 << slots)
        self.check = [0] * (1 << slots)
        self.count = [0] * (1 << slots)
        self.weights = [[1 << 14] * (size * contexts) for size in sets]
        self.contexts = contexts

    def flag(self, hashes, *chosen):
        """A bit whose contexts choose slots of their own."""
        return self._bit([h & self.mask for h in hashes], [h >> 22 for h in hashes], chosen)

    def byte(self, hashes, chosen):
        """A byte; chosen(done, bits) are the weights for its next bit."""
        done = 1
        for index in range(8):
            if index & 3 == 0:
                lines = [mix_hash(h, done + 1024 * index) for h in hashes]
                checks = [h >> 22 for h in lines]
                starts = [(h & self.mask) & ~15 for h in lines]
                place = 1
            bit = self._bit([s + place for s in starts], checks, chosen(done, index))
            done, place = done * 2 + bit, place * 2 + bit
        return done & 255

    def _bit(self, slots, checks, chosen):
        inputs, seen = [], []
        for slot, check in zip(slots, checks):
            # Contexts that meet in one slot all see it as it was before this bit.
            fresh = self.check[slot] != check
            p, count = (FRESH, 0) if fresh else (self.probability[slot], self.count[slot])
            inputs.append(STRETCH[p >> 4] if count else 0)
            seen.append((slot, check, p, count))
        sums = []
        for weights, index in zip(self.weights, chosen):
            first = index * self.contexts
            total = sum(weights[first + i] * value for i, value in enumerate(inputs)) >> 16
            sums.append(max(-4000, min(4000, total)))
        mixed = squash(sums[0] if len(sums) == 1 else sums[0] + sums[1] >> 1)
        bit = self.bits.bit(mixed)
        self._learn(bit, seen, inputs, sums, chosen)
        return bit

    def _learn(self, bit, seen, inputs, sums, chosen):
        target = 65535 if bit else 0
        for weights, index, total in zip(self.weights, chosen, sums):
            first, error = index * self.contexts, target - squash(total)
            for i, value in enumerate(inputs):
                weight = weights[first + i] + (value * error + (1 << 13) >> 14)
                weights[first + i] = (weight + (1 << 31) & M32) - (1 << 31)
        for slot, check, p, count in seen:  # the last one that writes a slot counts
            p += (target - p) * ((1 << 17) // (2 * count + 3)) >> 16
            self.check[slot] = check
            self.probability[slot] = max(16, min(65519, p))
            self.count[slot] = min(count + 1, self.limit)


def decode_bytes(data, length):
    """Coder 128."""
    need(length <= 4 << 20, "mixing: section too long")
    slots = max(14, min(19, log2(16 * length or 1)))
    places = [0] * (1 << max(10, min(17, log2(length or 1))))
    engine = Engine(Bits(data), slots, 60, 8, 256, 4096)
    out, word, match, run = bytearray(), 0, 0, 0
    last = 0
    for _ in range(length):
        expected = out[match] if run else 0
        hashes = [0, mix_hash(1, last & 0xFF), mix_hash(2, last & 0xFFFF),
                  mix_hash(3, last & 0xFFFFFF), mix_hash(4, last & M32),
                  mix_hash(mix_hash(5, last & M32), last >> 32),
                  mix_hash(mix_hash(6, word), last & 0xFF),
                  mix_hash(8, expected | run << 8) if run else mix_hash(7, last & 0xFF)]

        def chosen(done, bits):
            how = 0
            if run and (expected | 256) >> 8 - bits == done:
                how = (min(log2(run), 5) + 1) * 2 + (expected >> 7 - bits & 1)
            return done & 255, how * 256 + (last & 0xFF)

        byte = engine.byte(hashes, chosen)
        out.append(byte)
        last = (last << 8 | byte) & (1 << 48) - 1
        word = mix_hash(word, byte) if chr(byte).isalnum() and byte < 128 else 0
        match, run = _repetition(out, places, match, run, last)
    return bytes(out)


def _repetition(out, places, match, run, last):
    """Where the expected byte stands, and the repetition's length, after a byte."""
    if run and out[match] == out[-1]:
        match, run = match + 1, min(run + 1, 63)
    else:
        run = 0
    key = 9
    for shift in (32, 24, 16, 8, 0):
        key = mix_hash(key, last >> shift & 0xFF)
    key &= len(places) - 1
    here = len(out)
    if not run:
        match = places[key]
        while run < 63 and run < match and out[match - 1 - run] == out[here - 1 - run]:
            run += 1
        if run < 5:
            run = 0
    places[key] = here
    return match, run


def scale(n):
    return n if n < 16 else 12 + n.bit_length()


class Differences:
    """Coders 129 and 130: each byte is asked for with the old byte beside it."""

    def __init__(self, data, length, fast):
        bits = Bits(data)
        self.bits, self.left, self.fast = bits, length, fast
        count = 4 if fast else 8
        self.blocks_engine = Engine(bits, 14, 60, 4, 64)
        self.flags_engine = Engine(bits, 16 if fast else 18, 60, count, *(1024, 256)[:1 if fast else 2])
        self.values_engine = Engine(bits, 16 if fast else 17, 30, count, *(256, 1024)[:1 if fast else 2])
        self.first_look = [1 << 14] * (1 << 14)
        self.d = [0] * 24                   # d[0] is d1, the last difference
        self.s = [0] * 4                    # s[0] is s1
        self.past = self.blocks = self.last = 0
        self.gap = self.gap1 = self.gap2 = 0
        self.block_left = 0                 # bytes of the current block to come
        self.block_set = self.block_seen = False

    def next(self, old):
        """The next difference; old is the byte beside it."""
        need(self.left > 0, "differences end early")
        if self.block_left == 0:
            self._begin_block()
        value = 0
        if self.block_set:
            certain = self.block_left == 1 and not self.block_seen
            if certain or self._flag(old):
                value = self._value(old)
                self.block_seen = True
        self._note(value, old)
        return value

    def _begin_block(self):
        h, gap, gap1, blocks = mix_hash, scale(self.gap), scale(self.gap1), self.blocks
        hashes = [h(1, blocks & 0xFF), h(2, blocks & 0xFFFF), h(3, gap << 6 | gap1),
                  h(4, (blocks & 0xFFFF).bit_count() << 6 | blocks & 3)]
        self.block_set = self.blocks_engine.flag(hashes, blocks & 63) == 1
        self.blocks = (blocks << 1 | self.block_set) & M32
        self.block_left, self.block_seen = min(32, self.left), False

    def _state(self):
        d, s = self.d, self.s
        carry = int(s[0] + d[0] > 255)
        return d, s, carry, scale(self.gap), scale(self.gap1), scale(self.gap2)

    def _flag(self, s0):
        h, past = mix_hash, self.past
        d, s, carry, gap, gap1, gap2 = self._state()
        far = (d[23] != 0) << 2 | (d[15] != 0) << 1 | (d[11] != 0)
        f1 = h(2, s0 | s[0] << 8 | (past & 15) << 16)
        f2 = h(3, s[0] | s[1] << 8 | s[2] << 16 | (past & 7) << 24)
        f3 = h(5, d[0] | d[1] << 8 | d[2] << 16 | carry << 24)
        f4 = h(7, d[7] | d[3] << 8 | far << 16 | (past & 7) << 19)
        if not self.fast:
            all_s = s[0] | s[1] << 8 | s[2] << 16 | s[3] << 24
            hashes = [h(1, past & 0xFFF), f1, f2, h(h(4, all_s), s0), f3,
                      h(6, gap | gap1 << 6 | gap2 << 12), f4,
                      h(8, s0 | s[0] << 8 | s[1] << 16 | min(gap, 15) << 24)]
            return self.flags_engine.flag(hashes, past & 1023, s[0])
        key = h(9, s[0] | (past & 3) << 8 | min(self.gap, 15) << 10) & (1 << 14) - 1
        p = self.first_look[key]
        if p < 1 << 11:
            bit = self.bits.bit(p)
        else:
            bit = self.flags_engine.flag([f1, f2, f3, f4], past & 1023)
        self.first_look[key] = max(24, p + ((65504 if bit else 0) - p >> 5))
        return bit

    def _value(self, s0):
        h, past, last = mix_hash, self.past, self.last
        d, s, carry, gap, gap1, _ = self._state()
        v1 = h(13, last & 0xFFFF)
        v2 = h(14, s0 | d[0] << 8)
        v3 = h(15, s0 | s[0] << 8 | s[1] << 16 | (past & 3) << 24)
        v4 = h(17, d[7] | d[3] << 8 | (past & 7) << 16)
        if self.fast:
            return self.values_engine.byte([v1, v2, v3, v4], lambda done, bits: (done & 255,))
        all_s = s0 | s[0] << 8 | s[1] << 16 | s[2] << 24
        hashes = [h(11, d[0] | carry << 8), h(12, d[0] | d[1] << 8 | carry << 16), v1, v2, v3,
                  h(h(16, all_s), d[0]), v4, h(18, last & 0xFF | gap << 8 | gap1 << 16)]
        return self.values_engine.byte(
            hashes, lambda done, bits: (done & 255, (past & 7) << 7 | bits << 4 | done & 15))

    def _note(self, value, old):
        self.d = [value] + self.d[:-1]
        self.s = [old] + self.s[:-1]
        self.past = (self.past << 1 | (value != 0)) & M32
        if value:
            self.last = (self.last << 8 | value) & M32
            self.gap, self.gap1, self.gap2 = 0, self.gap, self.gap1
        else:
            self.gap += 1
        self.block_left -= 1
        self.left -= 1
