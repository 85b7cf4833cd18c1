//! Releases: what is asked before layers are sent, the check of a release, and what is known of images.

use std::sync::Arc;

use axum::extract::{Query, State};
use axum::{Extension, Json};
use http::StatusCode;
use serde::Deserialize;
use skerry_image::config::ImageConfig;
use skerry_trust::EnvelopeError;
use skerry_wire::api::{ImageDetail, ImageSummary, PrepareReply, PrepareRequest, PublishRequest};
use skerry_wire::release::Release;
use skerry_wire::{Blob, DiffId, Digest, ImageId, limits};

use crate::app::App;
use crate::http::Failure;
use crate::http::auth::Caller;
use crate::http::body::JsonBody;
use crate::store::{AddImageError, ImageRef, NewImage};

/// The longest publish request: configuration and release in hexadecimal, and some JSON.
const PUBLISH: usize = 2 * (limits::IMAGE_CONFIG + limits::RELEASE) + 4096;
/// The longest name of an image, bytes.
const NAME: usize = 255;
/// The longest tag, bytes.
const TAG: usize = 128;

/// `POST /v1/images/prepare`
pub async fn prepare(State(app): State<Arc<App>>, JsonBody(request): JsonBody<PrepareRequest>) -> Result<Json<PrepareReply>, Failure> {
    if request.diff_ids.len() > limits::LAYERS {
        let message = format!("{} layers; an image may have {}", request.diff_ids.len(), limits::LAYERS);
        return Err(Failure::new(StatusCode::UNPROCESSABLE_ENTITY, "too_many_layers", message).hint("build it with fewer steps"));
    }
    let damaged = damaged(&app, &request.diff_ids).await?;
    let mut missing = app.store.missing_layers(request.diff_ids.clone()).await?;
    missing.extend(damaged);
    let place = |diff_id: &DiffId| request.diff_ids.iter().position(|asked| asked == diff_id);
    missing.sort_by_key(place);
    missing.dedup();
    Ok(Json(PrepareReply { missing }))
}

/// Those of the layers whose files are damaged. All are looked at; those that a build may have failed for are hashed.
async fn damaged(app: &App, diff_ids: &[DiffId]) -> Result<Vec<DiffId>, Failure> {
    let mut damaged = Vec::new();
    let doubted = app.store.doubted_layers(diff_ids.to_vec()).await?;
    for diff_id in diff_ids {
        let Some(layer) = app.store.layer(*diff_id).await? else { continue };
        let is_whole = if doubted.contains(&layer) {
            app.checked.open(&app.objects, layer.object, layer.stored).await.map_err(|e| Failure::io(&e))?.is_some()
        } else {
            let path = app.objects.path(&layer.object);
            tokio::fs::metadata(path).await.is_ok_and(|file| file.len() == layer.stored)
        };
        if !is_whole {
            tracing::warn!(%diff_id, object = %layer.object, "the file of a layer is damaged; it is asked for again");
            damaged.push(*diff_id);
        }
    }
    Ok(damaged)
}

/// `POST /v1/images`
pub async fn publish(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    JsonBody(request): JsonBody<PublishRequest, PUBLISH>,
) -> Result<Json<ImageSummary>, Failure> {
    let image = check(&app, request)?;
    let reference = image.release.reference();
    let summary = app.store.add_image(image, caller.by()).await.map_err(|error| match error {
        AddImageError::Store(error) => error.into(),
        AddImageError::MissingLayers(missing) => {
            let listed = missing.iter().take(3).map(ToString::to_string).collect::<Vec<_>>().join(", ");
            let more = if missing.len() > 3 { ", ..." } else { "" };
            let message = format!("{} layers of {reference} are not on the server: {listed}{more}", missing.len());
            Failure::new(StatusCode::CONFLICT, "unknown_layer", message).hint("upload them first; publishing the image again does it")
        }
        AddImageError::Size { .. } => {
            Failure::new(StatusCode::UNPROCESSABLE_ENTITY, "wrong_release", format!("{reference}: {error}")).hint("publish the image again")
        }
    })?;
    app.checked.pardon();
    tracing::info!(image = %summary.image_id, reference, by = caller.name, "release published");
    Ok(Json(summary))
}

/// Checks everything about a release that needs no store.
fn check(app: &App, request: PublishRequest) -> Result<NewImage, Failure> {
    let refuse = |code: &str, message: String| Failure::new(StatusCode::UNPROCESSABLE_ENTITY, code, message);
    let opened = app.director.root().open_release::<Release>(&request.release.0, Release::PURPOSE, limits::RELEASE);
    let (release, key_id) = opened.map_err(|error| {
        let code = match error {
            EnvelopeError::UntrustedKey(_) | EnvelopeError::BadSignature(_) => "unsigned_release",
            EnvelopeError::TooLong { .. } | EnvelopeError::Malformed(_) | EnvelopeError::Payload(_) => "bad_release",
        };
        refuse(code, format!("the release is refused: {error}"))
            .hint("sign it with a release key that the server's root document names (`release_key` in cli.toml)")
    })?;
    let reference = release.reference();
    if !is_name(&release.name) || !is_tag(&release.tag) {
        return Err(refuse("bad_reference", format!("`{reference}` is not an image name with a tag"))
            .hint("use lower-case letters, digits, `.`, `_`, `-` and `/` in the name, as in shop/till:2.1"));
    }
    let found = ImageId(skerry_image::sha256(&request.config.0));
    if found != release.image_id {
        return Err(refuse("wrong_digest", format!("the configuration of {reference} is {found}, the release says {}", release.image_id))
            .hint("publish the image again"));
    }
    let config = ImageConfig::parse(&request.config.0).map_err(|error| refuse("bad_config", format!("{reference}: {error}")))?;
    let differs = |what: &str, said: &dyn std::fmt::Debug, is: &dyn std::fmt::Debug| {
        refuse("wrong_release", format!("the release of {reference} says {what} {said:?}, its configuration {is:?}"))
            .hint("publish the image again")
    };
    if release.architecture != config.architecture {
        return Err(differs("architecture", &release.architecture, &config.architecture));
    }
    if release.os != config.os {
        return Err(differs("os", &release.os, &config.os));
    }
    if release.diff_ids != config.diff_ids {
        return Err(refuse("wrong_release", format!("the release of {reference} names other layers than its configuration"))
            .hint("publish the image again"));
    }
    let digest: Digest = skerry_image::sha256(&request.release.0);
    Ok(NewImage { release, envelope: request.release.0, digest, key_id, config: request.config.0 })
}

/// A name as registries take it, with an optional host and port in front.
fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-');
    let mut parts = name.split('/');
    let first = parts.next().unwrap_or_default();
    let host = name.contains('/') && first.split_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
    let first = if host { first.split(':').next().unwrap_or_default() } else { first };
    name.len() <= NAME
        && std::iter::once(first).chain(parts).all(|part| !part.is_empty() && part.chars().all(plain) && !part.starts_with(['.', '-']))
}

fn is_tag(tag: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    !tag.is_empty() && tag.len() <= TAG && tag.chars().all(plain) && !tag.starts_with(['.', '-'])
}

/// `GET /v1/images`
pub async fn list(State(app): State<Arc<App>>) -> Result<Json<Vec<ImageSummary>>, Failure> {
    Ok(Json(app.store.images().await?))
}

/// Query of `GET /v1/image`.
#[derive(Debug, Deserialize)]
pub struct Which {
    /// `NAME[:TAG]` or `sha256:...`
    #[serde(rename = "ref")]
    reference: String,
}

/// `GET /v1/image?ref=...`
pub async fn detail(
    State(app): State<Arc<App>>,
    query: Result<Query<Which>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<ImageDetail>, Failure> {
    let bad = |message: String| {
        Failure::new(StatusCode::BAD_REQUEST, "bad_reference", message).hint("ask for NAME, NAME:TAG or sha256:<64 hex digits>")
    };
    let Query(which) = query.map_err(|_| bad("no `ref` was given".to_owned()))?;
    let reference = parse_reference(&which.reference).ok_or_else(|| bad(format!("`{}` does not name an image", which.reference)))?;
    let image = app.store.image(reference).await?.ok_or_else(|| {
        Failure::new(StatusCode::NOT_FOUND, "unknown_image", format!("there is no image {}", which.reference))
            .hint("`skerry image list` shows what there is; publish it with `skerry image publish`")
    })?;
    Ok(Json(ImageDetail {
        layer_list: image.layers.iter().map(Into::into).collect(),
        signed_by: image.key_id.to_string(),
        release: Blob(image.release),
        summary: image.summary,
    }))
}

/// Reads `NAME[:TAG]` (`latest` when there is no tag) or an image id.
pub fn parse_reference(text: &str) -> Option<ImageRef> {
    if text.starts_with("sha256:") {
        return text.parse().ok().map(ImageRef::Id);
    }
    let (name, tag) = match text.rsplit_once(':') {
        // A colon before a slash is a host's port.
        Some((name, tag)) if !tag.contains('/') => (name, tag),
        _ => (text, "latest"),
    };
    (is_name(name) && is_tag(tag)).then(|| ImageRef::Named { name: name.to_owned(), tag: tag.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references() {
        let named = |name: &str, tag: &str| Some(ImageRef::Named { name: name.to_owned(), tag: tag.to_owned() });
        for (text, expected) in [
            ("till", named("till", "latest")),
            ("shop/till:2.1", named("shop/till", "2.1")),
            ("registry.example:5000/shop/till", named("registry.example:5000/shop/till", "latest")),
            ("registry.example:5000/till:v1", named("registry.example:5000/till", "v1")),
            ("", None),
            (":1", None),
            ("till:", None),
            ("Till:1", None),
            ("a//b:1", None),
            ("/a:1", None),
            ("../a:1", None),
            ("till:-1", None),
            ("a b:1", None),
            ("sha256:0f", None),
        ] {
            assert_eq!(parse_reference(text), expected, "{text}");
        }
        let id = format!("sha256:{}", "0f".repeat(32));
        assert_eq!(parse_reference(&id), Some(ImageRef::Id(id.parse().unwrap())));
    }
}
