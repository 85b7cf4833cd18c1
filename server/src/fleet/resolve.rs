//! Image references of a job to image ids: the newest release of the name and tag, for an architecture that the job's nodes have.

use std::collections::BTreeSet;

use http::StatusCode;
use skerry_plan::Fleet;
use skerry_wire::ImageId;
use skerry_wire::job::{Driver, Job};

use crate::app::App;
use crate::http::Failure;

/// Fills in the image ids that the job lacks.
pub(super) async fn resolve(app: &App, fleet: &Fleet, job: &mut Job) -> Result<(), Failure> {
    let whole = job.clone();
    for (group, of) in job.groups.iter_mut().zip(&whole.groups) {
        let mut architectures: Option<BTreeSet<String>> = None;
        for task in &mut group.tasks {
            let Driver::Docker(config) = &mut task.driver;
            if config.image_id.is_some() {
                continue;
            }
            if config.image.starts_with("sha256:") {
                let id: ImageId = config.image.parse().map_err(|_| unknown(&config.image))?;
                config.image_id = Some(id);
                continue;
            }
            let (name, tag) = split_reference(&config.image);
            let releases = app.store.releases(name.to_owned(), tag.to_owned()).await?;
            let there = architectures.get_or_insert_with(|| skerry_plan::architectures(&whole, of, fleet.nodes.values()));
            let fitting = releases.iter().find(|(_, architecture)| there.contains(architecture)).or(releases.first());
            config.image_id = Some(fitting.ok_or_else(|| unknown(&config.image))?.0);
        }
    }
    Ok(())
}

/// Every image of the job must have been released.
pub(super) fn check_known(fleet: &Fleet, job: &Job) -> Result<(), Failure> {
    for config in job.images() {
        if !config.image_id.is_some_and(|id| fleet.images.contains_key(&id)) {
            return Err(unknown(&config.image));
        }
    }
    Ok(())
}

fn unknown(reference: &str) -> Failure {
    Failure::new(StatusCode::NOT_FOUND, "unknown_image", format!("image `{reference}` is not known to the server"))
        .hint("publish it first: `skerry image publish`; `skerry image list` lists what there is")
}

/// Name and tag of a reference; a colon before a slash belongs to a host's port.
fn split_reference(reference: &str) -> (&str, &str) {
    match reference.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, tag),
        _ => (reference, "latest"),
    }
}

#[cfg(test)]
mod tests {
    use super::split_reference;

    #[test]
    fn references() {
        for (reference, name, tag) in [
            ("shop/till:2.1", "shop/till", "2.1"),
            ("shop/till", "shop/till", "latest"),
            ("hub.example:5000/till", "hub.example:5000/till", "latest"),
            ("hub.example:5000/till:3", "hub.example:5000/till", "3"),
        ] {
            assert_eq!(split_reference(reference), (name, tag), "{reference}");
        }
    }
}
