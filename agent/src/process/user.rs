//! Users by name or number, from /etc/passwd and /etc/group.

use std::fs;
use std::path::Path;

/// Who a program runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Groups beside `gid`.
    pub(crate) groups: Vec<u32>,
    /// Name, when it has one.
    pub(crate) name: Option<String>,
    /// Home folder, when it has one.
    pub(crate) home: Option<String>,
}

/// Nobody, where no user of that name is listed.
const NOBODY: u32 = 65_534;

/// The user that a task names, or the driver's: root, or nobody.
pub(crate) fn find(named: Option<&str>, root: bool) -> Result<User, String> {
    let read = |path: &str| fs::read_to_string(Path::new(path)).unwrap_or_default();
    resolve(named, root, &read("/etc/passwd"), &read("/etc/group"))
}

/// Without `root` nobody becomes root, nor takes a group that is not the user's own: to run as an ordinary user is all that a policy of
/// `exec` allows.
fn resolve(named: Option<&str>, root: bool, passwd: &str, group: &str) -> Result<User, String> {
    let found = resolve_any(named, root, passwd, group)?;
    let own = |user: &User| {
        let name = named.map(|n| n.split(':').next().unwrap_or_default());
        resolve_any(name, root, passwd, group).is_ok_and(|own| own.gid == user.gid || own.groups.contains(&user.gid))
    };
    if root || (found.uid != 0 && found.gid != 0 && own(&found)) {
        return Ok(found);
    }
    let named = named.unwrap_or("nobody");
    Err(format!("an exec task runs as an ordinary user with groups of its own, not as `{named}`: use raw_exec, if the node allows it"))
}

fn resolve_any(named: Option<&str>, root: bool, passwd: &str, group: &str) -> Result<User, String> {
    let Some(named) = named else {
        let name = if root { "root" } else { "nobody" };
        let id = if root { 0 } else { NOBODY };
        return Ok(entry(passwd, group, name).unwrap_or(User { uid: id, gid: id, groups: vec![], name: None, home: None }));
    };
    let (user, wanted) = named.split_once(':').map_or((named, None), |(u, g)| (u, Some(g)));
    let mut found = match (entry(passwd, group, user), user.parse::<u32>()) {
        (Some(found), _) => found,
        (None, Ok(uid)) => match lines(passwd).find(|f| f.get(2) == Some(&user)).and_then(|f| entry(passwd, group, f[0])) {
            Some(found) => found,
            None => User { uid, gid: uid, groups: vec![], name: None, home: None },
        },
        (None, Err(_)) => return Err(format!("this node has no user `{user}`")),
    };
    if let Some(wanted) = wanted {
        let by_name = lines(group).find(|f| f.first() == Some(&wanted)).and_then(|f| f.get(2)?.parse().ok());
        let gid = by_name.or_else(|| wanted.parse().ok()).ok_or_else(|| format!("this node has no group `{wanted}`"))?;
        found.gid = gid;
        found.groups.clear();
    }
    Ok(found)
}

fn lines(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines().map(|l| l.split(':').collect())
}

fn entry(passwd: &str, group: &str, name: &str) -> Option<User> {
    let fields = lines(passwd).find(|f| f.first() == Some(&name) && f.len() >= 6)?;
    let (uid, gid) = (fields[2].parse().ok()?, fields[3].parse().ok()?);
    let member = |f: &Vec<&str>| f.get(3).is_some_and(|m| m.split(',').any(|m| m == name));
    let groups = lines(group).filter(member).filter_map(|f| f[2].parse().ok()).filter(|g| *g != gid).collect();
    let home = Some(fields[5].to_owned()).filter(|h| !h.is_empty());
    Some(User { uid, gid, groups, name: Some(name.to_owned()), home })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\ntoor:x:0:5:::/bin/sh\npi:x:1000:1000::/srv/pi:/bin/sh\nnobody:x:65534:65533::/:/bin/false\n";
    const GROUP: &str = "root:x:0:\npi:x:1000:\ndisk:x:6:\ndialout:x:20:pi,ada\ngpio:x:997:pi\n";

    #[test]
    fn names_numbers_and_groups() {
        let who = |named: Option<&str>, root| resolve(named, root, PASSWD, GROUP).map(|u| (u.uid, u.gid, u.groups));
        for (named, root, expected) in [
            (None, true, (0, 0, vec![])),
            (None, false, (65_534, 65_533, vec![])),
            (Some("pi"), false, (1000, 1000, vec![20, 997])),
            (Some("1000"), false, (1000, 1000, vec![20, 997])),
            (Some("77"), false, (77, 77, vec![])),
            (Some("pi:dialout"), false, (1000, 20, vec![])),
            (Some("77:5"), true, (77, 5, vec![])),
        ] {
            assert_eq!(who(named, root), Ok(expected), "{named:?}");
        }
        for named in ["root", "0", "0:1000", "toor", "77:0", "nobody:root", "nobody:disk", "nobody:6", "pi:disk", "77:dialout"] {
            assert!(who(Some(named), true).is_ok(), "{named}");
            assert!(who(Some(named), false).unwrap_err().contains("raw_exec"), "{named}");
        }
        assert!(who(Some("ghost"), true).unwrap_err().contains("no user `ghost`"));
        assert!(who(Some("pi:ghost"), true).unwrap_err().contains("no group `ghost`"));
    }
}
