//! The limits that both sides of the wire enforce, in bytes unless named otherwise.

/// A chunk of a bundle: the unit of hashing, of resuming, and the most that one cut of the link costs.
pub const CHUNK: usize = 64 * 1024;
/// The longest poll request.
pub const POLL_REQUEST: usize = 1024 * 1024;
/// The longest poll reply.
pub const POLL_REPLY: usize = 4 * 1024 * 1024;
/// The longest enrolment request or reply.
pub const ENROL: usize = 64 * 1024;
/// The longest manifest envelope.
pub const MANIFEST: usize = 1024 * 1024;
/// The longest signed specification.
pub const SPECIFICATION: usize = 512 * 1024;
/// The longest signed release of an image.
pub const RELEASE: usize = 64 * 1024;
/// The longest root document with its signatures.
pub const ROOT: usize = 64 * 1024;
/// The longest image configuration (OCI config JSON).
pub const IMAGE_CONFIG: usize = 4 * 1024 * 1024;
/// The longest jobspec source kept beside a job version.
pub const JOBSPEC: usize = 512 * 1024;
/// The longest table of contents of a bundle, its signature included, as written and as unpacked. Its chunk digests are enough for a
/// payload of 14 GiB, and an agent holds the table in memory.
pub const BUNDLE_TOC: usize = 4 * 1024 * 1024;
/// The longest layer, uncompressed.
pub const LAYER: u64 = 64 * 1024 * 1024 * 1024;
/// Layers an image may have.
pub const LAYERS: usize = 512;
/// Reports carried by one poll.
pub const REPORTS_PER_POLL: usize = 64;
/// Allocations in one manifest.
pub const ALLOCS_PER_NODE: usize = 256;
/// Groups in a job, tasks in a group.
pub const GROUPS_PER_JOB: usize = 64;
/// Tasks in a group.
pub const TASKS_PER_GROUP: usize = 32;
/// Lines of a task's output that one order may ask for.
pub const LOG_LINES: u32 = 10_000;
/// What a node answers to an order for output, as it is sent: no more than what a cut of the link may cost.
pub const LOG_ANSWER: usize = CHUNK;
/// The same, unpacked.
pub const LOG_TEXT: usize = 1024 * 1024;
/// The longest name of a task in an order for output or its answer, bytes.
pub const TASK: usize = 128;
/// Orders for output that may wait for one node.
pub const LOG_ORDERS: u32 = 16;
/// The longest path of a variable, characters.
pub const VARIABLE_PATH: usize = 256;
/// The items of one variable together.
pub const VARIABLE: usize = 64 * 1024;
/// Variables that a server keeps.
pub const VARIABLES: usize = 10_000;
/// Meta keys that the server sets for one node.
pub const META_KEYS: usize = 128;
/// The longest meta value; a key has at most 128 bytes.
pub const META_VALUE: usize = 1024;

/// The highest number of a report, a request or a mark that is believed: above it there would be no room to count on. No honest node gets there.
pub const COUNTER: u64 = 1 << 48;

/// Seconds that an agent keeps a connection without a request: above the usual poll interval of a minute, below what a NAT on the way
/// forgets a connection after.
pub const KEPT_CONNECTION_S: u64 = 100;
