"""The patch (patch.md): configuration and layers from streams and base layers."""

import re

from . import bytecode, contents
from . import streams as S
from .archive import Archives
from .layer import Member, padding, read_form, take_apart, write_header
from .numbers import U64, need, unfold

DIGEST = re.compile(rb"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")


class Times:
    """What times became; members and bytecode share it."""

    def __init__(self):
        self.map, self.shift, self.code_shift = {}, 0, 0


class Patch:
    """State of a patch over all layers."""

    def __init__(self, streams, base_tars):
        self.streams, self.times = streams, Times()
        self.members = [member for tar in base_tars for member in take_apart(tar)]
        self.forms = list(dict.fromkeys(m.form for m in self.members if m.form is not None))
        self.kept = []
        self.next_base = self.next_source = 0
        self.path, self.form, self.time = b"", 0, 0
        self.archives = Archives(streams, self.members)

    # Configuration

    def configuration(self, base, diff_ids):
        """The target's configuration from the first base's."""
        table, marked_base = [], base

        def mark(match):
            digest = bytes.fromhex(match[0].decode())
            if digest not in table:
                if len(table) == 255:
                    return match[0]
                table.append(digest)
            return bytes([1, table.index(digest)])

        if b"\x01" not in base:
            marked_base = DIGEST.sub(mark, base)
        for diff_id in diff_ids:
            if diff_id not in table and len(table) < 255:
                table.append(diff_id)
        is_marked = self.streams[S.CODEC].byte()
        need(is_marked < 2, "configuration: first byte")
        length = self.streams[S.SIZES].number()
        need(length <= 4 << 20, "configuration too long")
        text = contents.bidiff(self.streams, marked_base, length, 0)
        if not is_marked:
            return text
        digests = self.streams[S.DIGESTS]
        need(digests.left() <= 8192 and digests.left() % 32 == 0, "digests")
        while digests.left():
            table.append(digests.take(32))
        return re.sub(rb"\x01(.)", lambda m: table[m[1][0]].hex().encode(), text, flags=re.S)

    # Layers

    def layer(self, size):
        """One layer of so many bytes."""
        out = bytearray()
        while True:
            flags = self.streams[S.FLAGS].byte()
            base = self.next_base
            if not flags & 1:
                code = self.streams[S.BASE].number()
                if code == 0:
                    base = None
                elif code == 1:
                    out += self.streams[S.RAW].take(self._size_not_0())
                    continue
                elif code == 2:
                    out += self._content(None, self._size_not_0())
                    continue
                elif code == 3:
                    need(len(out) <= size, "layer: too long")
                    return bytes(out.ljust(size, b"\0"))
                else:
                    base += unfold(code - 4)
            out += self._member(flags, base)
            need(len(out) <= size, "layer: too long")

    def _size_not_0(self):
        size = self.streams[S.SIZES].number()
        need(size, "size 0")
        return size

    def _member(self, flags, number):
        streams, old = self.streams, Member()
        if number is not None:
            need(0 <= number < len(self.members), "base beyond the members")
            old = self.members[number]
            need(old.form is not None, "base is a bare content")
        new = Member()
        if flags & 2:
            need(number is not None, "path expected without a base")
            new.path = old.path
        else:
            shared = streams[S.PATH_NUMBERS].number()
            count = streams[S.PATH_NUMBERS].number()
            need(shared <= len(self.path) and shared + count <= 1 << 20, "path: length")
            new.path = self.path[:shared] + streams[S.PATH_BYTES].take(count)
        form = self._form(flags, old.form if number is not None else None)
        new.form = self.forms[form]
        if number is None:
            expected = self.time
        else:
            expected = self.times.map.get(old.time, old.time + self.times.shift & U64)
        new.time = expected if flags & 8 else expected + streams[S.TIMES].signed() & U64
        new.size = old.size if flags & 16 else streams[S.SIZES].number()
        new.link = old.link if flags & 64 else streams[S.LINKS].text()
        new.extras = old.extras if flags & 128 else streams[S.EXTRAS].text(2 << 20)
        self.path, self.form, self.time = new.path, form, new.time
        if number is not None:
            self.times.map[old.time] = new.time
            self.times.shift = new.time - old.time
            self.next_base = number + 1
        return write_header(new) + self._member_content(flags, number, new)

    def _form(self, flags, old_form):
        if flags & 4:
            return self.form if old_form is None else self.forms.index(old_form)
        form = self.streams[S.FORMS].number()
        need(form <= len(self.forms), "form skips a number")
        if form == len(self.forms):
            self.forms.append(read_form(self.streams[S.NEW_FORMS]))
        return form

    def _member_content(self, flags, number, new):
        content = b""
        if new.form.has_content and new.size:
            if flags & 32:
                need(number is not None, "content expected without a base")
                content = self.members[number].content
            else:
                content = self._content(number, new.size)
            need(len(content) == new.size, "content: size")
        return content + bytes(padding(len(content)) if new.form.padded else 0)

    # Contents

    def _content(self, number, size):
        code = self.streams[S.CODEC].byte()
        codec, kind = code & 7, code >> 4 & 3
        need(code < 128, "codec: bit 7")
        if codec == contents.NEW:
            content = contents.new(self.streams, size, kind)
        else:
            source = number
            if code & 8:
                source = self.next_source + self.streams[S.SOURCE].signed()
            need(source is not None and 0 <= source < len(self.members) + len(self.kept), "source")
            self.next_source = source + 1
            content = self._from_source(codec, kind, source, size)
        need(len(content) == size, "content: size")
        if code & 64:
            self.kept.append(content)
        return content

    def _from_source(self, codec, kind, source, size):
        if codec == contents.ARCHIVE:
            need(source < len(self.members), "archive from a kept content")
            return self.archives.decode(source)
        if source < len(self.members):
            old = self.members[source].content
        else:
            old = self.kept[source - len(self.members)]
        if codec == contents.COPY:
            return old
        if codec == contents.BIDIFF:
            return contents.bidiff(self.streams, old, size, kind)
        if codec == contents.DICTIONARY:
            return contents.dictionary(self.streams, old, size)
        if codec == contents.PROGRAM:
            return contents.program(self.streams, old, size, kind)
        need(codec == contents.BYTECODE, "unknown codec")
        return bytecode.decode(self.streams, self.times, old, size, kind)

    def finish(self):
        """Every stream must have been read to its end."""
        for stream in self.streams.values():
            stream.finish()
