//! A registry on the server's side, from Debian's package docker-registry.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;
use skerry_testkit::command::{run, until};
use skerry_testkit::image::Archive;
use skerry_testkit::need::program;
use skerry_testkit::{Bed, Process};
use std::time::Duration;

const ADDRESS: &str = "10.77.0.1:5000";

/// A running registry; ends when dropped.
#[derive(Debug)]
pub struct Registry {
    _process: Process,
}

impl Registry {
    /// The port that it listens on.
    pub const PORT: u16 = 5000;

    /// Starts it with its files in `folder`, and lets the bed's engine speak to it without TLS.
    ///
    /// # Errors
    /// When it is not installed or does not answer.
    pub fn start(bed: &mut Bed, folder: &Path) -> Result<Self> {
        let registry = program("docker-registry").context("no docker-registry; `scripts/peers docker-registry`")?;
        let (config, data): (PathBuf, PathBuf) = (bed.folder().join("registry.yml"), folder.join("registry"));
        let text = format!(
            "version: 0.1\nlog:\n  level: warn\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {ADDRESS}\n",
            data.display()
        );
        std::fs::write(&config, text).with_context(|| format!("cannot write {}", config.display()))?;
        let mut command = bed.shore.command(registry);
        command.arg("serve").arg(&config);
        let process = Process::spawn("docker-registry", &mut command, &bed.folder().join("registry.log"))?;
        bed.engine.configure(&format!("{{ \"insecure-registries\": [\"{ADDRESS}\"] }}\n"))?;
        bed.engine.stop()?;
        bed.engine.start_again()?;
        let look = || run(bed.shore.command("curl").args(["--silent", "--fail", &format!("http://{ADDRESS}/v2/")])).map(Some);
        until("the registry", Duration::from_secs(30), look).with_context(|| process.log_tail())?;
        Ok(Self { _process: process })
    }

    /// The name of an image (`name:tag`) in this registry.
    #[must_use]
    pub fn name(&self, reference: &str) -> String {
        format!("{ADDRESS}/{reference}")
    }

    /// Puts both images into it, through the bed's engine, which has neither of them afterwards; says how many bytes each takes there.
    ///
    /// # Errors
    /// When the engine or the registry refuses one.
    pub fn publish(&self, bed: &Bed, images: &[Archive; 2]) -> Result<[u64; 2]> {
        let mut bytes = [0; 2];
        for (image, bytes) in images.iter().zip(&mut bytes) {
            let name = self.name(&image.reference);
            bed.engine.load(&image.path)?;
            run(bed.engine.docker().args(["tag", &image.reference, &name]))?;
            run(bed.engine.docker().args(["push", "--quiet", &name]))?;
            run(bed.engine.docker().args(["image", "rm", &image.reference, &name]))?;
            let (repository, tag) = image.reference.split_once(':').context("no tag")?;
            let url = format!("http://{ADDRESS}/v2/{repository}/manifests/{tag}");
            let accept = "Accept: application/vnd.docker.distribution.manifest.v2+json";
            let text = run(bed.shore.command("curl").args(["--silent", "--fail", "--header", accept, &url]))?;
            let manifest: Value = serde_json::from_str(&text).with_context(|| format!("the registry said {text}"))?;
            let layers = manifest["layers"].as_array().with_context(|| format!("no layers in {text}"))?;
            *bytes = layers.iter().chain([&manifest["config"]]).filter_map(|part| part["size"].as_u64()).sum();
        }
        anyhow::ensure!(bed.engine.images()?.is_empty(), "an image stayed in the engine");
        Ok(bytes)
    }
}
