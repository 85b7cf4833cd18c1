//! What is done once on the server's machine: the first operator's token, and the files of a fleet's trust.
//!
//! In: a configuration, names, public keys. Out: rows of the database, files. Whoever may write to the data folder is trusted: no token
//! is asked for. The database may be in use by a running server meanwhile.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use ring::rand::SystemRandom;
use skerry_trust::{PublicKey, Role, RoleKeys, Root, SigningKey, TrustedRoot, sign_root};
use skerry_wire::Timestamp;

use crate::clock;
use crate::config::Config;
use crate::secret::{Token, TokenKind};
use crate::store::{self, By, Operator, OperatorStore, SqliteStore, database_path};

/// Who the audit log names for what is done here.
const WHO: &str = "skerry-server operator";
/// The longest name of an operator, bytes.
const NAME: usize = 128;

/// The database of a configuration, whether a server runs on it or not. Blocks.
fn open(config: &Config) -> anyhow::Result<SqliteStore> {
    let failed = || format!("{}: the data folder cannot be made", config.data.display());
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&config.data).with_context(failed)?;
    let path = database_path(&config.data);
    SqliteStore::open(&path).map_err(|error| error.on_open(&path))
}

/// Makes an operator's token and gives it; it is not kept, and cannot be shown again.
pub async fn add_operator(config: &Config, name: &str, role: store::Role) -> anyhow::Result<String> {
    let plain = !name.trim().is_empty() && name.len() <= NAME && !name.chars().any(char::is_control);
    ensure!(plain, "`{}` is not a name\nhelp: give 1 to {NAME} bytes without control characters", name.escape_debug());
    let store = open(config)?;
    let taken = store.operators().await?.iter().any(|known| known.name == name);
    ensure!(!taken, "an operator `{name}` is there already\nhelp: choose another name, or remove it first: skerry-server operator remove");
    let token = Token::generate(TokenKind::Operator, &SystemRandom::new())?;
    let operator = Operator { id: token.id, secret_hash: token.secret_hash, role, name: name.to_owned() };
    store.put_operator(operator, by()).await?;
    Ok(token.text)
}

/// The operators, by name.
pub async fn operators(config: &Config) -> anyhow::Result<Vec<Operator>> {
    Ok(open(config)?.operators().await?)
}

/// Takes an operator's tokens away; a running server refuses them from now on.
pub async fn remove_operator(config: &Config, name: &str) -> anyhow::Result<()> {
    let removed = open(config)?.remove_operator(name.to_owned(), by()).await?;
    ensure!(removed, "there is no operator `{name}`\nhelp: `skerry-server operator list` lists what there is");
    Ok(())
}

fn by() -> By {
    By { who: WHO.to_owned(), at: clock::now() }
}

/// Makes the files of a new fleet's trust in `out`: `root.key` (to be kept offline), `director.key` (for the server) and `root.cose` (for
/// the server and every node), which names these and the release keys. Nothing is overwritten. Blocks.
pub fn make_trust(out: &Path, release: &[PublicKey]) -> anyhow::Result<()> {
    ensure!(!release.is_empty(), "no release key\nhelp: give the public half of each with --release; `skerry key generate` makes a key");
    fs::DirBuilder::new().recursive(true).mode(0o700).create(out).with_context(|| format!("{}: cannot be made", out.display()))?;
    let paths = ["root.key", "director.key", "root.cose"].map(|name| out.join(name));
    for path in &paths {
        ensure!(!path.exists(), "{}: is there already\nhelp: keys are never overwritten; choose another folder", path.display());
    }
    let random = SystemRandom::new();
    let (root, root_text) = new_key(&random)?;
    let (director, director_text) = new_key(&random)?;
    let keys = |keys: Vec<PublicKey>| RoleKeys { keys, threshold: 1 };
    let document = Root {
        version: 1,
        roles: [
            (Role::Root, keys(vec![root.public()])),
            (Role::Release, keys(release.to_vec())),
            (Role::Director, keys(vec![director.public()])),
        ]
        .into(),
        time_cap: Timestamp(i64::MAX),
    };
    let [root_path, director_path, document_path] = paths;
    write_new(&root_path, 0o600, root_text.as_bytes())?;
    write_new(&director_path, 0o600, director_text.as_bytes())?;
    write_new(&document_path, 0o644, &sign_root(&document, &[&root]))
}

/// What a newer root document says otherwise than the one before it. Nothing of a role that is empty here.
#[derive(Debug, Default)]
pub struct Renewal {
    /// Release keys, in place of those before.
    pub release: Vec<PublicKey>,
    /// Director keys, in place of those before.
    pub director: Vec<PublicKey>,
}

/// Makes the root document that follows the one in `root`, signed with the root keys in `keys`, and writes it to `out`, which must not be there.
/// Gives its version. With it come new epochs: a node that lost its marks takes manifests again. Blocks.
pub fn renew_root(root: &Path, keys: &[PathBuf], renewal: Renewal, out: &Path) -> anyhow::Result<u64> {
    ensure!(!out.exists(), "{}: is there already\nhelp: a root document is never overwritten; choose another name", out.display());
    let read = |path: &Path| fs::read(path).with_context(|| format!("{}: cannot be read", path.display()));
    let bytes = read(root)?;
    // Whoever holds its keys says that this is the newest one; a first one is judged by its own keys, and so is any other here.
    let before = TrustedRoot::first(&bytes).with_context(|| format!("{}", root.display()))?;
    let mut signers = Vec::new();
    for path in keys {
        let text = String::from_utf8_lossy(&read(path)?).into_owned();
        signers.push(SigningKey::from_text(&text).with_context(|| format!("{}", path.display()))?);
    }
    let mut document = before.root().clone();
    document.version = document.version.saturating_add(1);
    for (role, new) in [(Role::Release, renewal.release), (Role::Director, renewal.director)] {
        if !new.is_empty() {
            document.roles.insert(role, RoleKeys { keys: new, threshold: 1 });
        }
    }
    let file = sign_root(&document, &signers.iter().collect::<Vec<_>>());
    before
        .update(&file)
        .with_context(|| format!("{}: not followed by what these keys sign\nhelp: give enough --root-key files", root.display()))?;
    write_new(&out.to_owned(), 0o644, &file)?;
    Ok(document.version)
}

fn new_key(random: &SystemRandom) -> anyhow::Result<(SigningKey, String)> {
    let pkcs8 = SigningKey::generate(random)?;
    Ok((SigningKey::from_pkcs8(&pkcs8)?, SigningKey::to_text(&pkcs8)))
}

fn write_new(path: &PathBuf, mode: u32, bytes: &[u8]) -> anyhow::Result<()> {
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().with_context(|| format!("{}: cannot be written", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::load_trust;
    use crate::config::Trust;
    use crate::dev;

    #[test]
    fn the_files_of_trust_go_together_and_are_never_overwritten() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("trust");
        assert!(make_trust(&out, &[]).unwrap_err().to_string().contains("--release"));
        let (release, _) = new_key(&SystemRandom::new()).unwrap();
        make_trust(&out, &[release.public()]).unwrap();
        let trust = Trust { roots: vec![out.join("root.cose")], director_key: out.join("director.key") };
        let (director, _) = load_trust(&trust).unwrap();
        assert!(director.root().keys(Role::Release).get(&release.public().id()).is_some());
        for name in ["root.key", "director.key"] {
            assert_eq!(fs::metadata(out.join(name)).unwrap().permissions().mode() & 0o077, 0, "{name}");
        }
        let before = fs::read(out.join("root.key")).unwrap();
        assert!(make_trust(&out, &[release.public()]).unwrap_err().to_string().contains("is there already"));
        assert_eq!(fs::read(out.join("root.key")).unwrap(), before);
    }

    #[test]
    fn a_root_follows_the_one_before_it() {
        let folder = tempfile::tempdir().unwrap();
        let (out, at) = (folder.path().join("trust"), |name: &str| folder.path().join("trust").join(name));
        let (release, _) = new_key(&SystemRandom::new()).unwrap();
        let (other, _) = new_key(&SystemRandom::new()).unwrap();
        make_trust(&out, &[release.public()]).unwrap();
        let keys = [at("root.key")];
        assert_eq!(renew_root(&at("root.cose"), &keys, Renewal::default(), &at("root-2.cose")).unwrap(), 2);
        let renewal = Renewal { release: vec![other.public()], ..Renewal::default() };
        assert_eq!(renew_root(&at("root-2.cose"), &keys, renewal, &at("root-3.cose")).unwrap(), 3);
        let roots = ["root.cose", "root-2.cose", "root-3.cose"].map(at);
        let trust = |upto: usize| Trust { roots: roots[..upto].to_vec(), director_key: at("director.key") };
        for (upto, version, key) in [(1, 1, &release), (2, 2, &release), (3, 3, &other)] {
            let (director, _) = load_trust(&trust(upto)).unwrap();
            assert_eq!(director.root().root().version, version);
            assert!(director.root().keys(Role::Release).get(&key.public().id()).is_some(), "{version}");
            // The epoch moves with the root, so a mark that was lost under one is below all of the next.
            let mark = director.next_mark(skerry_wire::manifest::Mark::default());
            assert_eq!((mark.root, mark.epoch), (version, version));
        }
        for (keys, out, says) in [
            (&[at("director.key")][..], at("root-4.cose"), "--root-key"),
            (&keys, at("root-2.cose"), "is there already"),
            (&[at("root.cose")], at("root-4.cose"), "root.cose"),
        ] {
            let error = renew_root(&at("root-3.cose"), keys, Renewal::default(), &out).unwrap_err();
            assert!(format!("{error:#}").contains(says), "{error:#}");
            assert!(!at("root-4.cose").exists());
        }
    }

    #[tokio::test]
    async fn operators_come_and_go() {
        let folder = tempfile::tempdir().unwrap();
        let config = dev::prepare(folder.path(), &dev::Address::new("127.0.0.1:0".parse().unwrap(), None).unwrap()).unwrap();
        let text = add_operator(&config, "ada", store::Role::Admin).await.unwrap();
        let (id, hash) = Token::parse(TokenKind::Operator, &text).unwrap();
        let kept = operators(&config).await.unwrap();
        assert_eq!(kept, [Operator { id, secret_hash: hash, role: store::Role::Admin, name: "ada".to_owned() }]);
        for (name, says) in [("ada", "already"), ("", "not a name"), ("a\nb", "not a name")] {
            let error = add_operator(&config, name, store::Role::Reader).await.unwrap_err().to_string();
            assert!(error.contains(says) && error.contains("help: "), "{error}");
        }
        remove_operator(&config, "ada").await.unwrap();
        assert!(remove_operator(&config, "ada").await.unwrap_err().to_string().contains("help: "));
        assert!(operators(&config).await.unwrap().is_empty());
    }
}
