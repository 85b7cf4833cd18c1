//! What a node says of itself.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use crate::poll::AllocStatus;
use crate::{AllocId, Digest, ImageId};

/// Facts that the agent finds on its node and reports when they change.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// Name for people; the host name unless the agent's configuration says otherwise.
    pub name: String,
    /// Site, matched against a job's `datacenters`.
    #[serde(default)]
    pub datacenter: String,
    /// What `${attr.*}` stands for: `kernel.name`, `cpu.arch` (as Go and Docker name it: `amd64`, `arm64`), `memory.totalbytes`, ...
    #[serde(default)]
    pub attributes: BTreeMap<String, String>,
    /// What `${meta.*}` stands for: set by the operator on the node.
    #[serde(default)]
    pub meta: BTreeMap<String, String>,
    /// Memory of the node in MiB.
    pub memory_mib: u64,
    /// Bytes free where the engine keeps its images.
    pub disk_free: u64,
    /// The engine, when it answers.
    #[serde(default)]
    pub engine: Option<Engine>,
    /// Serials of the hardware (SoC, disk, network), by kind; used to tell a cloned disk.
    #[serde(default)]
    pub hardware: BTreeMap<String, String>,
    /// Version of the agent.
    pub agent_version: String,
    /// The bundle formats and codecs that this agent can apply.
    #[serde(default)]
    pub features: Vec<String>,
    /// What keeps the agent from its work, for people: its disk is full, its engine does not answer. None while nothing does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// What the agent found out about its container engine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Engine {
    /// Version as the engine says it.
    pub version: String,
    /// Storage driver: `overlay2`, `fuse-overlayfs`, ...
    pub storage_driver: String,
    /// May layers that the engine has be left out of what is loaded into it?
    pub accepts_partial_load: bool,
    /// Can the files of layers be read in place (else a spool is used)?
    pub layers_in_place: bool,
}

/// What a node holds: the images of its engine, sorted, and what it keeps beyond its manifest; sent when it changes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    /// Image ids.
    pub images: Vec<ImageId>,
    /// What runs beyond the manifest, by id: a server that was put back to an older backup does not know of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unknown: Vec<UnknownAlloc>,
}

/// An allocation that a node keeps and that the manifest in force neither names nor stops, in a place that it gives to no other.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct UnknownAlloc {
    /// The allocation.
    pub id: AllocId,
    /// Job id.
    pub job: String,
    /// Group name.
    pub group: String,
    /// Index.
    pub index: u32,
    /// Version of the job.
    pub version: u64,
    /// Digest of its specification, which the node holds.
    pub specification: Digest,
    /// Client status; pending where a newer agent says one that is not known here.
    #[serde(deserialize_with = "status")]
    pub status: AllocStatus,
}

fn status<'de, D: Deserializer<'de>>(d: D) -> Result<AllocStatus, D::Error> {
    let word = String::deserialize(d)?;
    let known = [AllocStatus::Running, AllocStatus::Complete, AllocStatus::Failed];
    Ok(known.into_iter().find(|status| status.to_string() == word).unwrap_or(AllocStatus::Pending))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cbor;

    #[test]
    fn an_inventory_of_an_older_agent_and_for_an_older_server() {
        /// As agents and servers before it wrote and read it.
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        struct Before {
            images: Vec<ImageId>,
        }

        let images = vec![ImageId(Digest::new([7; 32]))];
        let before = Before { images: images.clone() };
        let plain = Inventory { images, ..Inventory::default() };
        assert_eq!(cbor::encode(&plain), cbor::encode(&before), "what has nothing unknown costs no byte");
        assert_eq!(cbor::decode::<Inventory>(&cbor::encode(&before), 999).unwrap(), plain);
        let unknown = UnknownAlloc {
            id: AllocId::new([3; 16]),
            job: "till".into(),
            group: "web".into(),
            index: 2,
            version: 7,
            specification: Digest::new([9; 32]),
            status: AllocStatus::Running,
        };
        let full = Inventory { unknown: vec![unknown], ..plain };
        assert_eq!(cbor::decode::<Inventory>(&cbor::encode(&full), 999).unwrap(), full);
        assert_eq!(cbor::decode::<Before>(&cbor::encode(&full), 999).unwrap(), before);
    }
}
