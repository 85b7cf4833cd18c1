//! `skerry key`: release keys, made and kept where the publisher is.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;

use anyhow::{Context, Result, anyhow};
use ring::rand::SystemRandom;
use serde_json::json;
use skerry_trust::{PublicKey, SigningKey};

use crate::args::KeyCommand;
use crate::{config, output};

/// `skerry key ...`
pub(crate) fn run(command: KeyCommand, json: bool) -> Result<()> {
    let public = match command {
        KeyCommand::Generate { out } => {
            let pkcs8 = SigningKey::generate(&SystemRandom::new())?;
            let key = SigningKey::from_pkcs8(&pkcs8)?;
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&out).map_err(|e| match e.kind() {
                io::ErrorKind::AlreadyExists => anyhow!("{} is there already: a key is never overwritten", out.display()),
                _ => anyhow!("writing {}: {e}", out.display()),
            })?;
            file.write_all(SigningKey::to_text(&pkcs8).as_bytes())
                .and_then(|()| file.sync_all())
                .with_context(|| format!("writing {}", out.display()))?;
            output::note(&format!("Private key in {}: keep it off the server.", out.display()));
            key.public()
        }
        KeyCommand::Show { file } => config::read_key(&file)?.public(),
    };
    show(&public, json)
}

fn show(public: &PublicKey, json: bool) -> Result<()> {
    if json {
        return output::json(&json!({ "key_id": public.id().to_string(), "public_key": public.to_string() }));
    }
    output::print(&format!("Key id      {}\nPublic key  {public}\n", public.id()))
}
