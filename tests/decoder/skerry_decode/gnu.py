"""Deflate as GNU gzip does it (codec-archive.md, "As GNU gzip deflates")."""

from .gnu_blocks import Blocks

HALF = 32768
MAX_DISTANCE, MIN_AHEAD, MAX_MATCH = 32506, 262, 258
TOO_FAR = 4096
LEVELS = {1: (4, 4, 8, 4), 2: (4, 5, 16, 8), 3: (4, 6, 32, 32), 4: (4, 4, 16, 16),
          5: (8, 16, 32, 32), 6: (8, 16, 128, 128), 7: (8, 32, 128, 256), 8: (32, 128, 258, 1024),
          9: (32, 258, 258, 4096)}


def deflate(content, level):
    """What gzip of this level makes of the content."""
    deflater = _Deflater(content, level)
    (deflater.fast if level <= 3 else deflater.slow)()
    return deflater.blocks.finish()


class _Deflater:
    """The window, the tables and the search."""

    def __init__(self, content, level):
        self.good, self.lazy, self.nice, self.chain = LEVELS[level]
        self.content, self.taken = content, 0
        self.window = bytearray(2 * HALF)
        self.at, self.ahead = 0, 0
        self.head, self.previous = [0] * HALF, [0] * HALF
        self.block_start = 0
        self.blocks = Blocks(level)
        self.ended = False
        self.fill()

    def fill(self):
        """Fill the window to its end while there are fewer than 262 bytes ahead."""
        while self.ahead < MIN_AHEAD and not self.ended:
            if self.at >= HALF + MAX_DISTANCE:
                self.window[:HALF] = self.window[HALF:]
                self.at -= HALF
                self.block_start -= HALF
                self.head = [max(0, place - HALF) for place in self.head]
                self.previous = [max(0, place - HALF) for place in self.previous]
            end = self.at + self.ahead
            piece = self.content[self.taken:self.taken + 2 * HALF - end]
            self.window[end:end + len(piece)] = piece
            self.taken += len(piece)
            self.ahead += len(piece)
            if not piece:
                self.ended = True
                self.window[end:end + 2] = bytes(len(self.window[end:end + 2]))

    def enter(self):
        """Enter the byte at the place; its first candidate."""
        w, at = self.window, self.at
        key = (w[at] << 10 ^ w[at + 1] << 5 ^ w[at + 2]) & HALF - 1
        first = self.head[key]
        self.previous[at & HALF - 1] = first
        self.head[key] = at
        return first

    def search(self, candidate, best):
        """Length (no more than best: none) and place of the best match."""
        at, window, where = self.at, self.window, 0
        if candidate == 0 or at - candidate > MAX_DISTANCE or at > 2 * HALF - MIN_AHEAD:
            return 2, 0
        left = self.chain >> 2 if best >= self.good else self.chain
        limit = max(0, at - LIMIT)
        while True:
            if window[candidate + best] == window[at + best]:
                length = 0
                while length < MAX_MATCH and window[candidate + length] == window[at + length]:
                    length += 1
                if length > best:
                    best, where = length, candidate
                    if length >= self.nice:
                        break
            candidate, left = self.previous[candidate & HALF - 1], left - 1
            if candidate <= limit or left == 0:
                break
        return min(best, self.ahead), where

    def step(self):
        self.at += 1
        self.ahead -= 1

    def symbol(self, length, distance_or_byte):
        """A symbol; whether the block ends."""
        return self.blocks.symbol(length, distance_or_byte, self.at - self.block_start)

    def end_block(self, last=False):
        start = self.block_start
        plain = self.window[start:self.at] if start >= 0 else None
        self.blocks.flush(plain, last)
        self.block_start = self.at

    def fast(self):
        """Levels 1 to 3."""
        while self.ahead:
            candidate = self.enter()
            length, place = self.search(candidate, 2)
            if length >= 3:
                full = self.symbol(length, self.at - place)
                for _ in range(length - 1):
                    self.step()
                    if length <= self.lazy:
                        self.enter()
                self.step()
            else:
                full = self.symbol(0, self.window[self.at])
                self.step()
            if full:
                self.end_block()
            self.fill()
        self.end_block(last=True)

    def slow(self):
        """Levels 4 to 9."""
        known, distance, waiting = 2, 0, False
        while self.ahead:
            candidate = self.enter()
            before, before_distance = known, distance
            known = 2
            if before < self.lazy:
                known, place = self.search(candidate, before)
                distance = self.at - place
                if known == 3 and distance > TOO_FAR:
                    known = 2
            if before >= 3 and known <= before:
                full = self.symbol(before, before_distance)
                for _ in range(before - 2):
                    self.step()
                    self.enter()
                self.step()
                known, waiting = 2, False
                if full:
                    self.end_block()
            else:
                if waiting and self.symbol(0, self.window[self.at - 1]):
                    self.end_block()
                waiting = True
                self.step()
            self.fill()
        if waiting:
            self.symbol(0, self.window[self.at - 1])
        self.end_block(last=True)


LIMIT = MAX_DISTANCE                        # the page says one more; the gzip program shows this
