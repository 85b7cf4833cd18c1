//! A peer of the benchmark: bidiff 1.0.0 over whole files, its patch in zstd -19 with a window of 128 MiB.
//!
//!     bidiff_tar make OLD NEW PATCH | bidiff_tar apply OLD PATCH NEW

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Write};

use anyhow::{Context, Result, bail};

/// Bytes of the window as a power of two.
const WINDOW: u32 = 27;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["make", old, new, patch] => make(old, new, patch),
        ["apply", old, patch, new] => apply(old, patch, new),
        _ => bail!("usage: bidiff_tar make OLD NEW PATCH | bidiff_tar apply OLD PATCH NEW"),
    }
}

fn make(old: &str, new: &str, patch: &str) -> Result<()> {
    let (old, new) = (fs::read(old).context(old.to_owned())?, fs::read(new).context(new.to_owned())?);
    let mut out = zstd::stream::write::Encoder::new(BufWriter::new(File::create(patch)?), 19)?;
    out.window_log(WINDOW)?;
    out.long_distance_matching(true)?;
    bidiff::simple_diff(&old, &new, &mut out).context("bidiff")?;
    out.finish()?.flush()?;
    Ok(())
}

fn apply(old: &str, patch: &str, new: &str) -> Result<()> {
    let mut decoder = zstd::stream::read::Decoder::new(File::open(patch)?)?;
    decoder.window_log_max(WINDOW)?;
    let old = BufReader::new(File::open(old)?);
    let mut reader = bipatch::Reader::new(decoder, old).context("the patch")?;
    let mut out = BufWriter::new(File::create(new)?);
    io::copy(&mut reader, &mut out)?;
    out.flush()?;
    Ok(())
}
