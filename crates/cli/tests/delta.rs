//! `skerry delta` and `skerry image rank` as an operator runs them: every shape of image, and what they print.
#![allow(clippy::unwrap_used, reason = "a test, its helpers included")]

mod support;

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;
use skerry_image::archive::Archive;
use support::{Bed, Image, bed, image, masked, noise};

#[test]
fn archives_and_layouts_alike() {
    let bed = bed();
    let (old, new) = (image(1), image(2));
    old.write_oci_tar(&bed.path("1.oci.tar"));
    old.write_oci_folder(&bed.path("1.oci"));
    new.write_oci_tar(&bed.path("2.oci.tar"));
    new.write_oci_folder(&bed.path("2.oci"));
    let mut bundles = Vec::new();
    for (base, target) in [("1.tar", "2.tar"), ("1.oci.tar", "2.oci"), ("1.oci", "2.oci.tar")] {
        bed.ok(&["delta", "make", "--base", base, "--target", target, "--out", "p.skb", "--key", "key"]);
        bundles.push(std::fs::read(bed.path("p.skb")).unwrap());
        for base in ["1.tar", "1.oci.tar", "1.oci"] {
            let trust = ["--trust-key", &bed.public];
            let said = bed
                .ok(&[&["delta", "apply", "--base", base, "--bundle", "p.skb", "--out", "n.tar", "--tag", "app:2"], &trust[..]].concat());
            assert!(said.contains(&new.id().to_string()), "{said}");
            let mut made = Archive::open(&bed.path("n.tar")).unwrap();
            let found = made.choose(None).unwrap().clone();
            assert_eq!((found.image_id, found.repo_tags), (new.id(), vec!["app:2".to_owned()]));
            for (layer, bytes) in found.layers.iter().zip(&new.layers) {
                let mut read = Vec::new();
                std::io::Read::read_to_end(&mut made.layer(layer).unwrap(), &mut read).unwrap();
                assert!(read == *bytes, "another layer from {base}");
            }
        }
    }
    assert!(bundles.iter().all(|bundle| *bundle == bundles[0]), "the shape of an image shows in its bundle");
    let tmp: Vec<_> = bed.files().into_iter().filter(|name| name.starts_with('.')).collect();
    assert!(tmp.is_empty(), "{tmp:?} was left");
}

#[test]
fn the_users_own_key_serves_where_none_is_named() {
    let bed = bed();
    let (make, apply) = (
        ["delta", "make", "--base", "1.tar", "--target", "2.tar", "--out", "p.skb"],
        ["delta", "apply", "--base", "1.tar", "--bundle", "p.skb", "--out", "n.tar"],
    );
    bed.ok(&[&make[..], &["--key", "key"]].concat());
    assert!(bed.refused(&apply).contains("whose bundles are trusted?"));
    bed.ok(&make);
    let key = bed.path("config/skerry/delta.key");
    let kept = std::fs::read(&key).unwrap();
    assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    bed.ok(&apply);
    bed.ok(&["delta", "inspect", "p.skb", "--base", "1.tar"]);
    bed.ok(&make);
    assert!(std::fs::read(&key).unwrap() == kept, "the key was made again");
    // Another's bundle, and this one where another is named.
    assert!(bed.refused(&[&apply[..], &["--trust-key", &bed.public]].concat()).contains("not trusted"));
    bed.ok(&[&make[..], &["--key", "key"]].concat());
    assert!(bed.refused(&apply).contains("not trusted"));
    std::fs::write(&key, "garbled").unwrap();
    assert!(bed.refused(&apply).contains("delta.key"));
}

#[test]
fn inspect_shows_where_every_byte_goes() {
    let bed = bed();
    let size = bed.patch().len() as u64;
    // Without an engine that may have the base.
    let all = ["delta", "inspect", "p.skb", "--trust-key", &bed.public, "--docker", "unix:///nowhere/docker.sock"];
    let short: Value = serde_json::from_str(&bed.ok(&[&all[..], &["--json"]].concat())).unwrap();
    let sum = |parts: &Value| parts.as_array().unwrap().iter().map(|p| p["coded"].as_u64().unwrap()).sum::<u64>();
    assert_eq!((sum(&short["parts"]), short["size"].as_u64()), (size, Some(size)));
    assert!(short["shares"].is_null());
    let with = [&all[..], &["--base", "1.tar"]].concat();
    let long: Value = serde_json::from_str(&bed.ok(&[&with[..], &["--json"]].concat())).unwrap();
    let members = long["shares"]["members"].as_array().unwrap();
    assert_eq!(members[0]["path"], "app/new", "the noise costs most");
    let paths: Vec<_> = members.iter().map(|m| m["path"].as_str().unwrap()).collect();
    assert!(paths.contains(&"app/text") && paths.contains(&"app/changelog.gz"), "{paths:?}");
    let payload = sum(&short["parts"]) as f64 - short["parts"][0]["coded"].as_f64().unwrap();
    let shares: f64 = members.iter().map(|m| m["share"].as_f64().unwrap()).sum();
    assert!(shares > payload * 0.5 && shares <= payload + 1.0, "{shares} of {payload} bytes");
    let all_of_it = shares + long["shares"]["configuration"].as_f64().unwrap();
    assert!((all_of_it - payload).abs() < 1.0, "{all_of_it} of {payload} bytes");
    let text = masked(&bed.ok(&with));
    for golden in [
        "Signed by",
        "LAYER MADE",
        "\nlayer # of base # in a base\n",
        "PART BYTES CODED IN\nhead, signature, table of contents # #",
        "Shares of the streams' bytes, which are coded over all members together: by how much each member reads.",
        "LAYER MEMBERS SIZE SHARE\nsha#:",
        "(the configuration) #",
        "CODEC MEMBERS SIZE SHARE\n",
        "\nMEMBER CODEC SIZE SHARE\napp/new New # KB #",
        "app/changelog.gz Archive # KB #",
    ] {
        assert!(text.contains(golden), "{golden:?} is not in\n{text}");
    }
    let text = bed.ok(&all);
    assert!(text.ends_with("name each with --base BASE.\n"), "{text}");
    // A full bundle needs no base for it.
    bed.ok(&["delta", "make", "--target", "2.tar", "--out", "f.skb", "--key", "key"]);
    assert!(bed.ok(&["delta", "inspect", "f.skb", "--trust-key", &bed.public]).contains("base/data"));
}

#[test]
fn the_nearest_base_comes_first() {
    let bed = bed();
    image(3).write_oci_folder(&bed.path("3.oci"));
    let mut other = image(7);
    other.layers.swap(0, 1);
    other.layers.remove(1);
    let ids = format!("\"{}\"", skerry_wire::DiffId(skerry_image::sha256(&other.layers[0])));
    other.config = format!(r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":[{ids}]}}}}"#).into_bytes();
    std::fs::write(bed.path("other.tar"), other.archive(&[])).unwrap();
    let said = bed.ok(&["image", "rank", "--target", "2.tar", "--base", "other.tar", "--base", "3.oci", "--json"]);
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(said["bases"][0]["base"], "3.oci");
    assert_eq!(said["bases"][0]["layers_shared"], 1);
    let bytes = |n: usize| said["bases"][n]["predicted_bytes"].as_u64().unwrap();
    assert!(bytes(0) < bytes(1) && bytes(1) < said["full_bytes"].as_u64().unwrap(), "{said}");
    let text = masked(&bed.ok(&["image", "rank", "--target", "2.tar", "--base", "3.oci"]));
    assert!(text.starts_with("BASE PREDICTED LAYERS SHARED\n#oci # KB #\n(none: a full bundle) # KB #"), "{text}");
}

/// An image in this machine's engine, until this is dropped.
struct Loaded {
    name: String,
}

impl Loaded {
    /// None where no engine answers: the test is skipped.
    fn new(bed: &Bed, what: &str, image: Image) -> Option<Self> {
        if !docker(&["version".as_ref()]).status.success() {
            assert!(std::env::var("CI").is_err(), "no engine");
            eprintln!("skipped: no engine answers");
            return None;
        }
        let name = format!("skerry-cli-{what}-{}:1", std::process::id());
        let archive = bed.path("named.tar");
        std::fs::write(&archive, image.archive(std::slice::from_ref(&name))).unwrap();
        let loaded = Self { name };
        assert!(docker(&["load".as_ref(), "--input".as_ref(), archive.as_os_str()]).status.success());
        Some(loaded)
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        docker(&["image".as_ref(), "rm".as_ref(), self.name.as_ref()]);
    }
}

fn docker(arguments: &[&OsStr]) -> Output {
    Command::new("docker").args(arguments).output().unwrap()
}

/// An image of this machine's engine, under its name; skipped where no engine answers.
#[test]
fn images_of_the_engine() {
    let bed = bed();
    let Some(loaded) = Loaded::new(&bed, "test", image(1)) else { return };
    let name = &loaded.name;
    let given = format!("docker:{name}");
    let made = bed.run(&["delta", "make", "--base", &given, "--target", "2.tar", "--out", "p.skb", "--key", "key"]);
    let applied = bed.run(&["delta", "apply", "--base", name, "--bundle", "p.skb", "--out", "n.tar", "--trust-key", &bed.public]);
    let ranked = bed.run(&["image", "rank", "--base", name, "--target", "2.tar"]);
    // The base is in the engine: it need not be named.
    let inspected = bed.run(&["delta", "inspect", "p.skb", "--trust-key", &bed.public]);
    assert!(masked(&String::from_utf8_lossy(&inspected.stdout)).contains("\napp/new New # KB #"), "{inspected:?}");
    for output in [made, applied, ranked, inspected] {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!(Archive::open(&bed.path("n.tar")).unwrap().choose(None).unwrap().image_id, image(2).id());
    let said = bed.refused(&["image", "rank", "--base", "docker:1.tar", "--target", "2.tar"]);
    assert!(said.contains("`1.tar` is neither a file here nor an image of the engine"), "{said}");
}

/// An image with a layer that takes a while to compare.
fn long(version: usize) -> Image {
    let mut long = image(1);
    let mut builder = tar::Builder::new(Vec::new());
    let mut content = noise(9, 24 << 20);
    for (at, byte) in content.iter_mut().enumerate().step_by(997) {
        *byte ^= (version * at).to_le_bytes()[0];
    }
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    builder.append_data(&mut header, "big", &content[..]).unwrap();
    long.layers[1] = builder.into_inner().unwrap();
    let ids: Vec<_> = long.layers.iter().map(|l| format!("\"{}\"", skerry_wire::DiffId(skerry_image::sha256(l)))).collect();
    long.config =
        format!(r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#, ids.join(",")).into_bytes();
    long
}

/// Runs the command, and sends it the signal once `seen` says so: it gives up.
fn stopped(command: &mut Command, signal: Signal, seen: impl Fn() -> bool) -> Output {
    let output = signalled(command, signal, seen);
    assert_eq!((output.status.code(), output.status.signal()), (Some(1), None), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

/// Runs the command, and sends it the signal once `seen` says so.
fn signalled(command: &mut Command, signal: Signal, seen: impl Fn() -> bool) -> Output {
    let begun = Instant::now();
    let mut child = command.stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    while !seen() {
        assert!(child.try_wait().unwrap().is_none() && begun.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(2));
    }
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), signal).unwrap();
    child.wait_with_output().unwrap()
}

/// The arguments of a make that takes a while.
fn long_make(bed: &Bed) -> [&'static str; 10] {
    for version in [1, 2] {
        std::fs::write(bed.path(&format!("long{version}.tar")), long(version).archive(&[])).unwrap();
    }
    ["delta", "make", "--base", "long1.tar", "--target", "long2.tar", "--out", "long.skb", "--key", "key"]
}

#[test]
fn a_signal_leaves_nothing() {
    let bed = bed();
    let arguments = long_make(&bed);
    let before = bed.files();
    // Whoever runs the tests may have them ignore the last.
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let ignored = status.lines().any(|line| line.starts_with("SigIgn:") && line.ends_with(['1', '3', '5', '7', '9', 'b', 'd', 'f']));
    let hang_up = (!ignored).then_some(Signal::HUP);
    for signal in [Signal::INT, Signal::TERM].into_iter().chain(hang_up) {
        // As soon as it works on its output: the temporary file is there.
        let output = stopped(&mut bed.command(&arguments), signal, || bed.files() != before);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("Interrupted: cleaning up;") && said.contains("error: "), "{said}");
        assert_eq!(bed.files(), before);
    }
}

/// The same while an engine exports the image.
#[test]
fn a_signal_during_an_export_leaves_nothing() {
    let bed = bed();
    let Some(loaded) = Loaded::new(&bed, "stop", long(1)) else { return };
    let folder = bed.path("temporary");
    std::fs::create_dir(&folder).unwrap();
    let files = || std::fs::read_dir(&folder).unwrap().count();
    let given = format!("docker:{}", loaded.name);
    // The export comes before the server is asked for anything.
    let ca = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap().cert.pem();
    std::fs::write(bed.path("ca.pem"), ca).unwrap();
    std::fs::write(bed.path("cli.toml"), "server = \"https://127.0.0.1:1\"\nca = \"ca.pem\"\ntoken = \"none\"\n").unwrap();
    let make = ["delta", "make", "--base", "1.tar", "--target", &given, "--out", "p.skb", "--key", "key"];
    let publish = ["--config", "cli.toml", "image", "publish", &loaded.name, "--key", "key"];
    for arguments in [&make[..], &publish] {
        for signal in [Signal::INT, Signal::TERM] {
            let output = stopped(bed.command(arguments).env("TMPDIR", &folder), signal, || files() > 0);
            assert!(String::from_utf8_lossy(&output.stderr).contains("nterrupted"), "{output:?}");
            assert_eq!(files(), 0);
        }
    }
}

/// As `nohup` runs it.
#[test]
fn a_closed_terminal_that_was_to_be_ignored_is() {
    let bed = bed();
    let make = bed.command(&long_make(&bed));
    let mut before = bed.files();
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' HUP; exec \"$0\" \"$@\""]).arg(make.get_program()).args(make.get_args()).current_dir(bed.folder.path());
    for (name, value) in make.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    // It is at work, not at its end: the temporary file is there, the bundle is not.
    let output = signalled(&mut command, Signal::HUP, || bed.files() != before && !bed.path("long.skb").exists());
    assert!(output.status.success(), "{output:?}");
    before.insert("long.skb".to_owned());
    assert_eq!(bed.files(), before);
}
