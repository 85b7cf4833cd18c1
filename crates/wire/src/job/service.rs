//! Services and their checks: run by the node, judged by the node.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Millis;

/// A service of a group or a task, with the checks that say whether it works.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// Label of the group's port that it listens on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
    /// Free words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Its checks; names are unique in the group.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<Check>,
    /// When a failing check restarts the task, for checks that do not say it themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check_restart: Option<CheckRestart>,
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Its name.
    pub name: String,
    /// What is done.
    #[serde(flatten)]
    pub kind: CheckKind,
    /// From one run to the next.
    pub interval: Millis,
    /// The longest that one run may take.
    pub timeout: Millis,
    /// Successes in a row until it passes; 0 and 1 mean the same.
    #[serde(default)]
    pub success_before_passing: u32,
    /// Failures in a row until it is critical beyond the first: 0 means the first.
    #[serde(default)]
    pub failures_before_critical: u32,
    /// When failing restarts the task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check_restart: Option<CheckRestart>,
    /// The task that a script runs in, and that is restarted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
}

/// What a check does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "type")]
pub enum CheckKind {
    /// A request; a status from 200 to 299 passes.
    Http {
        /// Label of the port; the service's when none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        port: Option<String>,
        /// Path with query.
        path: String,
        /// `GET`, `HEAD`, `POST`, `PUT`.
        method: String,
        /// Headers beside `Host`.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        headers: BTreeMap<String, String>,
        /// Body, sent as it is.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        body: String,
    },
    /// A connection; that it opens passes.
    Tcp {
        /// Label of the port; the service's when none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        port: Option<String>,
    },
    /// A program in the task; exit code 0 passes.
    Script {
        /// The program.
        command: String,
        /// Its arguments; may hold `${...}`.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        args: Vec<String>,
    },
}

/// When a failing check restarts its task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckRestart {
    /// Failures in a row; 0 never.
    pub limit: u32,
    /// Failures within this span after a start do not count.
    pub grace: Millis,
}
