//! What of a bundle each layer, codec and member takes, found by applying it and counting what is read.
//!
//! A bundle's streams are coded over all members together, so no member has bytes of its own in the file. What can be said is how many
//! bytes of each stream a member reads; its share is that part of the stream's bytes in the file. The shares of all members, and what is
//! read for the configuration, add up to the payload.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use indicatif::ProgressBar;
use serde_json::{Value, json};
use skerry_bundle::{TargetLayer, VerifiedToc};
use skerry_delta::apply::Item;
use skerry_reconstruct::{ImageSink, LayerInfo, Limits, reconstruct_told};
use skerry_wire::{DiffId, ImageId};

use crate::delta_image::{Check, Found, LocalImage, LocalSources};
use crate::output;
use crate::publish::bar;

/// A member of a new layer.
struct Member {
    layer: usize,
    path: String,
    codec: String,
    /// Bytes of its content.
    size: u64,
    /// Bytes of the file that are its share.
    share: f64,
}

/// What each member takes.
pub(crate) struct Shares {
    members: Vec<Member>,
    /// The digest of each new layer, in order.
    layers: Vec<DiffId>,
}

/// Takes the image and keeps nothing of it.
struct Nothing<'a> {
    bar: ProgressBar,
    layer: &'a RefCell<usize>,
    cancel: &'a AtomicBool,
}

impl ImageSink for Nothing<'_> {
    fn config(&mut self, _: &ImageId, _: &[u8], _: &[LayerInfo]) -> io::Result<()> {
        Ok(())
    }

    fn layer_start(&mut self, _: usize, _: &DiffId, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn layer_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.bar.inc(bytes.len() as u64);
        if self.cancel.load(Ordering::Relaxed) { Err(io::Error::other("interrupted")) } else { Ok(()) }
    }

    fn layer_end(&mut self) -> io::Result<()> {
        *self.layer.borrow_mut() += 1;
        Ok(())
    }
}

/// Applies a bundle and counts. `costs` are, by the number of a stream, its bytes before coding and in the file.
pub(crate) fn count(
    bundle: &mut BufReader<File>,
    toc: &VerifiedToc,
    bases: Vec<Found>,
    costs: &[(u64, u64)],
    cancel: &AtomicBool,
) -> Result<Shares> {
    let bases = bases.into_iter().map(|base| LocalImage::open(base, Check::Later, cancel)).collect::<Result<Vec<_>>>()?;
    let new =
        toc.toc().layers.iter().filter_map(|l| if let TargetLayer::New { diff_id, size } = l { Some((*diff_id, *size)) } else { None });
    let (layers, sizes): (Vec<_>, Vec<_>) = new.unzip();
    let (layer, members) = (RefCell::new(0), RefCell::new(Vec::new()));
    let tally = |item: &Item<'_>| {
        let share = item.read.iter().zip(costs).map(|(read, (raw, coded))| *read as f64 * *coded as f64 / (*raw).max(1) as f64).sum();
        members.borrow_mut().push(Member {
            layer: *layer.borrow(),
            path: if item.path.is_empty() { "(between members)".to_owned() } else { String::from_utf8_lossy(item.path).into_owned() },
            codec: item.codec.map_or_else(|| "-".to_owned(), |codec| format!("{codec:?}")),
            size: item.size,
            share,
        });
    };
    let mut sink = Nothing { bar: bar("Applying", sizes.iter().sum()), layer: &layer, cancel };
    let limits = Limits { memory: 1 << 30, ..Limits::default() };
    reconstruct_told(bundle, toc, &LocalSources(bases), &mut sink, &limits, Some(&tally)).context("applying the bundle to count")?;
    sink.bar.finish_and_clear();
    Ok(Shares { members: members.into_inner(), layers })
}

/// Contents, their bytes, and their share.
type Sum = (u64, u64, f64);

impl Shares {
    fn sums<K: Ord>(&self, key: impl Fn(&Member) -> K) -> BTreeMap<K, Sum> {
        let mut sums: BTreeMap<K, Sum> = BTreeMap::new();
        for member in &self.members {
            let sum = sums.entry(key(member)).or_default();
            *sum = (sum.0 + 1, sum.1 + member.size, sum.2 + member.share);
        }
        sums
    }

    /// Those that cost most first.
    fn dearest(&self) -> Vec<&Member> {
        let mut all: Vec<_> = self.members.iter().collect();
        all.sort_by(|a, b| b.share.total_cmp(&a.share));
        all
    }

    fn layer(&self, index: usize) -> String {
        self.layers.get(index).map(ToString::to_string).unwrap_or_default()
    }

    /// Tables for people, with so many members. `payload` is the bytes of all streams.
    pub(crate) fn text(&self, members: usize, payload: u64) -> String {
        let round = |share: f64| format!("{share:.0}");
        let head = ["MEMBERS", "SIZE", "SHARE"];
        let row = |name: String, (count, size, share): Sum| vec![name, count.to_string(), output::bytes(size), round(share)];
        let mut text =
            "Shares of the streams' bytes, which are coded over all members together: by how much each member reads.\n\n".to_owned();
        let layers = self.sums(|member| member.layer).into_iter().map(|(index, sum)| row(self.layer(index), sum));
        let layers = layers.chain([vec!["(the configuration)".to_owned(), String::new(), String::new(), round(self.rest(payload))]]);
        text.push_str(&output::table(&["LAYER", head[0], head[1], head[2]], &head, layers));
        text.push('\n');
        let codecs = self.sums(|member| member.codec.clone()).into_iter().map(|(codec, sum)| row(codec, sum));
        text.push_str(&output::table(&["CODEC", head[0], head[1], head[2]], &head, codecs));
        text.push('\n');
        let rows = self.dearest().into_iter().take(members);
        let rows = rows.map(|m| vec![m.path.clone(), m.codec.clone(), output::bytes(m.size), round(m.share)]);
        text.push_str(&output::table(&["MEMBER", "CODEC", "SIZE", "SHARE"], &["SIZE", "SHARE"], rows));
        text
    }

    /// What is left for the configuration of the bytes of all streams.
    fn rest(&self, payload: u64) -> f64 {
        (payload as f64 - self.members.iter().map(|member| member.share).sum::<f64>()).max(0.0)
    }

    /// All of it for programs.
    pub(crate) fn json(&self, payload: u64) -> Value {
        let sum = |(members, bytes, share): Sum| json!({ "members": members, "bytes": bytes, "share": share });
        let layers: BTreeMap<_, _> = self.sums(|member| member.layer).into_iter().map(|(index, s)| (self.layer(index), sum(s))).collect();
        let codecs: BTreeMap<_, _> = self.sums(|member| member.codec.clone()).into_iter().map(|(codec, s)| (codec, sum(s))).collect();
        let members = self
            .dearest()
            .into_iter()
            .map(|m| json!({ "layer": self.layer(m.layer), "path": m.path, "codec": m.codec, "bytes": m.size, "share": m.share }));
        json!({
            "layers": layers, "codecs": codecs, "members": members.collect::<Vec<_>>(), "configuration": self.rest(payload),
        })
    }
}
