//! What admits a node to an object: a keyed hash over both, so that the server need not remember what it offered.

use ring::hmac;
use skerry_wire::{Digest, NodeId};

/// Bytes of a capability.
const LEN: usize = 16;

/// Gives out and checks capabilities.
#[derive(Debug, Clone)]
pub struct Capabilities(hmac::Key);

impl Capabilities {
    /// With the server's object key.
    pub fn new(key: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    fn tag(&self, node: &NodeId, object: &Digest) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(b"fetch");
        context.update(node.as_bytes());
        context.update(object.as_bytes());
        context.sign()
    }

    /// The capability of this node for this object, hex.
    pub fn give(&self, node: &NodeId, object: &Digest) -> String {
        hex::encode(&self.tag(node, object).as_ref()[..LEN])
    }

    /// Does the capability admit this node to this object? Takes as long for any two.
    pub fn admits(&self, node: &NodeId, object: &Digest, capability: &str) -> bool {
        let mut given = [0; LEN];
        let read = hex::decode_to_slice(capability, &mut given).is_ok();
        let tag = self.tag(node, object);
        let differ = tag.as_ref()[..LEN].iter().zip(&given).fold(0, |differ, (a, b)| differ | (a ^ b));
        read && std::hint::black_box(differ) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn for_one_node_and_one_object() {
        let capabilities = Capabilities::new(&[1; 32]);
        let (node, object) = (NodeId::new([2; 16]), Digest::new([3; 32]));
        let given = capabilities.give(&node, &object);
        assert!(capabilities.admits(&node, &object, &given));
        assert!(!capabilities.admits(&NodeId::new([4; 16]), &object, &given));
        assert!(!capabilities.admits(&node, &Digest::new([5; 32]), &given));
        assert!(!Capabilities::new(&[6; 32]).admits(&node, &object, &given));
        for other in ["", "00", &given[..30], &format!("{given}00"), "zz000000000000000000000000000000"] {
            assert!(!capabilities.admits(&node, &object, other), "{other}");
        }
    }
}
