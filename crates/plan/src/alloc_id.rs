//! Ids of allocations, derived from what they stand for: planning the same thing again gives the same id.

use skerry_wire::{AllocId, NodeId};

/// The first 16 bytes of the SHA-256 over job, version, group, index and node, each preceded by its length.
pub fn alloc_id(job: &str, version: u64, group: &str, index: u32, node: &NodeId) -> AllocId {
    let mut hash = ring::digest::Context::new(&ring::digest::SHA256);
    let fields: [&[u8]; 6] =
        [b"skerry/alloc/1", job.as_bytes(), &version.to_be_bytes(), group.as_bytes(), &index.to_be_bytes(), node.as_bytes()];
    for field in fields {
        hash.update(&(field.len() as u64).to_be_bytes());
        hash.update(field);
    }
    let mut id = [0; 16];
    id.copy_from_slice(&hash.finish().as_ref()[..16]);
    AllocId::new(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A fixed value: a change of the derivation would place every allocation of a running fleet anew.
    #[test]
    fn fixed_and_distinct() {
        let node = NodeId::new([7; 16]);
        let one = alloc_id("shop", 1, "web", 0, &node);
        assert_eq!(one, alloc_id("shop", 1, "web", 0, &node));
        let others = [
            alloc_id("shopw", 1, "eb", 0, &node),
            alloc_id("shop", 2, "web", 0, &node),
            alloc_id("shop", 1, "web", 1, &node),
            alloc_id("shop", 1, "web", 0, &NodeId::new([8; 16])),
        ];
        assert!(!others.contains(&one));
        assert_eq!(one.to_string(), include_str!("../tests/alloc_id.hex").trim());
    }
}
