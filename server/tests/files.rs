//! The server's files beside its database, each garbled, cut short, gone, or not to be read: the server works all the same, or it does not
//! start and says which file it is and what to do. It never makes a new key or root over a damaged one, nor in the place of one that is
//! gone from a folder that had a fleet. Put back, all is as before.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use skerry_server::store::{SqliteStore, database_path};
use skerry_trust::{SigningKey, TrustedRoot};

/// Whom nothing belongs to.
const NOBODY: u32 = 65534;

/// What a server that was started does: it serves, or it ends with these words.
#[derive(Debug)]
enum Started {
    Serves,
    Refuses(String),
}

/// Starts the program with these arguments, by `nobody` if so, and ends it again when it serves.
fn start(args: &[&str], log: &Path, by_nobody: bool) -> Started {
    let mut command = Command::new(env!("CARGO_BIN_EXE_skerry-server"));
    command.args(args).env("SKERRY_LOG", "warn").stdout(Stdio::piped()).stderr(File::create(log).unwrap());
    if by_nobody {
        command.uid(NOBODY).gid(NOBODY);
    }
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    if line.starts_with("ready ") {
        child.kill().unwrap();
        child.wait().unwrap();
        return Started::Serves;
    }
    let status = child.wait().unwrap();
    let said = fs::read_to_string(log).unwrap();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(!said.contains("panicked"), "{said}");
    Started::Refuses(said)
}

/// The files of a folder that tell one fleet from another.
fn identity(folder: &Path) -> BTreeMap<&'static str, Option<Vec<u8>>> {
    let names = ["root.key", "release.key", "director.key", "root.cose", "ca.key", "tls.key"];
    names.into_iter().map(|name| (name, fs::read(folder.join(name)).ok())).collect()
}

/// Something that happens to a file, in words and in deed.
type Damage = (&'static str, fn(&Path));

const DAMAGES: [Damage; 5] = [
    ("empty", |path| fs::write(path, []).unwrap()),
    ("cut in half", |path| {
        let bytes = fs::read(path).unwrap();
        fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
    }),
    ("garbled", |path| {
        let mut bytes = fs::read(path).unwrap();
        let (from, to) = (bytes.len() / 3, bytes.len() / 2);
        bytes[from..to].iter_mut().for_each(|b| *b ^= 0x15);
        fs::write(path, bytes).unwrap();
    }),
    ("a byte changed", |path| {
        let mut bytes = fs::read(path).unwrap();
        let at = bytes.len() / 2;
        bytes[at] = if bytes[at] == b'7' { b'8' } else { b'7' };
        fs::write(path, bytes).unwrap();
    }),
    ("gone", |path| fs::remove_file(path).unwrap()),
];

/// Every damage to a file: the server serves where it may, or names the file and says what to do; what tells the fleet apart is left as it
/// was found, or is what it always was.
fn try_all(file: &Path, folder: &Path, may_serve: &[&str], run: &dyn Fn() -> Started) {
    let (whole, fleet) = (fs::read(file).unwrap(), identity(folder));
    let name = file.file_name().unwrap().to_str().unwrap();
    for (what, damage) in DAMAGES {
        damage(file);
        let found = identity(folder);
        match run() {
            Started::Serves => assert!(may_serve.contains(&what), "{name} {what}: it serves"),
            Started::Refuses(said) => {
                for says in [name, "help: "] {
                    assert!(said.contains(says), "{name} {what}: `{says}` is not in: {said}");
                }
                println!("{name} {what}: {}", said.trim().replace('\n', " | "));
            }
        }
        for (other, bytes) in identity(folder) {
            let kept = bytes == found[other] || bytes == fleet[other];
            // The certificate's key is nobody's identity: the authority signs another one.
            assert!(kept || (other == name && name == "tls.key"), "{name} {what}: {other} was made anew");
        }
        fs::write(file, &whole).unwrap();
        if name == "tls.key" {
            // One that was made anew had its certificate made with it.
            let _ = fs::remove_file(folder.join("tls.pem"));
        }
        assert!(matches!(run(), Started::Serves), "{name} {what}: put back, it does not serve");
    }
}

#[test]
fn files_of_a_development_server() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let log = folder.path().join("log");
    let run = || start(&["dev", "--data", data.to_str().unwrap(), "--listen", "127.0.0.1:0"], &log, false);
    assert!(matches!(run(), Started::Serves));
    // A key that is signed with may be told only from its use: a changed byte of it makes another key, which the root does not name.
    for (name, may_serve) in [
        ("root.key", &[][..]),
        ("release.key", &[]),
        ("director.key", &[]),
        // Of the same keys the same root comes again, to the byte.
        ("root.cose", &["gone"]),
        ("ca.key", &[]),
        ("tls.key", &["gone"]),
        // What the certificates say is signed: clients notice, and the server need not.
        ("tls.pem", &["gone", "garbled", "a byte changed"]),
        // A new token is made known by the server itself; one that was changed is another one.
        ("operator.token", &["gone", "a byte changed"]),
        ("enrolment.token", &["gone", "a byte changed"]),
        // They are written anew by every start.
        ("cli.toml", &["empty", "cut in half", "garbled", "a byte changed", "gone"]),
        ("agent.toml", &["empty", "cut in half", "garbled", "a byte changed", "gone"]),
        ("lock", &["empty", "gone"]),
    ] {
        if name == "lock" {
            fs::write(data.join(name), []).unwrap();
            assert!(matches!(run(), Started::Serves));
            continue;
        }
        try_all(&data.join(name), &data, may_serve, &run);
    }
}

/// The files that a server with keys of its own is given, in a folder that `nobody` may use.
fn production(folder: &Path) -> (PathBuf, Vec<PathBuf>) {
    skerry_server::dev::prepare(folder, &skerry_server::dev::Address::new("127.0.0.1:0".parse().unwrap(), None).unwrap()).unwrap();
    let path = |name: &str| folder.join(name).display().to_string();
    let text = format!(
        "listen = '127.0.0.1:0'\ndata = '{}'\nlog = 'warn'\n[tls]\ncertificate = '{}'\nkey = '{}'\n[trust]\nroots = ['{}']\ndirector_key = '{}'\n",
        path("server"),
        path("tls.pem"),
        path("tls.key"),
        path("root.cose"),
        path("director.key")
    );
    fs::write(folder.join("server.toml"), text).unwrap();
    (folder.join("server.toml"), ["root.cose", "director.key", "tls.pem", "tls.key"].map(|name| folder.join(name)).into())
}

#[test]
fn files_that_a_production_server_is_given() {
    let folder = tempfile::tempdir().unwrap();
    let (config, files) = production(folder.path());
    let log = folder.path().join("log");
    let run = || start(&["run", "--config", config.to_str().unwrap()], &log, false);
    assert!(matches!(run(), Started::Serves));
    for file in files {
        // As above.
        let may_serve: &[&str] = if file.ends_with("tls.pem") { &["garbled", "a byte changed"] } else { &[] };
        let (whole, name) = (fs::read(&file).unwrap(), file.file_name().unwrap().to_str().unwrap().to_owned());
        for (what, damage) in DAMAGES {
            damage(&file);
            let found = identity(folder.path());
            match run() {
                Started::Serves => assert!(may_serve.contains(&what), "{name} {what}: it serves"),
                Started::Refuses(said) => {
                    // Certificate and key are told together.
                    let names = said.contains(&name) || name == "tls.key" && said.contains("tls.pem") && said.contains("tls.key must be");
                    assert!(names && said.contains("help: "), "{name} {what}: {said}");
                    println!("{name} {what}: {}", said.trim().replace('\n', " | "));
                }
            }
            assert_eq!(identity(folder.path()), found, "{name} {what}: a file was changed or made");
            fs::write(&file, &whole).unwrap();
        }
    }
    assert!(matches!(run(), Started::Serves));
}

/// Nothing is begun with a configuration that is not whole.
#[test]
fn the_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let (config, _) = production(folder.path());
    let whole = fs::read(&config).unwrap();
    // A byte of a path is another path: nobody can tell.
    for (what, damage) in DAMAGES.into_iter().filter(|(what, _)| *what != "a byte changed") {
        damage(&config);
        let output = Command::new(env!("CARGO_BIN_EXE_skerry-server")).args(["run", "--config"]).arg(&config).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{what}: {said}");
        assert!(said.contains("server.toml") && said.contains("help: "), "{what}: {said}");
        assert!(!folder.path().join("server").exists(), "{what}: something was begun");
        fs::write(&config, &whole).unwrap();
    }
}

/// Files of another owner, and without any right: the server names the one that it may not read or write.
#[test]
fn files_of_another_owner() {
    let folder = tempfile::tempdir().unwrap();
    let (config, mut files) = production(folder.path());
    let is_root = nobody_can_be(folder.path());
    let log = tempfile::tempdir().unwrap();
    let log = log.path().join("log");
    let own = |path: &Path, owner: u32| {
        if is_root {
            std::os::unix::fs::chown(path, Some(owner), Some(owner)).unwrap();
        }
    };
    let run = || start(&["run", "--config", config.to_str().unwrap()], &log, is_root);
    for file in fs::read_dir(folder.path()).unwrap() {
        own(&file.unwrap().path(), NOBODY);
    }
    own(folder.path(), NOBODY);
    assert!(matches!(run(), Started::Serves));
    let data = folder.path().join("server");
    files.extend(["server.db", "server.db-wal", "lock"].map(|name| data.join(name)));
    files.push(data.join("objects"));
    for file in files {
        let name = file.file_name().unwrap().to_str().unwrap();
        let mode = fs::metadata(&file).unwrap().permissions();
        own(&file, 0);
        fs::set_permissions(&file, fs::Permissions::from_mode(if is_root { 0o700 } else { 0 })).unwrap();
        match run() {
            Started::Serves => panic!("{name}: it serves"),
            Started::Refuses(said) => {
                let names = said.contains(name) || name == "lock" && said.contains(data.to_str().unwrap());
                assert!(names && said.contains("help: "), "{name}: {said}");
                println!("{name}: {}", said.trim().replace('\n', " | "));
            }
        }
        own(&file, NOBODY);
        fs::set_permissions(&file, mode).unwrap();
        assert!(matches!(run(), Started::Serves), "{name}: put right, it does not serve");
    }
}

/// May this process start others as `nobody`, and may they get to the folder?
fn nobody_can_be(folder: &Path) -> bool {
    std::os::unix::fs::chown(folder, Some(NOBODY), Some(NOBODY)).is_ok()
}

/// All keys and the root lost at once, the database still there: no new fleet begins in its place.
#[test]
fn a_folder_that_lost_its_keys_begins_no_new_fleet() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let log = folder.path().join("log");
    let run = || start(&["dev", "--data", data.to_str().unwrap(), "--listen", "127.0.0.1:0"], &log, false);
    assert!(matches!(run(), Started::Serves));
    let before = identity(&data);
    for name in before.keys() {
        fs::remove_file(data.join(name)).unwrap();
    }
    let Started::Refuses(said) = run() else { panic!("it serves another fleet") };
    assert!(said.contains("root.key") && said.contains("help: ") && said.contains("backup"), "{said}");
    assert!(identity(&data).values().all(Option::is_none), "a key was made");
    for (name, bytes) in &before {
        fs::write(data.join(name), bytes.as_ref().unwrap()).unwrap();
    }
    assert!(matches!(run(), Started::Serves));
    let root = TrustedRoot::first(&fs::read(data.join("root.cose")).unwrap()).unwrap();
    let director = SigningKey::from_text(&fs::read_to_string(data.join("director.key")).unwrap()).unwrap();
    assert!(root.keys(skerry_trust::Role::Director).get(&director.public().id()).is_some());
}

/// The write-ahead log that a kill leaves. Garbled where more was written after it, the server does not go on without what was acknowledged;
/// cut short or gone, it goes on from what the database has, as from an older copy, but not from nothing.
#[test]
fn the_databases_write_ahead_log() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let log = folder.path().join("log");
    let run = || start(&["dev", "--data", data.to_str().unwrap(), "--listen", "127.0.0.1:0"], &log, false);
    // A young database is in the log as a whole.
    assert!(matches!(run(), Started::Serves));
    let names = ["server.db", "server.db-wal"];
    let young = names.map(|name| fs::read(data.join(name)).unwrap());
    for bytes in [None, Some(&young[1][..40])] {
        fs::write(data.join("server.db"), &young[0]).unwrap();
        let _ = fs::remove_file(data.join("server.db-shm"));
        bytes.map_or_else(|| fs::remove_file(data.join("server.db-wal")), |bytes| fs::write(data.join("server.db-wal"), bytes)).unwrap();
        let Started::Refuses(said) = run() else { panic!("it begins anew") };
        assert!(said.contains("server.db") && said.contains("gone or empty") && said.contains("help: "), "{said}");
        fs::write(data.join("server.db-wal"), &young[1]).unwrap();
    }
    // Closed in order, the database has all of it; then it is written, and killed again.
    drop(SqliteStore::open(&database_path(&data)).unwrap());
    for _ in 0..4 {
        fs::remove_file(data.join("operator.token")).unwrap();
        assert!(matches!(run(), Started::Serves));
    }
    let whole = names.map(|name| fs::read(data.join(name)).unwrap());
    assert!(whole[1].len() > 20_000, "the log has {} bytes", whole[1].len());
    let put_back = || {
        for (name, bytes) in names.iter().zip(&whole) {
            fs::write(data.join(name), bytes).unwrap();
        }
        let _ = fs::remove_file(data.join("server.db-shm"));
    };
    for at in [0, 100, 3000, whole[1].len() / 3] {
        put_back();
        let mut garbled = whole[1].clone();
        garbled[at..at + 500].iter_mut().for_each(|b| *b ^= 0x5a);
        fs::write(data.join("server.db-wal"), &garbled).unwrap();
        let Started::Refuses(said) = run() else { panic!("garbled at {at}: it serves") };
        for says in ["server.db-wal", "garbled", "help: ", "backup"] {
            assert!(said.contains(says), "garbled at {at}: `{says}` is not in: {said}");
        }
        assert_eq!(fs::read(data.join("server.db-wal")).unwrap(), garbled, "it is left as it is");
        assert_eq!(fs::read(data.join("server.db")).unwrap(), whole[0]);
    }
    let fleet = identity(&data);
    for length in [0, 20, whole[1].len() / 2, whole[1].len() - 1] {
        put_back();
        fs::write(data.join("server.db-wal"), &whole[1][..length]).unwrap();
        assert!(matches!(run(), Started::Serves), "{length} bytes of the log");
    }
    put_back();
    fs::remove_file(data.join("server.db-wal")).unwrap();
    assert!(matches!(run(), Started::Serves), "without the log");
    assert_eq!(identity(&data), fleet);
}
