//! The node's fingerprint, put together from what is found, what the engine says, and the meta set on the node.

use std::sync::{Arc, Mutex, PoisonError};

use skerry_wire::node::Fingerprint;
use tokio::sync::watch;

use crate::engine_facts::EngineFacts;
use crate::fingerprint::{disk_told, with_engine};
use crate::ledger::{Desired, LocalMeta, MARKS_LOST};
use crate::status::EngineReport;
use crate::uplink::Contact;

/// Why images are not fetched at all.
pub(crate) type Trouble = watch::Receiver<Option<String>>;

/// Puts the fingerprint together. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Facts(Arc<(Mutex<Parts>, watch::Sender<Arc<Fingerprint>>)>);

#[derive(Debug)]
struct Parts {
    plain: Fingerprint,
    engine: Option<Arc<EngineFacts>>,
    /// Free bytes on the engine's disk, as told last.
    disk: Option<u64>,
    meta: LocalMeta,
    trouble: Option<String>,
}

impl Facts {
    /// What is known without the engine.
    pub(crate) fn new(plain: Fingerprint, meta: LocalMeta) -> (Self, watch::Receiver<Arc<Fingerprint>>) {
        let parts = Parts { plain, engine: None, disk: None, meta, trouble: None };
        let (to, from) = watch::channel(Arc::new(parts.whole()));
        (Self(Arc::new((Mutex::new(parts), to))), from)
    }

    fn change(&self, change: impl FnOnce(&mut Parts)) {
        let whole = {
            let mut parts = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
            change(&mut parts);
            Arc::new(parts.whole())
        };
        self.0.1.send_if_modified(|old| {
            let changed = *old != whole;
            *old = whole;
            changed
        });
    }

    /// The engine answered.
    pub(crate) fn set_engine(&self, found: Arc<EngineFacts>) {
        self.change(|p| {
            p.disk = found.info.disk_free.map(|free| disk_told(p.disk, free));
            p.engine = Some(found);
        });
    }

    /// Meta was set on the node.
    pub(crate) fn set_meta(&self, meta: LocalMeta) {
        self.change(|p| p.meta = meta);
    }

    /// What keeps the parts of the agent from their work goes into the facts, so that the operator can read it at the server, even while
    /// the ledger takes no report. Runs for ever.
    pub(crate) async fn follow(
        &self,
        mut engine: watch::Receiver<EngineReport>,
        mut contact: watch::Receiver<Contact>,
        mut images: Trouble,
        mut desired: watch::Receiver<Arc<Desired>>,
    ) {
        loop {
            let parts = [
                engine.borrow_and_update().error.clone(),
                contact.borrow_and_update().own_error().map(str::to_owned),
                images.borrow_and_update().clone(),
            ];
            let lost = desired.borrow_and_update().mark.is_lost().then(|| format!("every copy of this node's mark was lost: {MARKS_LOST}"));
            let trouble = parts.into_iter().flatten().next().into_iter().chain(lost).reduce(|one, other| format!("{one}; {other}"));
            self.change(|p| p.trouble = trouble);
            // Cancel-safe: a watch keeps its change.
            let changed = tokio::select! {
                biased;
                changed = engine.changed() => changed,
                changed = contact.changed() => changed,
                changed = images.changed() => changed,
                changed = desired.changed() => changed,
            };
            if changed.is_err() {
                return std::future::pending().await;
            }
        }
    }

    /// Meta that holds on the node: of the configuration, and set since.
    pub(crate) fn meta(&self) -> std::collections::BTreeMap<String, String> {
        self.0.1.borrow().meta.clone()
    }
}

impl Parts {
    fn whole(&self) -> Fingerprint {
        let mut facts = Fingerprint { trouble: self.trouble.clone(), ..self.plain.clone() };
        for (key, value) in &self.meta {
            match value {
                Some(value) => drop(facts.meta.insert(key.clone(), value.clone())),
                None => drop(facts.meta.remove(key)),
            }
        }
        match &self.engine {
            Some(found) => {
                let facts = with_engine(facts, &found.info, found.abilities);
                Fingerprint { disk_free: self.disk.unwrap_or(facts.disk_free), ..facts }
            }
            None => facts,
        }
    }
}

#[cfg(test)]
mod tests {
    use skerry_engine::{Abilities, Info};

    use super::*;

    #[test]
    fn meta_set_on_the_node_hides_the_configuration() {
        let plain = Fingerprint { meta: [("a".into(), "1".into()), ("b".into(), "2".into())].into(), ..Fingerprint::default() };
        let (facts, view) = Facts::new(plain, LocalMeta::from([("a".into(), Some("9".into()))]));
        assert_eq!((view.borrow().meta["a"].as_str(), view.borrow().meta["b"].as_str()), ("9", "2"));
        facts.set_meta(LocalMeta::from([("b".into(), None), ("c".into(), Some("3".into()))]));
        let meta = view.borrow().meta.clone();
        assert_eq!(meta.into_iter().collect::<Vec<_>>(), [("a".to_owned(), "1".to_owned()), ("c".to_owned(), "3".to_owned())]);
    }

    /// Every change of the facts goes into a poll and is a commit of the ledger.
    #[test]
    fn free_disk_that_moves_a_little_is_not_told_anew() {
        let (facts, mut view) = Facts::new(Fingerprint::default(), LocalMeta::new());
        let mut told = |free: u64| {
            let abilities = Abilities { layers_in_place: true, accepts_partial_load: true };
            facts.set_engine(Arc::new(EngineFacts { info: info(free << 20), abilities }));
            let changed = view.has_changed().unwrap();
            (view.borrow_and_update().disk_free >> 20, changed)
        };
        // MiB that are free, and what is told of it.
        let cases = [
            (650, 640, true),
            (639, 640, false),
            (703, 640, false),
            (577, 640, false),
            (576, 576, true),
            (640, 640, true),
            // Of much, a small part is no news.
            (64_050, 64_000, true),
            (62_001, 64_000, false),
            (65_999, 64_000, false),
            (62_000, 61_952, true),
            (0, 0, true),
            (63, 0, false),
        ];
        for (free, shown, changed) in cases {
            assert_eq!(told(free), (shown, changed), "{free} MiB");
        }
    }

    fn info(free: u64) -> Info {
        Info {
            version: "27.0.0".into(),
            storage_driver: "overlay2".into(),
            containerd_store: false,
            data_root: "/var/lib/docker".into(),
            disk_free: Some(free),
            architecture: "x86_64".into(),
            cpus: 4,
            memory: 1 << 30,
        }
    }
}
