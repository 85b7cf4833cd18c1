//! Huffman codes as GNU gzip and zlib build them: of several codes of the same cost they give one, and it must be that one.

/// The most symbols of an alphabet: literals and lengths of the fixed code.
pub(super) const MOST: usize = 288;
const NODES: usize = 2 * MOST + 1;
const LONGEST: usize = 15;

/// An alphabet.
pub(super) struct Alphabet {
    /// How many symbols it has.
    pub symbols: usize,
    /// The longest code.
    pub longest: usize,
    /// Bits that follow a symbol.
    pub extra: fn(usize) -> u8,
    /// Bits of its symbols in the fixed code, if it has one.
    pub fixed: Option<fn(usize) -> u8>,
}

/// The code of an alphabet for one block.
pub(super) struct Code {
    /// Bits of each symbol, 0 for one that has none.
    pub lens: [u8; MOST],
    /// Their codes, the first bit lowest.
    pub codes: [u16; MOST],
    /// The last symbol with a code.
    pub last: usize,
    /// Bits of all symbols of the block with what follows them, by this code and by the fixed one.
    pub cost: u64,
    pub fixed_cost: u64,
}

/// Trees that wait to be joined, the lightest on top: a heap from index 1 on.
struct Heap {
    places: [usize; NODES],
    len: usize,
    weight: [u32; NODES],
    height: [u8; NODES],
}

impl Heap {
    fn before(&self, a: usize, b: usize) -> bool {
        (self.weight[a], self.height[a]) <= (self.weight[b], self.height[b])
    }

    /// Lets the tree at `place` sink below lighter ones.
    fn sink(&mut self, mut place: usize) {
        let tree = self.places[place];
        loop {
            let mut child = 2 * place;
            if child > self.len {
                break;
            }
            if child < self.len && self.before(self.places[child + 1], self.places[child]) {
                child += 1;
            }
            if self.before(tree, self.places[child]) {
                break;
            }
            self.places[place] = self.places[child];
            place = child;
        }
        self.places[place] = tree;
    }

    /// Takes the lightest.
    fn pop(&mut self) -> usize {
        let top = self.places[1];
        self.places[1] = self.places[self.len];
        self.len -= 1;
        self.sink(1);
        top
    }
}

impl Code {
    /// The code for symbols that occur so often. There are always two at least: what is missing is counted as occurring once.
    pub(super) fn of(alphabet: &Alphabet, counts: &[u32]) -> Self {
        let mut heap = Heap { places: [0; NODES], len: 0, weight: [0; NODES], height: [0; NODES] };
        let mut code = Self { lens: [0; MOST], codes: [0; MOST], last: 0, cost: 0, fixed_cost: 0 };
        // As a sum of what may be less than nothing for a while: symbols that do not occur cost nothing.
        let (mut cost, mut fixed_cost) = (0i64, 0i64);
        for (symbol, &count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            heap.len += 1;
            heap.places[heap.len] = symbol;
            heap.weight[symbol] = count;
            code.last = symbol;
        }
        let mut none = counts.iter().all(|&count| count == 0);
        while heap.len < 2 {
            let symbol = if none {
                none = false;
                0
            } else if code.last < 2 {
                code.last + 1
            } else {
                0
            };
            code.last = code.last.max(symbol);
            heap.len += 1;
            heap.places[heap.len] = symbol;
            heap.weight[symbol] = 1;
            cost -= 1;
            fixed_cost -= alphabet.fixed.map_or(0, |fixed| i64::from(fixed(symbol)));
        }
        for place in (1..=heap.len / 2).rev() {
            heap.sink(place);
        }
        // Two trees are joined to one until one is left.
        let mut parents = [0usize; NODES];
        let mut taken = Vec::with_capacity(NODES);
        let mut node = alphabet.symbols;
        loop {
            let first = heap.pop();
            let second = heap.places[1];
            taken.extend([first, second]);
            heap.weight[node] = heap.weight[first] + heap.weight[second];
            heap.height[node] = heap.height[first].max(heap.height[second]) + 1;
            (parents[first], parents[second]) = (node, node);
            heap.places[1] = node;
            heap.sink(1);
            node += 1;
            if heap.len < 2 {
                break;
            }
        }

        // Depths from the root down; what would be too deep is put at the longest and makes room elsewhere.
        let mut depths = [0u8; NODES];
        let mut per_len = [0u16; LONGEST + 1];
        let mut over = 0i32;
        for &tree in taken.iter().rev() {
            let mut depth = usize::from(depths[parents[tree]]) + 1;
            if depth > alphabet.longest {
                depth = alphabet.longest;
                over += 1;
            }
            depths[tree] = narrow(depth);
            if tree < alphabet.symbols {
                per_len[depth] += 1;
                let extra = (alphabet.extra)(tree);
                cost += i64::from(heap.weight[tree]) * i64::from(depths[tree] + extra);
                if let Some(fixed) = alphabet.fixed {
                    fixed_cost += i64::from(heap.weight[tree]) * i64::from(fixed(tree) + extra);
                }
            }
        }
        if over > 0 {
            while over > 0 {
                let mut len = alphabet.longest - 1;
                while per_len[len] == 0 {
                    len -= 1;
                }
                per_len[len] -= 1;
                per_len[len + 1] += 2;
                per_len[alphabet.longest] -= 1;
                over -= 2;
            }
            // Lengths are given out again, the longest to those that were taken first.
            let mut leaves = taken.iter().copied().filter(|&tree| tree < alphabet.symbols);
            for len in (1..=alphabet.longest).rev() {
                for leaf in leaves.by_ref().take(usize::from(per_len[len])) {
                    cost += (i64::from(narrow(len)) - i64::from(depths[leaf])) * i64::from(heap.weight[leaf]);
                    depths[leaf] = narrow(len);
                }
            }
        }
        code.lens[..alphabet.symbols].copy_from_slice(&depths[..alphabet.symbols]);
        code.codes = codes(&code.lens[..alphabet.symbols]);
        code.cost = cost.try_into().unwrap_or(0);
        code.fixed_cost = fixed_cost.try_into().unwrap_or(0);
        code
    }
}

/// The canonical codes of these lengths, the first bit lowest.
pub(super) fn codes(lens: &[u8]) -> [u16; MOST] {
    let mut next = [0u16; LONGEST + 1];
    for &len in lens.iter().filter(|len| (1..LONGEST).contains(&usize::from(**len))) {
        next[usize::from(len) + 1] += 1;
    }
    for len in 1..next.len() {
        next[len] = (next[len] + next[len - 1]) << 1;
    }
    let mut codes = [0; MOST];
    for (code, &len) in codes.iter_mut().zip(lens).filter(|(_, len)| **len > 0) {
        *code = next[usize::from(len)].reverse_bits() >> (16 - u32::from(len));
        next[usize::from(len)] += 1;
    }
    codes
}

fn narrow(len: usize) -> u8 {
    u8::try_from(len).unwrap_or(u8::MAX)
}
