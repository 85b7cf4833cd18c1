//! `skerry delta inspect`: where every byte of a bundle goes.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::json;
use skerry_bundle::{TargetLayer, VerifiedToc};
use skerry_delta::stream::{Stream, StreamsReader};
use skerry_engine::{DockerEngine, Engine};
use skerry_wire::ImageId;

use crate::delta::interruptible;
use crate::delta_args::InspectArgs;
use crate::delta_image::{Found, find};
use crate::delta_shares::{self, Shares};
use crate::output;

/// A part of the bundle.
struct Part {
    name: String,
    stream: Option<Stream>,
    /// Bytes before coding.
    raw: u64,
    /// Bytes in the file.
    coded: u64,
    /// Its bytes are among those of the pack; the share goes by length.
    packed: bool,
}

/// `skerry delta inspect`
pub(crate) async fn run(args: InspectArgs, json: bool) -> Result<()> {
    let keys = args.trust.ring()?;
    let named = || format!("bundle {}", args.bundle.display());
    let mut bundle = BufReader::new(File::open(&args.bundle).with_context(named)?);
    let toc = VerifiedToc::read(&mut bundle, &keys).with_context(named)?;
    let parts = parts(&mut bundle, &toc).with_context(named)?;
    let table = toc.toc();
    let mut bases = Vec::new();
    for base in &args.bases {
        bases.push(find(base, &args.engine.docker).await?);
    }
    if bases.is_empty() {
        bases = in_engine(&table.bases, &args.engine.docker).await.or_else(without)?;
    }
    let lacking = args.bases.is_empty() && bases.len() < table.bases.len();
    let shares = if lacking {
        None
    } else {
        match shares(&args, &toc, &parts, bases).await {
            Err(error) if args.bases.is_empty() && !table.bases.is_empty() => without(error)?,
            shares => Some(shares?),
        }
    };
    let layers = table.layers.iter().map(|layer| match layer {
        TargetLayer::Known(place) => (format!("layer {} of base {}", place.layer + 1, place.base + 1), None),
        TargetLayer::New { diff_id, size } => (diff_id.to_string(), Some(*size)),
    });
    if json {
        let layers: Vec<_> = layers.map(|(layer, size)| json!({ "layer": layer, "made": size.is_some(), "size": size })).collect();
        let parts: Vec<_> = parts.iter().map(|p| json!({ "part": p.name, "bytes": p.raw, "coded": p.coded, "packed": p.packed })).collect();
        return output::json(&json!({
            "target": table.target.to_string(), "bases": table.bases.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "size": toc.size(), "signed_by": toc.key_id().to_string(), "chunks": toc.chunk_count(),
            "features": table.features, "memory": table.memory, "disk": table.disk, "layers": layers, "parts": parts,
            "shares": shares.map(|shares| shares.json(toc.toc().payload_len())),
        }));
    }
    let mut text = format!("Target     {}\n", table.target);
    for base in &table.bases {
        text.push_str(&format!("Base       {base}\n"));
    }
    text.push_str(&format!(
        "Signed by  {}\nSize       {} in {} chunks\nNeeds      {} of memory, {} of disk\n\n",
        toc.key_id(),
        output::bytes(toc.size()),
        toc.chunk_count(),
        output::bytes(table.memory),
        output::bytes(table.disk)
    ));
    let size = |size: Option<u64>| size.map_or_else(|| "in a base".to_owned(), output::bytes);
    text.push_str(&output::table(&["LAYER", "MADE"], &["MADE"], layers.map(|(layer, made)| vec![layer, size(made)])));
    text.push('\n');
    let rows =
        parts.iter().map(|p| vec![p.name.clone(), p.raw.to_string(), p.coded.to_string(), if p.packed { "pack" } else { "" }.to_owned()]);
    text.push_str(&output::table(&["PART", "BYTES", "CODED", "IN"], &["BYTES", "CODED"], rows));
    text.push('\n');
    match shares {
        Some(shares) => text.push_str(&shares.text(args.members, toc.toc().payload_len())),
        None => text.push_str(
            "Layers, codecs and members are shown as well where the bases are: the local engine has not all of them; name each with --base BASE.\n",
        ),
    }
    output::print(&text)
}

/// What stands in the bundle itself is shown all the same when bases that nobody named cannot be read; not when it was told to stop.
fn without<T: Default>(error: anyhow::Error) -> Result<T> {
    if error.root_cause().to_string() == "interrupted" {
        return Err(error);
    }
    eprintln!("The bases in the local engine cannot be read: {error:#}");
    Ok(T::default())
}

/// The bases out of the local engine, when it has them all. One that does not answer has none.
async fn in_engine(bases: &[ImageId], socket: &str) -> Result<Vec<Found>> {
    let Some(engine) = socket.strip_prefix("unix://").and_then(|path| DockerEngine::connect(Path::new(path)).ok()) else {
        return Ok(Vec::new());
    };
    for base in bases {
        if !engine.image_present(base).await.unwrap_or(false) {
            return Ok(Vec::new());
        }
    }
    let mut found = Vec::new();
    for base in bases {
        found.push(find(&format!("docker:{base}"), socket).await?);
    }
    Ok(found)
}

/// Applies the bundle to see what each member takes.
async fn shares(args: &InspectArgs, toc: &VerifiedToc, parts: &[Part], bases: Vec<Found>) -> Result<Shares> {
    let mut costs = vec![(0, 0); Stream::ALL.len()];
    for part in parts {
        if let Some(stream) = part.stream {
            let (raw, coded) = &mut costs[stream as usize];
            (*raw, *coded) = (*raw + part.raw, *coded + part.coded);
        }
    }
    let (path, toc) = (args.bundle.clone(), toc.clone());
    interruptible(move |cancel| {
        let mut bundle = BufReader::new(File::open(&path).with_context(|| format!("bundle {}", path.display()))?);
        delta_shares::count(&mut bundle, &toc, bases, &costs, cancel)
    })
    .await
}

/// Every byte of the file once: the table of contents, the streams that are sections, and those in the pack by their share.
fn parts(bundle: &mut BufReader<File>, toc: &VerifiedToc) -> Result<Vec<Part>> {
    let sections = &toc.toc().sections;
    let start = toc.payload_start();
    let mut parts =
        vec![Part { name: "head, signature, table of contents".to_owned(), stream: None, raw: start, coded: start, packed: false }];
    if let Some(index) = sections.iter().position(|section| section.stream == Stream::Pack) {
        let section = sections[index];
        let range = toc.section_range(index);
        bundle.seek(SeekFrom::Start(range.start))?;
        let mut coded = Vec::new();
        bundle.take(range.end - range.start).read_to_end(&mut coded)?;
        let mut streams = StreamsReader::open(&[section], |_| Ok(Box::new(&coded[..])))?;
        let mut rest = section.len;
        for stream in Stream::ALL {
            let raw = streams.get(stream).left();
            if raw > 0 {
                let share = raw.saturating_mul(section.len) / section.raw_len.max(1);
                rest = rest.saturating_sub(share);
                parts.push(Part { name: format!("{stream:?}"), stream: Some(stream), raw, coded: share, packed: true });
            }
        }
        parts.push(Part { name: "the pack's own head".to_owned(), stream: None, raw: 0, coded: rest, packed: true });
    }
    let alone = sections.iter().filter(|section| section.stream != Stream::Pack);
    parts.extend(alone.map(|s| Part {
        name: format!("{:?}", s.stream),
        stream: Some(s.stream),
        raw: s.raw_len,
        coded: s.len,
        packed: false,
    }));
    Ok(parts)
}
