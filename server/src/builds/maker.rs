//! Makes bundles from the layers that the server keeps.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::{MakeError, Maker};
use crate::director::Director;
use crate::objects::{NewObject, Objects};
use crate::store::BundleId;

/// Makes bundles from the layers that the server keeps.
#[derive(Debug)]
pub struct BundleMaker {
    /// The object folder.
    pub objects: Objects,
    /// Signs what is made.
    pub director: Arc<Director>,
}

impl Maker for BundleMaker {
    fn make(&self, _bundle: &BundleId, _cancel: &AtomicBool) -> Result<NewObject, MakeError> {
        Err(MakeError::Impossible("this server cannot make bundles".to_owned()))
    }
}
