//! Image references of a job to image ids: the newest release of the name and tag, for an architecture that the job's nodes have.

use std::collections::BTreeSet;

use http::StatusCode;
use skerry_plan::Fleet;
use skerry_wire::job::{Driver, Job};

use crate::app::App;
use crate::http::Failure;
use crate::images::publish::parse_reference;
use crate::store::ImageRef;

/// Fills in the image ids that the job lacks.
pub(super) async fn resolve(app: &App, fleet: &Fleet, job: &mut Job) -> Result<(), Failure> {
    let whole = job.clone();
    for (group, of) in job.groups.iter_mut().zip(&whole.groups) {
        let mut architectures: Option<BTreeSet<String>> = None;
        for task in &mut group.tasks {
            let Driver::Docker(config) = &mut task.driver else { continue };
            if config.image_id.is_some() {
                continue;
            }
            let (name, tag) = match parse_reference(&config.image).ok_or_else(|| unknown(&config.image))? {
                ImageRef::Id(id) => {
                    config.image_id = Some(id);
                    continue;
                }
                ImageRef::Named { name, tag } => (name, tag),
            };
            let releases = app.store.releases(name, tag).await?;
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
