//! A router with address translation between the node and the bed's link, as most nodes of the field have one.
//!
//! ```text
//!   server namespace 10.77.0.1 ---- wire ---- 10.77.0.2 router 192.168.77.1 ---- veth ---- 192.168.77.2 node namespace
//! ```
//!
//! Goes in: a bed whose server and agent are not started yet. Comes out: the same bed, whose [`Bed::link`] is the router's outer end from
//! now on. The node's application stays at [`Bed::app_address`] for whoever asks from the shore.

use anyhow::Result;

use crate::bed::NODE_ADDRESS;
use crate::command::run;
use crate::netns::{Interface, Netns};
use crate::{Bed, app};

const INSIDE: &str = "192.168.77.1";
const NODE: &str = "192.168.77.2";

/// The router; gone when dropped.
#[derive(Debug)]
pub struct Nat {
    /// The node's only link now.
    pub node_link: Interface,
    /// Where the router is.
    pub router: Netns,
}

impl Nat {
    /// Puts the router between node and link.
    ///
    /// # Errors
    /// When `ip` or `nft` fails.
    pub fn between(bed: &mut Bed) -> Result<Self> {
        let router = Netns::create("nat")?;
        let ends = [INSIDE, NODE].map(|a| format!("{a}/24"));
        let (_, node_link) = Netns::join((&router, &ends[0]), (&bed.node, &ends[1]))?;
        // Its address goes with the move.
        bed.link.move_to(&router)?;
        bed.link.add_address(&format!("{NODE_ADDRESS}/24"))?;
        bed.link.up()?;
        node_link.default_via(INSIDE)?;
        run(router.command("sh").args(["-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"]))?;
        let (outside, port) = (bed.link.name(), app::PORT);
        run(router.command("nft").arg(format!(
            "table ip skerry_nat {{
                chain in {{ type nat hook prerouting priority -100; iifname \"{outside}\" tcp dport {port} dnat to {NODE}; }}
                chain out {{ type nat hook postrouting priority 100; oifname \"{outside}\" masquerade; }}
            }}"
        )))?;
        Ok(Self { node_link, router })
    }
}
