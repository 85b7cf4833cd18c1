"""Codec 4, programs (codec-elf.md): segments, where runs lead, guesses, and the decoding loop."""

from bisect import bisect_right
from dataclasses import dataclass

from .numbers import U64, need

PLAIN = 4096                                # new bytes with plain differences
FILE, LINE = 1 << 62, 1 << 61               # addresses of offsets in no segment, and of lines
CLASS_DATA_BASE = 0x800000000
GOLDEN = 0x9E3779B97F4A7C15


@dataclass
class Segment:
    """A PT_LOAD."""
    offset: int
    address: int
    file_size: int
    memory_size: int
    executable: bool


class Program:
    """What the headers of a file tell."""

    def __init__(self, head, machine=None):
        self.segments, self.table_start = [], 0
        self.class_data = head[:4] == bytes.fromhex("a2ab0bf0")
        if self.class_data:
            self.machine = 0
            self._class_data(head[:PLAIN])
        else:
            self._elf(head, machine)
        need(self.segments, "program without segments")

    def _elf(self, head, machine):
        need(head[:6] == b"\x7fELF\2\1", "no program")
        self.machine = int.from_bytes(head[18:20], "little") if machine is None else machine
        need(self.machine in (62, 183), "program of another machine")
        table, = words(head, 32, 8)
        size, count = words(head, 54, 2, 2)
        need(size == 56 and count <= 64 and table + 56 * count <= PLAIN, "program headers")
        for at in range(table, table + 56 * count, 56):
            kind, flags = words(head, at, 4, 2)
            offset, address, _, file_size, memory_size = words(head, at + 8, 8, 5)
            if kind == 1:
                need(max(offset, address, memory_size) < 1 << 48 and file_size <= memory_size,
                     "segment")
                self.segments.append(Segment(offset, address, file_size, memory_size, bool(flags & 1)))
            elif kind == 0x6474E550:
                self.table_start = address

    def _class_data(self, head):
        values = words(head, 0, 8, len(head) // 8)
        end, found = 0, False
        for first, start, used in zip(values, values[1:], values[2:]):
            if start % 4096 == 0 and start < 1 << 32 and first == start + 4096 \
                    and 1 <= used < 1 << 32 and (found or start == 0):
                found, end = True, max(end, start + used)
        if found:
            self.segments = [Segment(4096, CLASS_DATA_BASE, end, end, False)]
        self.table_start = CLASS_DATA_BASE

    def of_offset(self, offset):
        for segment in self.segments:
            if 0 <= offset - segment.offset < segment.file_size:
                return segment
        return None

    def of_address(self, address):
        for segment in self.segments:
            if 0 <= address - segment.address < segment.memory_size:
                return segment
        return None

    def in_code(self, address):
        segment = self.of_address(address)
        return segment is not None and segment.executable

    def address(self, offset):
        """Address of an offset."""
        segment = self.of_offset(offset)
        return FILE | offset if segment is None else offset - segment.offset + segment.address

    def end(self, offset):
        """End of the offset's segment, or of the bytes between segments."""
        segment = self.of_offset(offset)
        if segment is not None:
            return segment.offset + segment.file_size
        return min((s.offset for s in self.segments if s.offset > offset), default=1 << 63)


def words(data, at, size, count=1):
    """Little-endian numbers of one size."""
    need(at + size * count <= len(data), "program: ends early")
    return [int.from_bytes(data[p:p + size], "little") for p in range(at, at + size * count, size)]


@dataclass
class Run:
    """Old bytes that became new ones."""
    old: int
    new: int
    length: int

    @property
    def end(self):
        return self.old + self.length


class Leader:
    """Where the runs lead old offsets."""

    def __init__(self, runs):
        self.runs = sorted((run for run in runs if run.length), key=lambda run: run.old)
        self.starts = [run.old for run in self.runs]

    def lead(self, offset):
        """New offset, and whether a run covers the old one."""
        count = bisect_right(self.starts, offset)
        near = self.runs[max(0, count - 12):count]
        best = None
        for run in near:
            if offset < run.end and (best is None or run.length >= best.length):
                best = run
        covered = best is not None
        if not covered:
            for run in near:
                if best is None or run.end > best.end:
                    best = run
            if count < len(self.runs):
                after = self.runs[count]
                if best is None or after.old - offset < offset - best.end:
                    best = after
        if best is None:
            return offset, False
        return best.new + offset - best.old, covered


class Guesser:
    """What old targets became: five guesses and their scores."""

    def __init__(self, old, new, leader):
        self.old, self.new, self.leader = old, new, leader
        self.exact = [(0, 0)] * (1 << 16)
        self.near = [(0, 0)] * (1 << 14)
        self.last, self.scores, self.guesses = {}, {}, []

    def map(self, address):
        """New address by the runs, and whether it is covered."""
        if address >= FILE:
            if address - FILE < 1 << 32:
                offset, covered = self.leader.lead(address - FILE)
                return FILE + offset & U64, covered
            return address, False
        segment = self.old.of_address(address)
        if segment is None:
            return address, False
        if address - segment.address < segment.file_size:
            offset, covered = self.leader.lead(address - segment.address + segment.offset)
            there = self.new.of_offset(offset)
            if there is not None:
                return offset - there.offset + there.address, covered
        number = self.old.segments.index(segment)
        if number < len(self.new.segments):
            there = self.new.segments[number]
            shift = there.address + there.file_size - segment.address - segment.file_size
            return address + shift & U64, False
        return address, False

    def _keys(self, address):
        return (address * GOLDEN & U64) >> 48, ((address >> 6) * GOLDEN & U64) >> 50

    def guess(self, address, use):
        mapped, covered = self.map(address)
        exact, near = self._keys(address)
        guesses = [None] * 5
        if self.exact[exact][0] == address:
            guesses[0] = address + self.exact[exact][1] & U64
        guesses[1 if covered else 4] = mapped
        if self.near[near][0] == address >> 6:
            guesses[2] = address + self.near[near][1] & U64
        guesses[3] = address + self.last.get(use, 0) & U64
        scores = self.scores.setdefault(use, [40, 30, 20, 0, 10])
        best = max((i for i in range(5) if guesses[i] is not None), key=lambda i: (scores[i], -i))
        self.guesses = guesses
        return guesses[best]

    def learn(self, address, use, became):
        """After guess(), when it is known what the address became."""
        scores = self.scores[use]
        for index, guess in enumerate(self.guesses):
            if guess is not None:
                scores[index] += (4096 if guess == became else 0) - scores[index] >> 5
        if became >= LINE or self.new.of_address(became) is not None:
            shift = became - address & U64
            exact, near = self._keys(address)
            self.exact[exact] = address, shift
            self.near[near] = address >> 6, shift
            self.last[use] = shift


def decode_program(old, size, runs, differences, inserts):
    """The new content; runs are (old start, old bytes, inserted bytes)."""
    from .elf_fields import Looker          # it needs the classes above
    need(len(old) > PLAIN and size > PLAIN, "program too short")
    out, list_of_runs, made = bytearray(size), [], 0
    for at, add, insert in runs:
        list_of_runs.append(Run(at, made, add))
        end = made + add + insert
        out[made + add:end] = inserts.take(insert)
        made = end
    for run in list_of_runs:
        for index in range(max(0, min(run.length, PLAIN - run.new))):
            byte = old[run.old + index]
            out[run.new + index] = byte + differences.difference(byte) & 255
    old_program = Program(old)
    new_program = Program(bytes(out[:PLAIN]), old_program.machine)
    need(old_program.class_data == new_program.class_data, "programs of two kinds")
    leader = Leader(list_of_runs)
    looker = Looker(old, old_program, new_program, leader,
                    Guesser(old_program, new_program, leader), differences, out)
    for run in list_of_runs:
        skip = max(0, min(run.length, PLAIN - run.new))
        if skip < run.length:
            looker.run(run.old + skip, run.new + skip, run.length - skip)
    return bytes(out)
