"""Blocks of GNU gzip's deflate: symbols, codes and the way of a block (codec-archive.md)."""

LENGTH_EXTRA = [0] * 8 + [n for n in range(1, 6) for _ in range(4)] + [0]
DISTANCE_EXTRA = [0, 0] + [n for n in range(14) for _ in range(2)]
ORDER = (16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15)
END = 256
FIXED_LITERALS = [8] * 144 + [9] * 112 + [7] * 24 + [8] * 8
FIXED_DISTANCES = [5] * 30


def _codes(extra, first):
    bases, base = [], first
    for bits in extra:
        bases.append(base)
        base += 1 << bits
    return bases


LENGTH_BASE = _codes(LENGTH_EXTRA, 3)
LENGTH_BASE[28] = 258
DISTANCE_EXTRA = DISTANCE_EXTRA[2:4] + DISTANCE_EXTRA[2:30]
DISTANCE_BASE = _codes(DISTANCE_EXTRA, 1)


def _find(bases, value):
    low, high = 0, len(bases)
    while high - low > 1:
        middle = low + high >> 1
        low, high = (middle, high) if bases[middle] <= value else (low, middle)
    return low


def build_lengths(counts, longest):
    """Lengths of a code's symbols, by the heap as the page describes it."""
    weight, depth = {}, {}
    heap = [symbol for symbol, count in enumerate(counts) if count]
    for symbol in heap:
        weight[symbol], depth[symbol] = counts[symbol], 0
    last = heap[-1] if heap else -1
    while len(heap) < 2:
        last, symbol = (last + 1, last + 1) if last < 2 else (last, 0)
        heap.append(symbol)
        weight[symbol], depth[symbol] = 1, 0

    def before(a, b):
        return (weight[a], depth[a]) <= (weight[b], depth[b])

    def sink(k):
        value, child = heap[k], 2 * k + 1
        while child < len(heap):
            if child + 1 < len(heap) and before(heap[child + 1], heap[child]):
                child += 1
            if before(value, heap[child]):
                break
            heap[k], k, child = heap[child], child, 2 * child + 1
        heap[k] = value

    for k in range(len(heap) // 2 - 1, -1, -1):
        sink(k)
    parent, taken, node = {}, [], len(counts) + 3
    while len(heap) >= 2:
        first, heap[0] = heap[0], heap[-1]
        heap.pop()
        sink(0)
        second = heap[0]
        taken += [first, second]
        weight[node] = weight[first] + weight[second]
        depth[node] = max(depth[first], depth[second]) + 1
        parent[first] = parent[second] = node
        heap[0] = node
        sink(0)
        node += 1
    return _limit(taken, parent, heap[0], len(counts), longest)


def _limit(taken, parent, root, count, longest):
    """Lengths from the trees, none over the longest."""
    levels, per_length, cut = {root: 0}, [0] * (longest + 1), 0
    for node in reversed(taken):
        level = levels[parent[node]] + 1
        if level > longest:
            level, cut = longest, cut + 1
        levels[node] = level
        if node < count + 3:
            per_length[level] += 1
    if not cut:                             # the page does not say that lengths stay as they are
        return [levels.get(symbol, 0) for symbol in range(count)]
    while cut > 0:
        level = longest - 1
        while not per_length[level]:
            level -= 1
        per_length[level] -= 1
        per_length[level + 1] += 2
        per_length[longest] -= 1
        cut -= 2
    lengths, leaves = [0] * (count + 3), iter([node for node in taken if node < count + 3])
    for level in range(longest, 0, -1):
        for _ in range(per_length[level]):
            lengths[next(leaves)] = level
    return lengths[:count]


def runs_of(lengths):
    """Symbols of the lengths' own code: (symbol, extra bits, extra value)."""
    out, at, before = [], 0, None
    while at < len(lengths):
        value, run = lengths[at], 1
        same = value == before
        most = 138 if value == 0 else 6 if same else 7
        while at + run < len(lengths) and lengths[at + run] == value and run < most:
            run += 1
        if run < (3 if value == 0 or same else 4):
            out += [(value, 0, 0)] * run
        elif value:
            if not same:
                out.append((value, 0, 0))
            out.append((16, 2, run - 3 - (not same)))
        else:
            out.append((17, 3, run - 3) if run <= 10 else (18, 7, run - 11))
        at, before = at + run, value
    return out


def assign(lengths):
    """Codes by RFC 1951, their bits turned round: symbol -> (code, bits)."""
    codes, code = {}, 0
    for bits in range(1, 16):
        for symbol, length in enumerate(lengths):
            if length == bits:
                codes[symbol] = int(f"{code:0{bits}b}"[::-1], 2), bits
                code += 1
        code <<= 1
    return codes


class Blocks:
    """Symbols as they come, written block by block."""

    def __init__(self, level):
        self.level, self.out, self.bits, self.held = level, bytearray(), 0, 0
        self._begin()

    def _begin(self):
        self.symbols, self.matches, self.distance_bits = [], 0, 0
        self.literals, self.distances = [0] * 286, [0] * 30
        self.literals[END] = 1

    def symbol(self, length, value, plain):
        """Note a match (length, distance) or a byte (0, byte); whether the block ends."""
        if length:
            code, distance = _find(LENGTH_BASE, length), _find(DISTANCE_BASE, value)
            self.symbols.append((257 + code, length - LENGTH_BASE[code], distance,
                                 value - DISTANCE_BASE[distance]))
            self.literals[257 + code] += 1
            self.distances[distance] += 1
            self.matches += 1
            self.distance_bits += 5 + DISTANCE_EXTRA[distance]
        else:
            self.symbols.append((value, 0, None, 0))
            self.literals[value] += 1
        count = len(self.symbols)
        if self.level >= 3 and count % 4096 == 0:
            if self.matches < count // 2 and (8 * count + self.distance_bits) // 8 < plain // 2:
                return True
        return count == 32767 or self.matches == 32768

    def _put(self, value, bits):
        self.held |= value << self.bits
        self.bits += bits
        while self.bits >= 8:
            self.out.append(self.held & 255)
            self.held >>= 8
            self.bits -= 8

    def _cost(self, literals, distances):
        cost = sum(n * (literals[s] + (LENGTH_EXTRA[s - 257] if s > 256 else 0))
                   for s, n in enumerate(self.literals))
        return cost + sum(n * (distances[s] + DISTANCE_EXTRA[s]) for s, n in enumerate(self.distances))

    def flush(self, plain, last):
        """Write a block; plain are its bytes if they are all still in the window."""
        literals, distances = build_lengths(self.literals, 15), build_lengths(self.distances, 15)
        literal_count = max(s for s in range(286) if literals[s]) + 1
        distance_count = max(s for s in range(30) if distances[s]) + 1
        parts = runs_of(literals[:literal_count]) + runs_of(distances[:distance_count])
        counts = [0] * 19
        for symbol, _, _ in parts:
            counts[symbol] += 1
        lengths = build_lengths(counts, 7)
        used = max(3, max(i for i, s in enumerate(ORDER) if lengths[s])) + 1
        own = self._cost(literals, distances) + 14 + 3 * used + sum(
            lengths[symbol] + extra for symbol, extra, _ in parts)
        fixed = self._cost(FIXED_LITERALS, FIXED_DISTANCES)
        own, fixed = own + 3 + 7 >> 3, fixed + 3 + 7 >> 3
        if plain is not None and len(plain) + 4 <= min(own, fixed):
            self._put(last, 3)
            self._put(0, -self.bits % 8)
            self.out += len(plain).to_bytes(2, "little") + (len(plain) ^ 0xFFFF).to_bytes(2, "little")
            self.out += plain
        elif fixed <= own:
            self._put(1 << 1 | last, 3)
            self._write(assign(FIXED_LITERALS), assign(FIXED_DISTANCES))
        else:
            self._put(2 << 1 | last, 3)
            self._put(literal_count - 257, 5)
            self._put(distance_count - 1, 5)
            self._put(used - 4, 4)
            for symbol in ORDER[:used]:
                self._put(lengths[symbol], 3)
            codes = assign(lengths)
            for symbol, extra, value in parts:
                self._put(*codes[symbol])
                self._put(value, extra)
            self._write(assign(literals), assign(distances))
        self._begin()

    def _write(self, literals, distances):
        for symbol, extra, distance, distance_extra in self.symbols:
            self._put(*literals[symbol])
            if distance is not None:
                self._put(extra, LENGTH_EXTRA[symbol - 257])
                self._put(*distances[distance])
                self._put(distance_extra, DISTANCE_EXTRA[distance])
        self._put(*literals[END])

    def finish(self):
        self._put(0, -self.bits % 8)
        return bytes(self.out)
