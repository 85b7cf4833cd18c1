//! Files follow their templates: written anew when their text became another one, with what `change_mode` says.

use skerry_wire::job::ChangeMode;

use super::task;
use crate::decision::ActionKind;
use crate::make::Making;
use crate::memory::{SlotMemory, Told, Version};
use crate::place::Work;

impl Work<'_> {
    /// Writes what became another text. Answers false while that must wait.
    ///
    /// A template that does not render changes nothing: what runs keeps running with the files that it has.
    pub(crate) fn follow_files(&mut self, memory: &mut SlotMemory, current: &Version, name: &str, running: bool) -> bool {
        let Some((job, group)) = self.group(current) else { return true };
        let Some(wanted) = group.tasks.iter().find(|t| t.name == name && !t.templates.is_empty()) else { return true };
        let observed = self.cx.observed;
        let making = Making {
            node: observed.node,
            policy: observed.policy,
            values: self.cx.values(),
            job,
            group,
            slot: self.slot,
            version: current,
        };
        let now = self.cx.now;
        let files = match making.rendered(wanted) {
            Ok(files) => files,
            Err(refusal) => {
                memory.note_state(now, format!("files stay as they are: {refusal}"));
                return true;
            }
        };
        let task = task(memory, name);
        if let Some(backoff) = task.write.as_ref().filter(|b| now < b.until) {
            let until = backoff.until;
            self.wake(until);
            return false;
        }
        let (mut write, mut signal, mut restart) = (Vec::new(), None, false);
        for (file, template) in &files {
            let (digest, known) = (file.digest(), task.files.get(&file.path).copied());
            // Without a manifest the values of the server are not known, which is not the same as that there are none.
            let unknown = self.cx.desired.manifest.is_none() && known != Some(digest);
            if known == Some(digest) && !task.unsure || unknown {
                continue;
            }
            if known.is_some_and(|k| k != digest) {
                match &template.change_mode {
                    ChangeMode::Noop => {}
                    ChangeMode::Restart => restart = true,
                    ChangeMode::Signal(name) => signal = Some(name.clone()),
                }
            }
            task.files.insert(file.path.clone(), digest);
            write.push(file.clone());
        }
        task.files.retain(|path, _| files.iter().any(|(f, _)| f.path == *path));
        // A signal that may not have arrived is sent again with the files.
        let signal = signal.or_else(|| task.signal.clone().filter(|_| task.unsure));
        task.unsure = false;
        task.signal = None;
        if write.is_empty() {
            return true;
        }
        let paths = write.iter().map(|f| f.path.rsplit('/').next().unwrap_or_default()).collect::<Vec<_>>().join(", ");
        let reason = format!("templates give other text: {paths}");
        if running && restart {
            task.told = Some(Told { why: reason.clone(), fault: false });
        } else if running {
            task.signal.clone_from(&signal);
        }
        let action = self.action(current.born, name, ActionKind::Write(write), reason.clone());
        self.writes.push(action);
        if let Some(signal) = signal.filter(|_| running && !restart) {
            let action = self.action(current.born, name, ActionKind::Signal(signal), reason);
            self.writes.push(action);
        }
        true
    }
}
