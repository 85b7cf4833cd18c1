"""Tars as members (patch.md, "Taking a tar apart" and "Members as values")."""

from dataclasses import dataclass, field

from .numbers import FormatError, Reader, U64, need

BLOCK, MIB = 512, 1 << 20
FILE_TYPES = b"\0" + b"07"


def padding(size):
    return -size % BLOCK


# Fields of numbers

def parse_number(data):
    """A number of a header, or None."""
    if data[0] == 0x80 and len(data) == 12:
        value = int.from_bytes(data[1:], "big")
        return value if value <= U64 else None
    value = 0
    for byte in data.lstrip(b" \t\n\r\v\f"):
        if byte in b"\0 ":
            break
        if byte not in b"01234567":
            return None
        value = value * 8 + byte - 48
    return value if value <= U64 else None


def number_forms(value):
    """The twelve bytes of a size or time in each of its forms, None where it does not fit."""
    octal = b"%o" % value
    eleven = octal.rjust(11, b"0") if len(octal) <= 11 else None
    twelve = octal.rjust(12, b"0") if len(octal) <= 12 else None
    spaced = octal.rjust(11, b" ") if len(octal) <= 11 else None
    return [eleven and eleven + b"\0", eleven and eleven + b" ", twelve,
            b"\x80" + value.to_bytes(11, "big"), bytes(12) if value == 0 else None,
            spaced and spaced + b" "]


def checksum_forms(value):
    octal = b"%o" % value
    fits = len(octal) <= 6
    return [octal.rjust(6, b"0") + b"\0 " if fits else None, octal.rjust(7, b"0") + b"\0",
            octal.rjust(6, b" ") + b"\0 " if fits else None]


def first_form(forms, data):
    return forms.index(data) if data in forms else None


def checksum(block):
    return sum(block) - sum(block[148:156]) + 8 * 32


def is_header(block):
    return (len(block) == BLOCK and any(block) and parse_number(block[148:156]) == checksum(block)
            and parse_number(block[124:136]) is not None)


def text_of(data):
    return data.split(b"\0", 1)[0]


# Blocks and shapes

def make_block(shape, name, prefix, link, size, time):
    """A header block from a shape and its values."""
    need(len(name) <= 100 and len(prefix) <= 155 and len(link) <= 100, "header: text too long")
    size_field, time_field = number_forms(size)[shape[125]], number_forms(time)[shape[126]]
    need(size_field and time_field, "header: number does not fit its form")
    block = bytearray(name.ljust(100, b"\0") + shape[:24] + size_field + time_field + bytes(8)
                      + shape[24:25] + link.ljust(100, b"\0") + shape[25:113]
                      + prefix.ljust(155, b"\0") + shape[113:125])
    block[148:156] = checksum_forms(checksum(block))[shape[127]]
    return bytes(block)


def shape_of(block):
    """Shape of a block, or None when no form fits."""
    size, time = parse_number(block[124:136]), parse_number(block[136:148])
    if size is None or time is None:
        return None
    forms = [first_form(number_forms(size), block[124:136]),
             first_form(number_forms(time), block[136:148]),
             first_form(checksum_forms(checksum(block)), block[148:156])]
    if None in forms:
        return None
    return block[100:124] + block[156:157] + block[257:345] + block[500:512] + bytes(forms)


# Forms

@dataclass(frozen=True)
class HeldForm:
    """Form of a held header."""
    shape: bytes
    name: int
    time: int
    data: int
    word: bytes
    records: tuple                          # of (0 path, 1 link, 2 carried; key)


@dataclass(frozen=True)
class Form:
    """Form of a member."""
    shape: bytes
    name: int
    link: int
    padded: bool
    held: tuple

    @property
    def has_content(self):
        return self.shape[24] in FILE_TYPES


def read_form(stream):
    """A form as it is carried."""
    shape, rules, count = stream.take(128), stream.byte(), stream.byte()
    need(count <= 16 and rules < 32 and rules >> 2 & 3 < 3, "form: bounds")
    held = []
    for _ in range(count):
        held_shape, held_rules = stream.take(128), stream.byte()
        word, records = stream.text(65536), []
        if held_rules >> 4 == 0:
            number = stream.number()
            need(number <= 1024, "form: records")
            records = [(stream.byte(), stream.text(65536)) for _ in range(number)]
        held.append(HeldForm(held_shape, held_rules & 3, held_rules >> 2 & 3, held_rules >> 4,
                             word, tuple(records)))
    return Form(shape, rules & 3, rules >> 2 & 3, bool(rules & 16), tuple(held))


# Rules of names

def split_path(path):
    """Prefix and name by rule 1, or None."""
    at = path.rfind(b"/", 1, min(156, len(path) - 1))
    return None if at < 0 else (path[:at], path[at + 1:])


def ascii_cut(path):
    return bytes(byte for byte in path if byte < 128)[:100]


def pax_name(rule, path, word):
    """Name of a held header by rule 0 or 1."""
    if path.endswith(b"/"):
        path = path[:-1]
    folder, slash, last = path.rpartition(b"/")
    if not slash and rule == 1:
        folder, slash = b".", b"/"
    return ascii_cut(folder + slash + word + b"/" + last).rstrip(b"/")


def record(key, value):
    """A PAX record; its length counts its own digits."""
    rest = len(key) + len(value) + 3
    length = rest + 1
    while len(str(length)) + rest != length:
        length = len(str(length)) + rest
    return b"%d %s=%s\n" % (length, key, value)


def parse_records(data):
    """Records as (key, value), or None when they are not well formed."""
    records, at = [], 0
    while at < len(data):
        space = data.find(b" ", at, at + 21)
        if space < 0 or not data[at:space].isdigit():
            return None
        end = at + int(data[at:space])
        key, equals, value = data[space + 1:end - 1].partition(b"=")
        if end > len(data) or not equals or record(key, value) != data[at:end]:
            return None
        records.append((key, value))
        at = end
    return records


# Members

@dataclass
class Member:
    """A member, or a bare content (form None)."""
    path: bytes = b""
    form: object = None
    time: int = 0
    size: int = 0
    link: bytes = b""
    extras: bytes = b""
    content: bytes = field(default=b"", repr=False)


def write_header(member):
    """All header blocks of a member with their data."""
    extras, form, parts = Reader(member.extras, "extras"), member.form, []
    for held in form.held:
        if held.name == 3:
            name = extras.text()
        else:
            name = held.word if held.name == 2 else pax_name(held.name, member.path, held.word)
        time = (0, member.time)[held.time] if held.time < 2 else extras.number()
        if held.data == 0:
            values = [(member.path, member.link)[rule] if rule < 2 else extras.text()
                      for rule, _ in held.records]
            data = b"".join(record(key, value) for (_, key), value in zip(held.records, values))
        else:
            data = (member.path + b"\0", member.link + b"\0")[held.data - 1] \
                if held.data < 3 else extras.text()
        parts += [make_block(held.shape, name, b"", b"", len(data), time), data,
                  bytes(padding(len(data)))]
    prefix, name, link = b"", member.path, member.link
    if form.name == 1:
        split = split_path(member.path)
        need(split, "path has no place to be split at")
        prefix, name = split
    elif form.name == 2:
        name = ascii_cut(member.path)
    elif form.name == 3:
        prefix, name = extras.text(), extras.text()
    if form.link == 1:
        link = ascii_cut(link)
    elif form.link == 2:
        link = extras.text()
    need(extras.left() == 0, "extras: something left over")
    return b"".join(parts) + make_block(form.shape, name, prefix, link, member.size, member.time)


def put_number(value):
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes(out) + bytes([value])


def put_text(data):
    return put_number(len(data)) + data


def _model(held, block, padded):
    """A member from its blocks, or None when it does not follow the model exactly."""
    shape = shape_of(block)
    if shape is None:
        return None
    prefix, name = text_of(block[345:500]), text_of(block[:100])
    path = prefix + b"/" + name if prefix else name
    link = text_of(block[157:257])
    for kind, _, data in held:
        if kind == b"x":
            records = parse_records(data)
            if records is None or any(key == b"size" for key, _ in records):
                return None
            values = dict(records)
            path, link = values.get(b"path", path), values.get(b"linkpath", link)
        elif kind in b"LK":
            value = data[:-1] if data.endswith(b"\0") else data
            path, link = (value, link) if kind == b"L" else (path, value)
    member = Member(path, None, parse_number(block[136:148]), parse_number(block[124:136]), link)
    extras, held_forms = [], []
    for item in held:
        held_form = _held_form(item, member, extras)
        if held_form is None:
            return None
        held_forms.append(held_form)
    if not prefix and name == path:
        rule = 0
    elif split_path(path) == (prefix, name):
        rule = 1
    elif not prefix and ascii_cut(path) == name:
        rule = 2
    else:
        rule = 3
        extras += [put_text(prefix), put_text(name)]
    link_field = text_of(block[157:257])
    link_rule = 0 if link_field == link else 1 if ascii_cut(link) == link_field else 2
    if link_rule == 2:
        extras.append(put_text(link_field))
    member.form = Form(shape, rule, link_rule, padded, tuple(held_forms))
    member.extras = b"".join(extras)
    return member


def _held_form(item, member, extras):
    """Form of one held header; what is carried is added to the extras."""
    kind, block, data = item
    shape, name = shape_of(block), text_of(block[:100])
    if shape is None:
        return None
    rule, word = 3, b""
    if kind in b"xg":
        words = [part for part in name.split(b"/") if part.startswith(b"PaxHeaders")]
        for candidate in words[:1]:
            for try_rule in (0, 1):
                if rule == 3 and pax_name(try_rule, member.path, candidate) == name:
                    rule, word = try_rule, candidate
    if rule == 3 and name.startswith(b"././@"):
        rule, word = 2, name
    if rule == 3:
        extras.append(put_text(name))
    time = parse_number(block[136:148])
    time_rule = 0 if time == 0 else 1 if time == member.time else 2
    if time_rule == 2:
        extras.append(put_number(time))
    records, data_rule = (), 3
    parsed = parse_records(data) if kind in b"xg" else None
    if parsed is not None:
        data_rule = 0
        rules = [0 if key == b"path" and value == member.path else
                 1 if key == b"linkpath" and value == member.link else 2 for key, value in parsed]
        records = tuple((r, key) for r, (key, _) in zip(rules, parsed))
        extras += [put_text(value) for r, (_, value) in zip(rules, parsed) if r == 2]
    elif data == member.path + b"\0":
        data_rule = 1
    elif data == member.link + b"\0":
        data_rule = 2
    else:
        extras.append(put_text(data))
    return HeldForm(shape, rule, time_rule, data_rule, word, records)


# Taking a tar apart

def find_files(tar):
    """Places and sizes of the contents that stand apart."""
    files, at, pending = [], 0, None
    while at + BLOCK <= len(tar):
        block = tar[at:at + BLOCK]
        at += BLOCK
        if not any(block):
            continue
        if not is_header(block):
            break
        kind, size = block[156:157], parse_number(block[124:136])
        if kind in (b"\0", b"0", b"7"):
            size = size if pending is None else pending
            pending = None
            if at + size > len(tar):
                break
            if size:
                files.append((at, size))
        elif kind in (b"1", b"2", b"3", b"4", b"5", b"6"):
            size, pending = 0, None
        elif kind not in (b"L", b"K"):
            pending = None
            if kind == b"x" and size <= MIB:
                records = parse_records(tar[at:at + size]) or []
                sizes = [value for key, value in records if key == b"size" and value.isdigit()]
                pending = int(sizes[0]) if sizes else None
        at += size + padding(size)
    return files


def take_apart(tar):
    """The members and bare contents of a layer, in order."""
    members, at = [], 0
    for place, size in find_files(tar) + [(len(tar), 0)]:
        items = _between(tar, at, place, size)
        last = items.pop() if items and items[-1].size and items[-1].form.has_content else None
        members += items
        if not size:
            break
        content = tar[place:place + size]
        at = place + size
        if last is None:
            members.append(Member(size=size, content=content))
            continue
        last.content = content
        pad = padding(size)
        if tar[at:at + pad] == bytes(pad):
            at += pad
        else:
            last.form = Form(last.form.shape, last.form.name, last.form.link, False, last.form.held)
        members.append(last)
    return members


def _between(tar, start, end, size):
    """Members from the headers between two files; the last may be the header of the next."""
    members, held, at = [], [], start + padding(start)
    while at + BLOCK <= end:
        block = tar[at:at + BLOCK]
        at += BLOCK
        if not any(block) or not is_header(block):
            held = []
            continue
        kind, own = block[156:157], parse_number(block[124:136])
        if kind in (b"x", b"g", b"L", b"K") and own <= MIB:
            whole = own + padding(own)
            if at + whole <= end and not any(tar[at + own:at + whole]):
                if len(held) == 16 or sum(len(item[2]) for item in held) + own > MIB:
                    held = []
                held.append((kind, block, tar[at:at + own]))
                at += whole
                continue
        member = _model(held, block, True)
        held = []
        if member is not None and kind in (b"\0", b"0", b"7") and own:
            if at != end or own != size:
                member = None
        if member is not None and follows_model(member, tar, at):
            members.append(member)
    return members


def follows_model(member, tar, end):
    """Whether the values give the very bytes before the place again."""
    try:
        header = write_header(member)
    except FormatError:
        return False
    return len(header) <= 2 * MIB and tar[end - len(header):end] == header
