//! What a release key states: that an image is genuine, and what a job runs.

use serde::{Deserialize, Serialize};

use crate::job::Job;
use crate::{DiffId, ImageId, Timestamp};

/// The statement that an image is genuine. Travels as an envelope with purpose [`Release::PURPOSE`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// Name without tag: `shop/till`.
    pub name: String,
    /// Tag: `2.1`.
    pub tag: String,
    /// SHA-256 of the image configuration.
    pub image_id: ImageId,
    /// The layers, lowest first.
    pub diff_ids: Vec<DiffId>,
    /// Architecture as in the image configuration: `amd64`, `arm64`.
    pub architecture: String,
    /// Operating system as in the image configuration: `linux`.
    pub os: String,
    /// Bytes of the uncompressed layers together.
    pub size: u64,
    /// When it was signed, on the publisher's clock; for people.
    pub signed_at: Timestamp,
}

impl Release {
    /// Purpose string of the envelope.
    pub const PURPOSE: &'static str = "skerry/release/1";

    /// `name:tag`.
    pub fn reference(&self) -> String {
        format!("{}:{}", self.name, self.tag)
    }
}

/// A job with every image resolved to its id. Travels as an envelope with purpose [`Specification::PURPOSE`]; the digest of the
/// envelope's bytes is the specification's digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Specification {
    /// The job; every docker task has an `image_id`.
    pub job: Job,
    /// When it was signed, on the signer's clock; for people.
    pub signed_at: Timestamp,
}

impl Specification {
    /// Purpose string of the envelope.
    pub const PURPOSE: &'static str = "skerry/specification/1";
}
