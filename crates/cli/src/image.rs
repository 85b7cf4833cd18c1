//! `skerry image`: list, inspect, and the way of an image from an archive to the server.

use anyhow::Result;
use skerry_client::Client;
use skerry_wire::api::ImageSummary;

use crate::args::ImageCommand;
use crate::config::Config;
use crate::{output, publish, stop};

/// `skerry image ...`
pub(crate) async fn run(config: &Config, client: &Client, command: ImageCommand, json: bool) -> Result<()> {
    match command {
        ImageCommand::Publish(args) => {
            let published = stop::guarded(publish::publish(config, client, args)).await?;
            if json {
                return output::json(&published.image);
            }
            let i = &published.image;
            output::print(&format!(
                "Published {}:{} ({})\n  {} in {}, {} uploaded in {}\n",
                i.name,
                i.tag,
                i.image_id,
                output::bytes(i.size),
                layers(i.layers as usize),
                output::bytes(published.uploaded),
                layers(published.layers_uploaded),
            ))
        }
        ImageCommand::Rank(_) => unreachable!("done without a server"),
        ImageCommand::List => {
            let images = client.images().await?;
            if json { output::json(&images) } else { output::print(&table(&images)) }
        }
        ImageCommand::Inspect { reference } => {
            let detail = client.image(&reference).await?;
            if json {
                return output::json(&detail);
            }
            let mut text = table(std::slice::from_ref(&detail.summary));
            text.push_str(&format!("\nImage id   {}\nSigned by  {}\n\n", detail.summary.image_id, detail.signed_by));
            text.push_str(&output::table(
                &["LAYER", "SIZE", "STORED"],
                &["SIZE", "STORED"],
                detail.layer_list.iter().map(|l| vec![l.diff_id.to_string(), output::bytes(l.size), output::bytes(l.stored)]),
            ));
            output::print(&text)
        }
    }
}

fn layers(n: usize) -> String {
    format!("{n} layer{}", if n == 1 { "" } else { "s" })
}

fn table(images: &[ImageSummary]) -> String {
    output::table(
        &["NAME", "TAG", "IMAGE", "ARCH", "SIZE", "STORED", "LAYERS", "PUBLISHED"],
        &["SIZE", "STORED", "LAYERS"],
        images.iter().map(|i| {
            vec![
                i.name.clone(),
                i.tag.clone(),
                i.image_id.digest().short(),
                i.architecture.clone(),
                output::bytes(i.size),
                output::bytes(i.stored),
                i.layers.to_string(),
                output::time(i.published_at),
            ]
        }),
    )
}
