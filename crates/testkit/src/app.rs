//! The applications of the tests and the demo: a static web server with bulk, and a Python service of real size.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command::run;
use crate::image::{Archive, Content, ImageSpec, LayerSpec, Member, copy_tree};
use crate::need::program;

/// The port that the applications answer on.
pub const PORT: u16 = 8080;

/// The path under which each application says its version.
pub const VERSION_PATH: &str = "/version";

/// Two modification times a day apart: that of a first build and that of a rebuild.
const BUILT: [u64; 2] = [1_704_067_200, 1_704_153_600];

/// A web server of busybox that says its version and writes down every request, with some bulk.
#[derive(Debug, Clone)]
pub struct WebApp {
    /// Name of the image.
    pub name: String,
    /// Its tag, and what it says at [`VERSION_PATH`].
    pub version: String,
    /// Bytes that do not compress, of their own layer.
    pub bulk: u64,
    /// Which bytes these are; two versions with the same seed share that layer.
    pub seed: u64,
}

impl WebApp {
    /// A small one: some 2 MB.
    #[must_use]
    pub fn small(name: &str, version: &str) -> Self {
        Self { name: name.to_owned(), version: version.to_owned(), bulk: 256 * 1024, seed: 1 }
    }

    /// One whose bundle is over 12 MB for every version, because its bulk is new each time.
    #[must_use]
    pub fn bulky(name: &str, version: &str) -> Self {
        let seed = version.bytes().fold(17, |h: u64, b| h.wrapping_mul(31) + u64::from(b));
        Self { name: name.to_owned(), version: version.to_owned(), bulk: 12 << 20, seed }
    }

    /// Writes its archive into `folder`.
    ///
    /// # Errors
    /// When the machine has no static busybox, or the archive cannot be written.
    pub fn write(&self, folder: &Path) -> Result<Archive> {
        let busybox = static_busybox()?;
        let mut base = vec![Member::folder("bin"), Member::program("bin/busybox", Content::Copy(busybox))];
        base.push(Member::file("bin/sh", Content::Link("busybox".into())));
        base.extend([Member::folder("etc"), Member::file("etc/passwd", Content::Bytes(b"root:x:0:0:root:/:/bin/sh\n".to_vec()))]);
        let noise = Content::Noise { seed: self.seed, size: self.bulk };
        let bulk = vec![Member::folder("data"), Member::file("data/bulk", noise)];
        let page = format!("<h1>{} {}</h1>\n", self.name, self.version);
        let www = vec![
            Member::folder("www"),
            Member::file("www/index.html", Content::Bytes(page.into_bytes())),
            Member::file("www/version", Content::Bytes(self.version.clone().into_bytes())),
        ];
        let layers = [base, bulk, www].map(|members| LayerSpec { mtime: BUILT[0], members });
        let command = ["/bin/busybox", "httpd", "-f", "-v", "-p", "8080", "-h", "/www"].map(str::to_owned);
        ImageSpec {
            reference: format!("{}:{}", self.name, self.version),
            layers: layers.into(),
            command: command.into(),
            env: vec!["PATH=/bin".to_owned()],
            // As first process httpd would not hear SIGTERM.
            stop_signal: Some("SIGKILL".to_owned()),
        }
        .write(folder)
    }
}

/// Two versions of a Python service: Python with its library from this machine's Debian packages, some 60 MB, and a small program.
///
/// Both are complete builds. The second is a day newer, its program edited, and a busybox is added for work on the node: every layer of
/// it is another one, as in a pipeline that builds without a cache.
///
/// # Errors
/// When the machine has no Python of its distribution, or an archive cannot be written.
pub fn python_pair(folder: &Path) -> Result<(Archive, Archive)> {
    let python = Path::new("/usr/bin/python3").canonicalize().context("no /usr/bin/python3; `apt-get install python3`")?;
    let name = python.file_name().context("no name")?.to_string_lossy().into_owned();
    let library = PathBuf::from("/usr/lib").join(&name);
    // Neither run time nor content: compiled when the image is first used, or for developers of Python itself.
    let keep = |path: &Path| !["__pycache__", "test", "idlelib"].iter().any(|n| path.ends_with(n));
    let mut runtime = ["usr", "usr/bin", "usr/lib", "tmp"].map(Member::folder).to_vec();
    runtime.push(Member::program("usr/bin/python3", Content::Copy(python.clone())));
    for (from, to) in shared_libraries(&python)? {
        for depth in folders_of(&to) {
            if !runtime.iter().any(|m| m.path == depth) {
                runtime.push(Member::folder(&depth));
            }
        }
        runtime.push(Member::program(&to, Content::Copy(from)));
    }
    runtime.extend(copy_tree(&library, &format!("usr/lib/{name}"), &keep)?);
    let version = |version: &str, built: u64, source: String, more: Vec<Member>| -> Result<Archive> {
        let mut program = vec![Member::folder("app"), Member::file("app/tide.py", Content::Bytes(source.into_bytes()))];
        program.extend(more);
        let layers = [runtime.clone(), program].map(|members| LayerSpec { mtime: built, members });
        ImageSpec {
            reference: format!("tide:{version}"),
            layers: layers.into(),
            command: vec!["/usr/bin/python3".to_owned(), "/app/tide.py".to_owned()],
            env: vec!["PATH=/usr/bin".to_owned(), "PYTHONDONTWRITEBYTECODE=1".to_owned()],
            stop_signal: None,
        }
        .write(folder)
    };
    let source = include_str!("app/tide.py");
    let edited = source.replace("VERSION = \"1\"", "VERSION = \"2\"").replace("# v2: ", "");
    let tools = vec![Member::program("app/busybox", Content::Copy(static_busybox()?))];
    Ok((version("1", BUILT[0], source.to_owned(), Vec::new())?, version("2", BUILT[1], edited, tools)?))
}

/// A jobspec that runs `reference` on one node and publishes its port.
#[must_use]
pub fn jobspec(job: &str, reference: &str) -> String {
    format!(
        r#"job "{job}" {{
  datacenters = ["*"]
  type        = "service"

  group "web" {{
    count = 1

    network {{
      port "http" {{
        static = {PORT}
        to     = {PORT}
      }}
    }}

    task "app" {{
      driver       = "docker"
      kill_timeout = "5s"

      config {{
        image = "{reference}"
        ports = ["http"]
      }}

      resources {{
        cpu    = 100
        memory = 128
      }}
    }}
  }}
}}
"#
    )
}

fn static_busybox() -> Result<PathBuf> {
    let path = program("busybox").context("no busybox; `apt-get install busybox-static`")?;
    if run(Command::new("ldd").arg(&path)).is_ok() {
        bail!("{} is not static; `apt-get install busybox-static`", path.display());
    }
    Ok(path)
}

/// The shared libraries of a program: where each is here, and where it belongs in the image.
fn shared_libraries(program: &Path) -> Result<Vec<(PathBuf, String)>> {
    let text = run(Command::new("ldd").arg(program))?;
    let paths = text.lines().filter_map(|l| l.split_whitespace().find(|w| w.starts_with('/')));
    let mut found = Vec::new();
    for path in paths {
        let real = Path::new(path).canonicalize().with_context(|| format!("no {path}"))?;
        found.push((real, path.trim_start_matches('/').to_owned()));
    }
    Ok(found)
}

/// `a/b/c` -> `a`, `a/b`
fn folders_of(path: &str) -> Vec<String> {
    path.match_indices('/').map(|(at, _)| path[..at].to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_come_before_what_is_in_them() {
        assert_eq!(folders_of("lib/x86/libc.so"), ["lib", "lib/x86"]);
        assert!(folders_of("file").is_empty());
    }
}
