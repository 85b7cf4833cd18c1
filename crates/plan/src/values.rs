//! The variables that a node is given: those that the jobs placed on it may read, by Nomad's convention of paths.

use std::collections::{BTreeMap, BTreeSet};

use skerry_wire::NodeId;

use crate::model::{Alloc, Order};

/// Below this path stand the variables of jobs: `nomad/jobs`, `nomad/jobs/JOB`, `.../GROUP`, `.../TASK`.
pub const JOBS: &str = "nomad/jobs";

/// Bytes of variables that one manifest carries at most: keys, values and paths.
pub const PER_NODE: usize = 256 * 1024;

/// Items of one path.
pub type Items = BTreeMap<String, String>;

/// May a group of a job read the path? Below the group, each of its tasks has a path of its own.
pub fn readable(path: &str, job: &str, group: &str) -> bool {
    let Some(rest) = path.strip_prefix(JOBS) else { return false };
    if rest.is_empty() {
        return true;
    }
    let mut parts = rest.split('/');
    // Before the first `/` there is nothing, or it is another path: `nomad/jobsite`.
    parts.next() == Some("")
        && parts.next() == Some(job)
        && parts.next().is_none_or(|g| g == group)
        && parts.next().is_none_or(|task| !task.is_empty())
        && parts.next().is_none()
}

/// The jobs and groups that run on a node.
pub fn groups_of<'a>(node: NodeId, allocs: impl IntoIterator<Item = &'a Alloc>) -> BTreeSet<(&'a str, &'a str)> {
    let here = allocs.into_iter().filter(|a| a.node == node && a.order == Order::Run);
    here.map(|a| (a.job.as_str(), a.group.as_str())).collect()
}

/// What of the variables these groups are given, and the paths that found no room, in the order of paths.
pub fn given(groups: &BTreeSet<(&str, &str)>, variables: &BTreeMap<String, Items>) -> (BTreeMap<String, Items>, Vec<String>) {
    let (mut given, mut left_out) = (BTreeMap::new(), Vec::new());
    let mut room = PER_NODE;
    for (path, items) in variables.iter().filter(|(path, _)| groups.iter().any(|(job, group)| readable(path, job, group))) {
        match room.checked_sub(size(path, items)) {
            Some(left) => {
                room = left;
                given.insert(path.clone(), items.clone());
            }
            None => left_out.push(path.clone()),
        }
    }
    (given, left_out)
}

/// Bytes that a path counts for.
pub fn size(path: &str, items: &Items) -> usize {
    items.iter().fold(path.len() + 8, |sum, (key, value)| sum + key.len() + value.len() + 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_reads_what() {
        for (path, may) in [
            ("nomad/jobs", true),
            ("nomad/jobs/till", true),
            ("nomad/jobs/till/web", true),
            ("nomad/jobs/till/web/app", true),
            ("nomad/jobs/till/web/app/more", false),
            ("nomad/jobs/till/web/", false),
            ("nomad/jobs/till/db", false),
            ("nomad/jobs/till/db/app", false),
            ("nomad/jobs/tills", false),
            ("nomad/jobs/", false),
            ("nomad/jobsite", false),
            ("nomad", false),
            ("other/path", false),
            ("", false),
        ] {
            assert_eq!(readable(path, "till", "web"), may, "{path}");
        }
    }

    #[test]
    fn bounded_in_the_order_of_paths() {
        let items = |n: usize| Items::from([("k".to_owned(), "v".repeat(n))]);
        let variables: BTreeMap<String, Items> = [
            ("nomad/jobs".to_owned(), items(PER_NODE / 2)),
            ("nomad/jobs/a".to_owned(), items(PER_NODE / 2)),
            ("nomad/jobs/a/g".to_owned(), items(10)),
            ("nomad/jobs/b".to_owned(), items(10)),
        ]
        .into();
        let (given, left_out) = given(&[("a", "g")].into(), &variables);
        assert_eq!(given.keys().map(String::as_str).collect::<Vec<_>>(), ["nomad/jobs", "nomad/jobs/a/g"]);
        assert_eq!(left_out, ["nomad/jobs/a"]);
        assert!(given.iter().map(|(p, i)| size(p, i)).sum::<usize>() <= PER_NODE);
    }
}
