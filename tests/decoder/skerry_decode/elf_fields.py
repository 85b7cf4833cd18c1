"""Fields of codec 4 (codec-elf.md, Fields and Forms): looking through the runs and decoding."""

from . import elf_parts as P
from .elf import CLASS_DATA_BASE, FILE, LINE
from .numbers import U64

SCALED = (0x39, 0x79, 0xB9, 0xF9, 0x3D, 0x7D, 0xBD, 0xFD)


def signed(value, bits):
    return value - (1 << bits) if value >> bits - 1 & 1 else value


def little(data):
    return int.from_bytes(data, "little")


def toward_zero(a, b):
    return a // b if a >= 0 else -(-a // b)


def behind_displacement(before, m):
    """Bytes behind the displacement of an x86 instruction, or None (Opcodes)."""
    o, e, c, d, f = before[:-6:-1]
    if e == 0x0F or c == 0xC5 or d == 0xC4:
        one = (0x70 <= o <= 0x73 or o in (0xA4, 0xAC, 0xBA, 0xC2) or 0xC4 <= o <= 0xC6
               or d == 0xC4 and c & 0x1F == 3)
        return int(one)
    if c == 0x0F and e in (0x38, 0x3A):
        return int(e == 0x3A)
    group3 = (m >> 3 & 7) in (0, 1)
    if o in (0x80, 0x83, 0x6B, 0xC0, 0xC1, 0xC6) or o == 0xF6 and group3:
        return 1
    if o in (0x81, 0xC7) and e == 0x66:
        return 2
    if o in (0x81, 0xC7, 0x69) or o == 0xF7 and group3:
        return 4
    if (o == 0x63 or 0x84 <= o <= 0x8D or 0xD0 <= o <= 0xD3 or 0xD8 <= o <= 0xDF
            or o in (0xF6, 0xF7, 0xFE, 0xFF)):
        return 0
    if o & 0xC4 == 0 or f == 0x62:
        return 0
    return None


def offset_of(word):
    """Offset, scale and register of an aarch64 instruction with an offset, or None."""
    top, number = word >> 24, word >> 10 & 0xFFF
    if top == 0x91 and word >> 22 & 3 == 0:
        return number, 0, word >> 5 & 31
    if top in SCALED:
        scale = 4 if top == 0x3D and word >> 23 & 1 else word >> 30
        if number << scale < 4096:
            return number << scale, scale, word >> 5 & 31
    return None


class Looker:
    """Looks through runs of old bytes and makes the new ones."""

    def __init__(self, old, old_program, new_program, leader, guesser, differences, out):
        self.old, self.out, self.differences = old, out, differences
        self.old_program, self.new_program = old_program, new_program
        self.leader, self.guesser = leader, guesser
        self.parts = P.Parts(old, old_program)
        self.places = P.Walk(old, self.parts.debug).fields
        self.kinds = {
            P.CODE: self._x86 if old_program.machine == 62 else self._aarch64,
            P.RELOCATIONS: self._relocations, P.SYMBOLS: self._symbols, P.UNWINDING: self._unwinding,
            P.TABLE: self._table, P.WORDS: self._words, P.CONSTANTS: self._constants,
            P.DEBUG: self._debug, P.ADDRESSES: self._addresses, P.CLASS_DATA: self._class_data}

    def run(self, old, new, length):
        """One run, or what is left of it behind the first 4096 new bytes."""
        self.history, self.row, self.pages = bytes(8), None, {}
        end = old + length
        while old < end:
            part, done = self.parts.at(old), 0
            self.place, self.new_place = old, new
            if part is not None:
                limit = min(end, part.end, self.old_program.end(old),
                            old + self.new_program.end(new) - new, old + 24)
                self.here, self.new_here = self.old_program.address(old), self.new_program.address(new)
                done = self.kinds[part.holds](self.old[old:limit], old - part.start, part)
            if not done:
                self._plain(0, 1)
                done = 1
            if part is not None:
                self.history = (self.history + self.old[old:old + done])[-8:]
            old, new = old + done, new + done

    # Bytes and fields

    def _plain(self, first, count):
        for index in range(first, first + count):
            byte = self.old[self.place + index]
            self.out[self.new_place + index] = byte + self.differences.difference(byte) & 255

    def _field(self, first, size, target, use, base, factor=1, is_signed=True):
        """A field of so many bytes: value = (address - base) / factor."""
        bits = 8 * size
        guess = self.guesser.guess(target & U64, use)
        expected = guess - base
        if factor != 1:
            expected = toward_zero(signed(expected & U64, 64), factor)
        coded = little(bytes(self.differences.difference(byte) for byte in
                             self.old[self.place + first:self.place + first + size]))
        value = expected + (coded >> 1 ^ -(coded & 1)) & (1 << bits) - 1
        self.out[self.new_place + first:self.new_place + first + size] = value.to_bytes(size, "little")
        number = signed(value, bits) if is_signed else value
        self.guesser.learn(target & U64, use, base + factor * number & U64)

    def _entry(self, first, target, distance_of):
        """Bytes 4-7 of an unwinding entry: new here + 4 - address."""
        guess = self.guesser.guess(target & U64, "entry")
        coded = little(bytes(self.differences.difference(byte) for byte in
                             self.old[self.place + first:self.place + first + 4]))
        value = distance_of - guess + (coded >> 1 ^ -(coded & 1)) & 0xFFFFFFFF
        self.out[self.new_place + first:self.new_place + first + 4] = value.to_bytes(4, "little")
        self.guesser.learn(target & U64, "entry", distance_of - value & U64)

    def _of_section(self, first, size, start, value, use):
        self._field(first, size, FILE + start + value, use,
                    FILE + self.leader.lead(start)[0], is_signed=False)

    def _in_segment(self, address):
        return self.old_program.of_address(address & U64) is not None

    def _word(self, seen, use):
        """Eight bytes that are an address in a segment, above 512."""
        value = little(seen[:8])
        if len(seen) < 8 or value <= 512 or not self._in_segment(value):
            return 0
        self._field(0, 8, value, use, 0, is_signed=False)
        return 8

    # Parts

    def _x86(self, seen, _at, _part):
        def branch(opcode, use):
            if len(seen) < opcode + 4:
                return 0
            target = self.here + opcode + 4 + signed(little(seen[opcode:opcode + 4]), 32)
            if not self.old_program.in_code(target & U64):
                return 0
            self._plain(0, opcode)
            self._field(opcode, 4, target, use, self.new_here + opcode + 4)
            return opcode + 4

        if seen[0] == 0xE8:
            return branch(1, "call")
        if seen[0] == 0xE9:
            return branch(1, "jump")
        if seen[0] == 0x0F and len(seen) > 1 and seen[1] & 0xF0 == 0x80:
            return branch(2, "jump")
        if seen[0] & 0xC7 == 5 and len(seen) >= 5:
            behind = behind_displacement(self.history, seen[0])
            if behind is not None:
                distance = 5 + behind
                target = self.here + distance + signed(little(seen[1:5]), 32)
                if self._in_segment(target):
                    use = "word" if seen[0] in (0x15, 0x25) else "data"
                    self._plain(0, 1)
                    self._field(1, 4, target, use, self.new_here + distance)
                    return 5
        return 0

    def _aarch64(self, seen, _at, _part):
        if self.here % 4 or len(seen) < 4:
            return 0
        word = little(seen[:4])
        top = word >> 24
        if 0x94 <= top <= 0x97:
            return self._branch(word, 0, 26, "call")
        if 0x14 <= top <= 0x17:
            return self._branch(word, 0, 26, "jump")
        if top == 0x54 and not word & 16 or top in (0x34, 0x35, 0xB4, 0xB5):
            return self._branch(word, 5, 19, "jump")
        if top in (0x36, 0x37, 0xB6, 0xB7):
            return self._branch(word, 5, 14, "jump")
        if top in (0x90, 0xB0, 0xD0, 0xF0):
            return self._page(word, seen)
        return self._rest(word)

    def _instruction(self, expected):
        """Four bytes with differences to the expected instruction; the new one."""
        made = bytes(byte + self.differences.difference(old) & 255 for byte, old in
                     zip(expected.to_bytes(4, "little"), self.old[self.place:self.place + 4]))
        self.out[self.new_place:self.new_place + 4] = made
        return little(made)

    def _branch(self, word, low, bits, use):
        mask = (1 << bits) - 1
        target = self.here + 4 * signed(word >> low & mask, bits) & U64
        if not self.old_program.in_code(target):
            return 0
        value = signed(self.guesser.guess(target, use) - self.new_here & U64, 64) >> 2
        made = self._instruction(word & ~(mask << low) | (value & mask) << low)
        became = self.new_here + 4 * signed(made >> low & mask, bits)
        self.guesser.learn(target, use, became & U64)
        return 4

    def _page(self, word, seen):
        register = word & 31
        self.pages.pop(register, None)
        number = signed(word >> 5 & 0x7FFFF, 19) << 2 | word >> 29 & 3
        page = (self.here & ~4095) + 4096 * number & U64
        if not self._in_segment(page) and not self._in_segment(page + 4095):
            return 0
        target = page
        for at in range(4, len(seen) - 3, 4):
            found = offset_of(little(seen[at:at + 4]))
            if found is not None and found[2] == register:
                target = page + found[0]
                break
        value = (self.guesser.guess(target, "data") >> 12) - (self.new_here >> 12)
        made = self._instruction(word & ~(0x7FFFF << 5 | 3 << 29)
                                 | (value >> 2 & 0x7FFFF) << 5 | (value & 3) << 29)
        number = signed(made >> 5 & 0x7FFFF, 19) << 2 | made >> 29 & 3
        self.pages[register] = page, (self.new_here & ~4095) + 4096 * number & U64
        return 4

    def _rest(self, word):
        found = offset_of(word)
        if found is None or found[2] not in self.pages:
            return 0
        offset, scale, register = found
        page, new_page = self.pages[register]
        if word & 31 == register:
            del self.pages[register]
        target = page + offset & U64
        value = (self.guesser.guess(target, "data") & 4095) >> scale
        made = self._instruction(word & ~(0xFFF << 10) | value << 10)
        self.guesser.learn(target, "data", new_page + ((made >> 10 & 0xFFF) << scale) & U64)
        return 4

    def _relocations(self, seen, at, part):
        at %= 24
        if at == 0 and len(seen) >= 8:
            self._field(0, 8, little(seen[:8]), "place", 0, is_signed=False)
            return 8
        if at == 12 and part.link and len(seen) >= 4 and little(seen[:4]):
            start = FILE + self.leader.lead(part.link)[0]
            self._field(0, 4, FILE + part.link + 24 * little(seen[:4]), "index", start,
                        factor=24, is_signed=False)
            return 4
        if at == 16 and len(seen) >= 8 and little(self.history[:4]) in (8, 37, 1027, 1032):
            self._field(0, 8, little(seen[:8]), "addend", 0, is_signed=False)
            return 8
        return 0

    def _symbols(self, seen, at, part):
        at %= 24
        if at == 0 and part.link and len(seen) >= 4 and little(seen[:4]):
            self._of_section(0, 4, part.link, little(seen[:4]), "name")
            return 4
        if at == 8 and len(seen) >= 8:
            value = little(seen[:8])
            if value and self._in_segment(value):
                self._field(0, 8, value, "symbol", 0, is_signed=False)
                return 8
        return 0

    def _unwinding(self, seen, at, _part):
        if at % 4 or len(seen) < 16:
            return 0
        length, back = little(seen[:4]), little(seen[4:8])
        target = self.here + 8 + signed(little(seen[8:12]), 32)
        if not 12 <= length <= 65535 or length % 4 or not 1 <= back <= at + 4 \
                or not self.old_program.in_code(target & U64):
            return 0
        own = None
        if len(seen) >= 21 and seen[16] == 4:
            own = self.here + 17 + signed(little(seen[17:21]), 32)
            own = own if self._in_segment(own) else None
        self._plain(0, 4)
        self._entry(4, self.here + 4 - back, self.new_here + 4)
        self._field(8, 4, target, "unwind", self.new_here + 8)
        self._plain(12, 4)
        if own is None:
            return 16
        self._plain(16, 1)
        self._field(17, 4, own, "own", self.new_here + 17)
        return 21

    def _table(self, seen, at, _part):
        if at < 12 or at % 4 or len(seen) < 4:
            return 0
        target = self.old_program.table_start + signed(little(seen[:4]), 32)
        self._field(0, 4, target, "unwind" if at % 8 == 4 else "entry", self.new_program.table_start)
        return 4

    def _words(self, seen, at, _part):
        return 0 if at % 8 else self._word(seen, "word")

    def _addresses(self, seen, _at, _part):
        return self._word(seen, "listed")

    def _constants(self, seen, _at, _part):
        if self.here % 4 or len(seen) < 4:
            return 0
        row, value = self.here if self.row is None else self.row, signed(little(seen[:4]), 32)
        if not value or not self.old_program.in_code(row + value & U64):
            self.row = None
            return 0
        self.row = row
        self._field(0, 4, row + value, "case", self.new_here + row - self.here)
        return 4

    def _debug(self, seen, _at, _part):
        if self.place not in self.places:
            return 0
        size, use, start = self.places[self.place]
        if len(seen) < size:
            return 0
        if use == "listed":
            return self._word(seen, use)
        value = little(seen[:size])
        if use == "line":
            self._field(0, 2, LINE + value, use, LINE, is_signed=False)
        else:
            self._of_section(0, size, start, value, use)
        return size

    def _class_data(self, seen, at, part):
        if at % 8 == 0:
            done = self._word(seen, "word")
            if done:
                return done
        if at % 4 or len(seen) < 20:
            return 0
        limit = part.end - part.start
        values = [little(seen[place:place + 4]) for place in range(0, 20, 4)]
        if any(v % 8 or not 4096 <= v < limit for v in values[::2]) or min(values[1::2]) < limit:
            return 0
        self._field(0, 4, CLASS_DATA_BASE + values[0], "offset", CLASS_DATA_BASE)
        return 4
