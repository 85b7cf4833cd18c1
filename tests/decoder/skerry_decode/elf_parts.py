"""Parts of an old program and the places of its debugging information (codec-elf.md, Parts and DWARF)."""

from bisect import bisect_right
from dataclasses import dataclass

from .elf import words

(CODE, RELOCATIONS, SYMBOLS, UNWINDING, TABLE, WORDS, CONSTANTS, DEBUG, ADDRESSES,
 CLASS_DATA) = range(10)
NOTHING = None
COMPRESSED = 0x800


@dataclass
class Part:
    """Bytes that hold one thing."""
    start: int
    end: int
    holds: int
    link: int


class Parts:
    """The parts in order, and the sections of debugging information by name."""

    def __init__(self, data, program):
        self.debug = {}
        if program.class_data:
            segment = program.segments[0]
            found = [Part(segment.offset, segment.offset + segment.file_size, CLASS_DATA, 0)]
        else:
            found = self._sections(data)
            if not found:
                found = [Part(s.offset, s.offset + s.file_size, CODE, 0)
                         for s in program.segments if s.executable]
        self.parts, end = [], 0
        for part in sorted(found, key=lambda p: (p.start, p.end, p.holds)):
            part.start, part.end = max(part.start, end), min(part.end, len(data))
            if part.start < part.end:
                self.parts.append(part)
                end = part.end
        self.starts = [part.start for part in self.parts]

    def at(self, offset):
        index = bisect_right(self.starts, offset) - 1
        if index >= 0 and offset < self.parts[index].end:
            return self.parts[index]
        return None

    def _sections(self, data):
        table, = words(data, 40, 8)
        count, names_index = words(data, 60, 2, 2)
        if not 1 <= count <= 256 or names_index >= count or table + 64 * count > len(data):
            return []
        headers = []
        for at in range(table, table + 64 * count, 64):
            name, kind = words(data, at, 4, 2)
            flags, address, offset, size = words(data, at + 8, 8, 4)
            headers.append((name, kind, flags, address, offset, size, words(data, at + 40, 4)[0]))
        names_at, names_size = headers[names_index][4:6]
        names = data[names_at:names_at + min(names_size, 16384)]
        found = []
        for name_at, kind, flags, address, offset, size, link in headers:
            name = names[name_at:].split(b"\0", 1)[0].decode("latin-1")
            if offset + size >= 1 << 48:
                continue
            if kind == 1 and name.startswith(".debug_") and not flags & COMPRESSED:
                self.debug[name] = offset, size
            holds = _holds(kind, name, flags, address)
            if holds is not NOTHING:
                linked = headers[link][4] if 0 < link < count else 0
                found.append(Part(offset, offset + size, holds, linked if linked < 1 << 48 else 0))
        return found


def _holds(kind, name, flags, address):
    if kind == 4:
        return RELOCATIONS
    if kind in (2, 11):
        return SYMBOLS
    if kind == 1 and not flags & COMPRESSED:
        if name == ".debug_info":
            return DEBUG
        if name in (".debug_loc", ".debug_ranges", ".debug_line", ".debug_aranges"):
            return ADDRESSES
        if name in (".debug_abbrev", ".debug_str"):
            return NOTHING
    if kind == 8 or address == 0:
        return NOTHING
    if name == ".eh_frame":
        return UNWINDING
    if name == ".eh_frame_hdr":
        return TABLE
    if kind == 1 and name == ".rodata":
        return CONSTANTS
    if kind == 1 and flags & 4:
        return CODE
    if kind in (1, 6, 14, 15, 16) and flags & 1:
        return WORDS
    return NOTHING


# Debugging information

FIXED = {**dict.fromkeys((0x0B, 0x0C, 0x11, 0x25, 0x29), 1), **dict.fromkeys((0x12, 0x26, 0x2A, 0x05), 2),
         **dict.fromkeys((0x27, 0x2B), 3),
         **dict.fromkeys((0x06, 0x10, 0x1C, 0x1D, 0x1F, 0x28, 0x2C, 0x0E, 0x13, 0x17), 4),
         **dict.fromkeys((0x07, 0x14, 0x20, 0x01), 8), 0x1E: 16, 0x19: 0, 0x21: 0}
BLOCKS = {0x03: 2, 0x04: 4, 0x0A: 1, 0x09: 0}   # 0: a length in LEB128
LEB128 = (0x0D, 0x0F, 0x15, 0x1A, 0x1B, 0x22, 0x23)
MAX_FIELDS, MAX_UNITS, MAX_READ = 1 << 18, 1 << 15, 16 << 20


class Stop(Exception):
    """The walk ends for good."""


class Walk:
    """Finds the fields of .debug_info: offset -> (bytes, use, start that the value counts from)."""

    def __init__(self, data, sections):
        self.fields, self.read = {}, 0
        start, size = sections.get(".debug_info", (0, 0))
        self.start, self.end = start, start + size
        at, length = sections.get(".debug_abbrev", (0, 0))
        self.abbreviations = data[at:at + min(length, 65536)]
        self.sections = {name: sections.get(name, (0, 0))[0]
                         for name in (".debug_str", ".debug_ranges", ".debug_loc")}
        self.data = data
        if 1 <= size < 1 << 29 and self.end <= len(data):
            try:
                self._units()
            except (Stop, IndexError):
                pass

    def _number(self, at, size, end):
        if at + size > end:
            raise Stop
        return int.from_bytes(self.data[at:at + size], "little")

    @staticmethod
    def _leb(data, at, end):
        value = 0
        for index in range(9):
            if at >= end:
                raise Stop
            byte = data[at]
            at += 1
            value |= (byte & 127) << 7 * index
            if byte < 128:
                return value, at
        raise Stop

    def _units(self):
        at, known, table = self.start, None, {}
        for _ in range(MAX_UNITS):
            if at >= self.end:
                return
            unit, version = at, self._number(at + 4, 2, self.end)
            end = at + 4 + self._number(at, 4, self.end)
            if not 2 <= version <= 5 or end > self.end or end - self.start >= 1 << 29:
                raise Stop
            if version < 5:
                place, size, kind, at = self._number(at + 6, 4, end), self._number(at + 10, 1, end), 1, at + 11
            else:
                kind, size, place, at = self._number(at + 6, 1, end), self._number(at + 7, 1, end), \
                    self._number(at + 8, 4, end), at + 12
            if size == 8 and kind in (1, 3):
                if place != known:
                    known, table = place, self._table(place)
                self._entries(at, end, unit, table)
            at = end

    def _table(self, at):
        table, data = {}, self.abbreviations
        start, end = at, len(data)
        while True:
            number, at = self._leb(data, at, end)
            if number == 0:
                break
            if number >= 4096:
                raise Stop
            _, at = self._leb(data, at, end)
            at, attributes = at + 1, []
            while True:
                attribute, at = self._leb(data, at, end)
                form, at = self._leb(data, at, end)
                if attribute >= 1 << 16 or form >= 1 << 16:
                    raise Stop
                if form == 0x21:
                    _, at = self._leb(data, at, end)
                if attribute == 0 and form == 0:
                    break
                attributes.append((attribute, form))
            table[number] = attributes
        self.read += at - start
        if self.read > MAX_READ:
            raise Stop
        return table

    def _entries(self, at, end, unit, table):
        while at < end:
            number, at = self._leb(self.data, at, end)
            if number == 0:
                continue
            if number not in table:
                raise Stop
            for attribute, form in table[number]:
                at = self._value(at, end, unit, attribute, form)

    def _value(self, at, end, unit, attribute, form):
        if form in FIXED:
            self._number(at, FIXED[form], end)
            self._field(at, unit, attribute, form)
            return at + FIXED[form]
        if form in BLOCKS or form == 0x18:
            size = BLOCKS.get(form, 0)
            if size:
                length, at = self._number(at, size, end), at + size
            else:
                length, at = self._leb(self.data, at, end)
            if at + length > end:
                raise Stop
            if form == 0x18 and length >= 9 and self.data[at] == 3:
                self._add(at + 1, 8, "listed", 0)
            return at + length
        if form == 0x08:
            place = self.data.find(b"\0", at, end)
            if place < 0:
                raise Stop
            return place + 1
        if form in LEB128:
            return self._leb(self.data, at, end)[1]
        raise Stop

    def _field(self, at, unit, attribute, form):
        if form == 0x01:
            self._add(at, 8, "listed", 0)
        elif form == 0x0E:
            self._add(at, 4, "text", self.sections[".debug_str"])
        elif form == 0x13:
            self._add(at, 4, "debug entry", unit)
        elif form == 0x17 and attribute == 0x55:
            self._add(at, 4, "ranges", self.sections[".debug_ranges"])
        elif form == 0x17 and attribute != 0x10:
            self._add(at, 4, "locations", self.sections[".debug_loc"])
        elif form == 0x05 and attribute in (0x3B, 0x59):
            self._add(at, 2, "line", 0)

    def _add(self, at, size, use, start):
        if len(self.fields) >= MAX_FIELDS:
            raise Stop
        self.fields[at] = size, use, start
