//! The parts of an OCI image configuration that Skerry looks at. The configuration's own bytes are what is kept and signed for: the
//! image id is their SHA-256.

use serde::Deserialize;
use skerry_wire::{DiffId, limits};

/// Why bytes are not a usable image configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Larger than [`limits::IMAGE_CONFIG`].
    #[error("the image configuration has {size} bytes; at most {} are allowed", limits::IMAGE_CONFIG)]
    TooLarge {
        /// Bytes it has.
        size: u64,
    },
    /// Not JSON, or without a field that every configuration has.
    #[error("the image configuration is not valid: {0}")]
    Json(#[from] serde_json::Error),
    /// A field is empty.
    #[error("the image configuration has no `{field}`; build the image for a platform, e.g. linux/amd64")]
    Missing {
        /// The field.
        field: &'static str,
    },
    /// Layers of another kind than a list of tars.
    #[error("the image configuration has `rootfs.type` = `{kind}`; only `layers` is known")]
    RootFs {
        /// What it says.
        kind: String,
    },
    /// More than [`limits::LAYERS`].
    #[error("the image has {count} layers; at most {} are allowed: build it with fewer steps", limits::LAYERS)]
    TooManyLayers {
        /// Layers it has.
        count: usize,
    },
}

/// What Skerry needs of an image configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageConfig {
    /// As Go names it: `amd64`, `arm64`, `arm`.
    pub architecture: String,
    /// As Go names it: `linux`.
    pub os: String,
    /// Variant of the architecture, such as `v7`; empty when none is given.
    pub variant: String,
    /// When the image was built, RFC 3339, as written; empty when not given. For people.
    pub created: String,
    /// The layers, lowest first.
    pub diff_ids: Vec<DiffId>,
}

#[derive(Deserialize)]
struct Raw {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
    #[serde(default)]
    variant: Option<String>,
    #[serde(default)]
    created: Option<String>,
    rootfs: RawRootFs,
}

#[derive(Deserialize)]
struct RawRootFs {
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    diff_ids: Option<Vec<DiffId>>,
}

impl ImageConfig {
    /// Reads a configuration.
    pub fn parse(bytes: &[u8]) -> Result<Self, ConfigError> {
        if bytes.len() > limits::IMAGE_CONFIG {
            return Err(ConfigError::TooLarge { size: bytes.len() as u64 });
        }
        let raw: Raw = serde_json::from_slice(bytes)?;
        for (field, value) in [("architecture", &raw.architecture), ("os", &raw.os)] {
            if value.is_empty() {
                return Err(ConfigError::Missing { field });
            }
        }
        if !raw.rootfs.kind.is_empty() && raw.rootfs.kind != "layers" {
            return Err(ConfigError::RootFs { kind: raw.rootfs.kind.chars().take(40).collect() });
        }
        let diff_ids = raw.rootfs.diff_ids.unwrap_or_default();
        if diff_ids.len() > limits::LAYERS {
            return Err(ConfigError::TooManyLayers { count: diff_ids.len() });
        }
        Ok(Self {
            architecture: raw.architecture,
            os: raw.os,
            variant: raw.variant.unwrap_or_default(),
            created: raw.created.unwrap_or_default(),
            diff_ids,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn read() {
        let id = format!("sha256:{}", "ab".repeat(32));
        let text = format!(r#"{{"architecture":"arm","variant":"v7","os":"linux","rootfs":{{"type":"layers","diff_ids":["{id}"]}}}}"#);
        let config = ImageConfig::parse(text.as_bytes()).unwrap();
        assert_eq!((config.architecture.as_str(), config.variant.as_str(), config.os.as_str()), ("arm", "v7", "linux"));
        assert_eq!(config.diff_ids, [id.parse().unwrap()]);
    }

    #[test]
    fn refused() {
        for (text, says) in [
            ("{}", "rootfs"),
            ("[", "not valid"),
            (r#"{"os":"linux","rootfs":{"type":"layers"}}"#, "no `architecture`"),
            (r#"{"architecture":"amd64","os":"linux","rootfs":{"type":"disk"}}"#, "`disk`"),
            (r#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["sha256:0f"]}}"#, "not a digest"),
        ] {
            let error = ImageConfig::parse(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
        let many = vec![format!("\"{}\"", "0f".repeat(32)); limits::LAYERS + 1].join(",");
        let text = format!(r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":[{many}]}}}}"#);
        assert!(matches!(ImageConfig::parse(text.as_bytes()), Err(ConfigError::TooManyLayers { count: 513 })));
    }
}
