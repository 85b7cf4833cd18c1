//! Templates of a task, rendered, and where their files go.

use std::collections::BTreeMap;

use skerry_template::{Options, Source, render};
use skerry_wire::job::{Task, Template};

use super::envfile::read_env;
use super::{File, Making, task_env};
use crate::facts::{Refusal, climbs};
use crate::hash::stable;

/// The longest text of all templates of a task together, in bytes.
const LONGEST: usize = 2 * 1024 * 1024;

impl File {
    /// Tells this content from another.
    pub(crate) fn digest(&self) -> u64 {
        stable(&[&self.content, &self.perms.to_le_bytes()])
    }
}

/// Values for the templates of one task.
struct Values<'a> {
    env: BTreeMap<String, String>,
    making: &'a Making<'a>,
}

impl Source for Values<'_> {
    fn env(&self, name: &str) -> Option<String> {
        self.env.get(name).cloned()
    }

    fn meta(&self, name: &str) -> Option<String> {
        self.making.node.meta.get(name).cloned()
    }

    fn variables(&self, path: &str) -> Option<&BTreeMap<String, String>> {
        self.making.values?.variables.get(path)
    }
}

impl Making<'_> {
    /// The files of a task, in order, with their templates.
    pub(crate) fn rendered<'t>(&self, task: &'t Task) -> Result<Vec<(File, &'t Template)>, Refusal> {
        if task.templates.is_empty() {
            return Ok(Vec::new());
        }
        let mut values = Values { env: task_env(&self.task_env(task)), making: self };
        let (mut files, mut size) = (Vec::new(), 0);
        for template in &task.templates {
            let options = Options {
                left: &template.left_delimiter,
                right: &template.right_delimiter,
                error_on_missing: template.error_on_missing_key,
                // Which names the environment has was signed; values come from the server.
                one_line: template.env,
            };
            let refused = |why: String| Refusal::Template { task: task.name.clone(), destination: template.destination.clone(), why };
            let text = render(&template.data, &options, &values).map_err(|e| refused(e.to_string()))?;
            size += text.len();
            if size > LONGEST {
                return Err(refused(format!("all templates of a task may give at most {} KiB", LONGEST / 1024)));
            }
            if template.env {
                // What comes after sees it too, as in Nomad.
                values.env.extend(read_env(&text).map_err(refused)?);
            }
            files.push((File { path: self.file_path(task, template)?, content: text.into_bytes(), perms: template.perms }, template));
        }
        Ok(files)
    }

    /// The environment that templates give.
    pub(crate) fn file_env(&self, task: &Task, files: &[(File, &Template)]) -> Result<BTreeMap<String, String>, Refusal> {
        let mut env = BTreeMap::new();
        for (file, template) in files.iter().filter(|(_, t)| t.env) {
            let refused = |why| Refusal::Template { task: task.name.clone(), destination: template.destination.clone(), why };
            env.extend(read_env(&String::from_utf8_lossy(&file.content)).map_err(refused)?);
        }
        Ok(env)
    }

    /// A digest of that environment, 0 when there is none.
    pub(crate) fn template_env(&self, task: &Task) -> u64 {
        let env = self.rendered(task).and_then(|files| self.file_env(task, &files)).unwrap_or_default();
        if env.is_empty() {
            return 0;
        }
        let parts: Vec<&[u8]> = env.iter().flat_map(|(k, v)| [k.as_bytes(), v.as_bytes()]).collect();
        stable(&parts)
    }

    /// Digests of the files, by path.
    pub(crate) fn digests(&self, task: &Task) -> Option<BTreeMap<String, u64>> {
        Some(self.rendered(task).ok()?.into_iter().map(|(f, _)| (f.path.clone(), f.digest())).collect())
    }

    /// Where a template's file is on the node: below the task's own folder, or the one that the group shares.
    fn file_path(&self, task: &Task, template: &Template) -> Result<String, Refusal> {
        let env = self.task_env(task);
        let written = env.fill(&env.nomad(), &template.destination);
        let refused = || Refusal::FilePath { task: task.name.clone(), path: template.destination.clone() };
        let own = self.task_folder(task);
        let shared = format!("{}/{}/alloc", self.node.alloc_folder, self.version.born);
        let real = [shared, format!("{own}/local"), format!("{own}/secrets")];
        if climbs(&written) || written.contains('\0') {
            return Err(refused());
        }
        let names = ["alloc", "local", "secrets"];
        let below = |path: &str, folder: &str| path.strip_prefix(folder)?.strip_prefix('/').filter(|r| !r.is_empty()).map(str::to_owned);
        let by_name = || names.iter().zip(&real).find_map(|(name, real)| Some(format!("{real}/{}", below(&written, name)?)));
        let seen = env.folders();
        let by_path = || seen.iter().zip(&real).find_map(|(seen, real)| Some(format!("{real}/{}", below(&written, seen)?)));
        by_name().or_else(by_path).ok_or_else(refused)
    }
}
