//! Two builds of one image of any size, of files of this machine: nine tenths are a runtime, one tenth an application.
//!
//! The second is a day newer and its application edited, as in a pipeline that builds without a cache: every layer is another one.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use skerry_testkit::image::{Archive, Content, ImageSpec, LayerSpec, Member};
use skerry_testkit::need::program;

/// Modification times a day apart.
const BUILT: [u64; 2] = [1_704_067_200, 1_704_153_600];
/// Where the files of the runtime and of the application are taken from, until there are enough.
const RUNTIME: [&str; 2] = ["/usr/lib", "/usr/bin"];
const APPLICATION: [&str; 2] = ["/usr/share", "/usr/include"];
/// No file alone makes the image.
const LONGEST: u64 = 16 << 20;

/// Both images, `stock:1` and `stock:2`, of about so many uncompressed bytes. They answer as [`skerry_testkit::app::WebApp`] does.
///
/// # Errors
/// When an archive cannot be written, or the machine has no static busybox.
pub fn pair(folder: &Path, bytes: u64) -> Result<[Archive; 2]> {
    let busybox = program("busybox").context("no busybox; `apt-get install busybox-static`")?;
    let mut runtime = vec![Member::folder("bin"), Member::program("bin/busybox", Content::Copy(busybox))];
    runtime.push(Member::file("bin/sh", Content::Link("busybox".into())));
    runtime.extend(collect(&RUNTIME, "opt/runtime", bytes / 10 * 9)?);
    let application = collect(&APPLICATION, "opt/application", bytes / 10)?;
    let version = |at: usize| {
        let version = (at + 1).to_string();
        let mut program = application.clone();
        program.extend([
            Member::folder("www"),
            Member::file("www/version", Content::Bytes(version.clone().into_bytes())),
            Member::file("www/index.html", Content::Bytes(format!("<h1>stock {version}</h1>\n").into_bytes())),
        ]);
        let layers = [runtime.clone(), program].map(|members| LayerSpec { mtime: BUILT[at], members });
        ImageSpec {
            reference: format!("stock:{version}"),
            layers: layers.into(),
            command: ["/bin/busybox", "httpd", "-f", "-p", "8080", "-h", "/www"].map(str::to_owned).into(),
            env: vec!["PATH=/bin".to_owned()],
            stop_signal: Some("SIGKILL".to_owned()),
        }
        .write(folder)
    };
    Ok([version(0)?, version(1)?])
}

/// Files of these folders, in order, until they have so many bytes; all in one folder of the image, by number.
fn collect(from: &[&str], to: &str, bytes: u64) -> Result<Vec<Member>> {
    let mut members = vec![Member::folder("opt"), Member::folder(to)];
    let (mut seen, mut folders): (u64, Vec<PathBuf>) = (0, from.iter().rev().map(PathBuf::from).collect());
    while let Some(folder) = folders.pop() {
        let mut entries: Vec<_> = fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))?.flatten().collect();
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in &entries {
            let (kind, path) = (entry.file_type()?, entry.path());
            if kind.is_dir() {
                folders.push(path);
            } else if kind.is_file() {
                let size = entry.metadata()?.len();
                if size == 0 || size > LONGEST {
                    continue;
                }
                if seen >= bytes {
                    return Ok(members);
                }
                seen += size;
                let name = format!("{to}/{}-{}", members.len(), entry.file_name().to_string_lossy());
                members.push(Member::file(&name, Content::Copy(path)));
            }
        }
    }
    Ok(members)
}
