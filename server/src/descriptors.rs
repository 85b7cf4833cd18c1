//! File descriptors: as many as the machine lets the server have.
//!
//! A connection takes one. Service managers start programs with a soft limit of 1024, which a fleet that keeps its connections passes
//! soon; then `accept` fails, and nodes that ask are left alone.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors that are not connections: database, objects, builds, the runtime's own.
const OTHERS: u64 = 256;

/// Raises the soft limit to the hard one, and says so where `connections` would still not fit.
pub fn raise(connections: u32) {
    let limits = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limits.maximum, maximum: limits.maximum };
    if limits.current != limits.maximum
        && let Err(error) = setrlimit(Resource::Nofile, raised)
    {
        tracing::debug!(%error, "the limit of open files could not be raised");
    }
    if let Some(open) = getrlimit(Resource::Nofile).current
        && open < u64::from(connections) + OTHERS
    {
        tracing::warn!(
            "limits.connections is {connections}, but this process may open {open} files: raise its limit (LimitNOFILE= of a systemd unit), or lower limits.connections"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_rises_to_the_hard_one() {
        let limits = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: Some(512), maximum: limits.maximum }).unwrap();
        raise(1000);
        assert_eq!(getrlimit(Resource::Nofile).current, limits.maximum);
        setrlimit(Resource::Nofile, limits).unwrap();
    }
}
