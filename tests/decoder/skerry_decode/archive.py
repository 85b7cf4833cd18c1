"""Codec 6, archives (codec-archive.md): reading the entries of a new archive."""

import zlib
from dataclasses import replace

from . import contents, gnu
from .archive_model import (DEFLATED, PNG, STORED, ZIP, Archive, Entry, Meta, take_apart,
                            with_content, write)
from .numbers import need, unfold

ENTRIES, ENTRY_SOURCE, ENTRY_NUMBER, ENTRY_TEXT, ENTRY_CODEC, ENTRY_TIME = range(25, 31)
DENSE = 21

NEXT, NAME, TIME, META, CONTENT = 1, 2, 4, 8, 16
RAW, PLAIN, NEW, BIDIFF, DICTIONARY, NESTED, CARRIED, PROGRAM = range(8)


class OldArchive:
    """An old archive that the patch has mentioned."""

    def __init__(self, model):
        self.model, self.next = model, 0


class Archives:
    """The list of old archives, kept over the whole patch."""

    def __init__(self, streams, members):
        self.streams, self.members = streams, members
        self.numbers, self.list = {}, []    # where -> number; old archives
        self.last = 0

    def decode(self, member):
        """The new archive whose base is an old member."""
        return self._archive(self._mention((member,)), (member,), 0)

    def _mention(self, where):
        """Number of the old archive, which joins the list if it is new; its parent has before."""
        if where not in self.numbers:
            need(len(self.list) < 65536, "too many archives")
            need(len(where) <= 4, "source: archives too deep")
            if len(where) == 1:
                data = self.members[where[0]].content
            else:
                parent = self.list[self.numbers[where[:-1]]].model
                need(where[-1] < len(parent.entries), "source: entry")
                data = parent.entries[where[-1]].content()
            self.numbers[where] = len(self.list)
            self.list.append(OldArchive(take_apart(data)))
        return self.numbers[where]

    def _archive(self, base, where, depth):
        need(depth <= 3, "archives too deep")
        old, number = self.list[base].model, self.streams[ENTRY_NUMBER]
        archive = Archive(number.number(), [])
        count = 1
        need(archive.kind <= PNG, "archive of an unknown kind")
        if archive.kind == ZIP:
            count = number.number()
            need(count <= 65535, "zip: too many entries")
            archive.prefix, archive.comment = self._text(), self._text()
        state = EntryState()
        for _ in range(count):
            archive.entries.append(self._entry(archive, old, base, where, state, depth))
        return write(archive)

    def _text(self):
        length = self.streams[ENTRY_NUMBER].number()
        need(length <= 65535, "text too long")
        return self.streams[ENTRY_TEXT].take(length)

    def _entry(self, archive, old, base, where, state, depth):
        streams = self.streams
        flags, number = streams[ENTRIES].byte(), state.next_base
        need(flags < 32, "entry: flags")
        if not flags & NEXT:
            code = streams[ENTRY_SOURCE].number()
            number = None if code == 0 else state.next_base + unfold(code - 1)
        need(number is None or 0 <= number < len(old.entries), "entry: base")
        source = None if number is None else old.entries[number]
        need(source is not None or not flags & (NAME | CONTENT), "entry without a base")
        entry = Entry()
        if flags & NAME:
            entry.name = source.name
        else:
            shared = streams[ENTRY_NUMBER].number()
            need(shared <= len(state.name), "entry: name")
            entry.name = state.name[:shared] + self._text()
        entry.time = state.time
        if source is not None:
            entry.time = state.times.get(source.time, state.time)
        if not flags & TIME:
            entry.time += streams[ENTRY_TIME].signed()
        if flags & META:
            entry.meta = state.meta if source is None else source.meta
        else:
            entry.meta = self._meta()
        if source is not None:
            state.note_time(source.time, entry.time)
            state.next_base = number + 1
        state.name, state.time, state.meta = entry.name, entry.time, entry.meta
        if flags & CONTENT:
            return replace(entry, coded=source.coded, checksum=source.checksum, size=source.size)
        return self._content(entry, archive.kind, (base, where, number), depth)

    def _meta(self):
        text = self.streams[ENTRY_TEXT]
        words = tuple(int.from_bytes(text.take(2), "little") for _ in range(6))
        attributes = int.from_bytes(text.take(4), "little")
        return Meta(words, attributes, tuple(text.text(65535) for _ in range(3)))

    def _named(self):
        """A named source: number and place of its archive, and its entry."""
        stream = self.streams[ENTRY_SOURCE]
        number = self.last + stream.signed()
        need(0 <= number <= len(self.list), "source: archive")
        if number == len(self.list):
            where = self._where()
            need(where not in self.numbers, "source: archive is in the list")
            number = self._mention(where)   # a higher one when its parent has joined too
        where = next(w for w, n in self.numbers.items() if n == number)
        self.last = number
        return number, where, self.list[number].next + stream.signed()

    def _where(self):
        stream = self.streams[ENTRY_SOURCE]
        code = stream.number()
        if code == 0:
            return (stream.number(),)
        if code == 1:
            parent = self._where()
            need(parent not in self.numbers, "source: parent is in the list")
            self._mention(parent)
            return parent + (stream.number(),)
        need(code - 2 < len(self.list), "source: parent")
        parent = next(w for w, n in self.numbers.items() if n == code - 2)
        return parent + (stream.number(),)

    def _content(self, entry, kind, source, depth):
        streams = self.streams
        code = streams[ENTRY_CODEC].byte()
        way, new_kind = code & 7, code >> 4 & 3
        need(code < 64, "entry: way")
        number, where, place = self._named() if code & 8 else source
        old = None
        if place is not None:
            need(0 <= place < len(self.list[number].model.entries), "source: entry")
            old = self.list[number].model.entries[place]
            self.list[number].next = place + 1
        if way == RAW:
            need(old is not None, "raw without a source")
            return replace(entry, coded=old.coded, checksum=old.checksum, size=old.size)
        if way == CARRIED:
            coded, size = streams[ENTRY_NUMBER].number(), streams[ENTRY_NUMBER].number()
            checksum = int.from_bytes(streams[ENTRY_TEXT].take(4), "little")
            return replace(entry, coded=streams[DENSE].take(coded), checksum=checksum, size=size)
        level = None
        need(entry.method in (STORED, DEFLATED), "entry: method")
        if entry.method == DEFLATED:
            level = streams[ENTRY_CODEC].byte()
        if way == NESTED:
            inner = where + (place,)
            content = self._archive(self._mention(inner), inner, depth + 1)
        else:
            content = self._made(way, new_kind, old)
        return with_content(entry, kind, content, deflate(content, level))

    def _made(self, way, kind, entry):
        if way == PLAIN:
            return entry.content()
        old_size = entry.size if entry is not None else 0
        size = old_size + self.streams[ENTRY_NUMBER].signed()
        need(size >= 0, "entry: size")
        if way == NEW:
            return contents.new(self.streams, size, kind)
        need(entry is not None, "way without a source")
        if way == BIDIFF:
            return contents.bidiff(self.streams, entry.content(), size, kind)
        if way == DICTIONARY:
            return contents.dictionary(self.streams, entry.content(), size)
        return contents.program(self.streams, entry.content(), size, kind)


class EntryState:
    """What is kept from entry to entry of one archive."""

    def __init__(self):
        self.next_base, self.name, self.time, self.meta = 0, b"", 0, Meta()
        self.times = {}

    def note_time(self, old, new):
        if len(self.times) >= 4096:
            self.times.clear()
        self.times[old] = new


def deflate(content, level):
    """Coded content: as it is, by zlib or by GNU gzip."""
    if level is None:
        return content
    if 1 <= level <= 9:
        compressor = zlib.compressobj(level, zlib.DEFLATED, -15, 8)
        return compressor.compress(content) + compressor.flush()
    need(17 <= level <= 25, "level")
    return gnu.deflate(content, level - 16)
