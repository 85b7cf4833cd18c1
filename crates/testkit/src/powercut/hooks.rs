//! The C library's calls that change files, taken over: each is passed on to the kernel as it is, and written down if a recording
//! wants it.
//!
//! Defined in the program itself, these names win over the C library's, for Rust's own library and for SQLite alike.

#![allow(unsafe_code, reason = "these are the C library's functions, with its signatures; each does just the system call")]
#![allow(clippy::undocumented_unsafe_blocks, reason = "every block hands the caller's own arguments on, which is as safe as the call was")]
#![allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_sign_loss, reason = "what a call answers has its type")]

use std::ffi::{CStr, OsStr, c_char, c_int, c_uint, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use libc::{iovec, mode_t, off_t, size_t, ssize_t};

use super::live::{self, Verdict};
use super::trace::{Seen, note};

/// Recordings under way. While there are none, a hook is one comparison.
pub(super) static ACTIVE: AtomicUsize = AtomicUsize::new(0);

/// Watched folders among them, whose programs may be dead and whose disks may be full.
pub(super) static LIVE: AtomicUsize = AtomicUsize::new(0);

/// What becomes of a change of an open file.
fn verdict(file: c_int) -> Verdict {
    if LIVE.load(Ordering::SeqCst) == 0 { Verdict::Made } else { path_of(file).map_or(Verdict::Made, |path| live::verdict(&path)) }
}

/// The answer of a disk that is broken.
fn broken() -> c_int {
    unsafe { *libc::__errno_location() = libc::EIO };
    -1
}

/// Does the change of this name fail?
fn fails(path: Option<&Path>) -> bool {
    LIVE.load(Ordering::SeqCst) > 0 && path.is_some_and(|path| live::verdict(path) == Verdict::Fails)
}

/// Is the change of this name lost? A full disk takes names.
fn is_lost(path: Option<&Path>) -> bool {
    LIVE.load(Ordering::SeqCst) > 0 && path.is_some_and(|path| live::verdict(path) == Verdict::Lost)
}

/// What a write of `len` bytes answers without being made; none when it is to be made.
fn instead(file: c_int, at: Option<off_t>, len: size_t) -> Option<ssize_t> {
    match verdict(file) {
        Verdict::Made => None,
        Verdict::Lost => Some(len as ssize_t),
        Verdict::Fails => Some(broken() as ssize_t),
        Verdict::Full => {
            // What lies within the file has its place already.
            let end = at.unwrap_or_else(|| place(file)) + len as off_t;
            let mut stat = std::mem::MaybeUninit::<libc::stat64>::uninit();
            let known = unsafe { libc::fstat64(file, stat.as_mut_ptr()) } == 0;
            if known && end <= unsafe { stat.assume_init() }.st_size {
                return None;
            }
            unsafe { *libc::__errno_location() = libc::ENOSPC };
            Some(-1)
        }
    }
}

/// Names the hooks, so that the linker takes them along.
pub(super) fn keep() {
    let hooks: [*const (); 12] = [
        open64 as *const (),
        open as *const (),
        write as *const (),
        read as *const (),
        pread64 as *const (),
        pwrite64 as *const (),
        ftruncate64 as *const (),
        fsync as *const (),
        fdatasync as *const (),
        rename as *const (),
        unlink as *const (),
        mkdir as *const (),
    ];
    std::hint::black_box(hooks);
}

fn active() -> bool {
    ACTIVE.load(Ordering::SeqCst) > 0
}

/// The absolute path of a name as the program gave it, below an open folder or the current one.
unsafe fn path_at(folder: c_int, name: *const c_char) -> Option<PathBuf> {
    if name.is_null() {
        return None;
    }
    // SAFETY: the caller hands on a C string, as the call demands.
    let name = Path::new(OsStr::from_bytes(unsafe { CStr::from_ptr(name) }.to_bytes()));
    let absolute = if name.is_absolute() {
        name.to_owned()
    } else if folder == libc::AT_FDCWD {
        std::env::current_dir().ok()?.join(name)
    } else {
        path_of(folder)?.join(name)
    };
    // Folders may be links; the file itself is not followed.
    let parent = std::fs::canonicalize(absolute.parent()?).ok()?;
    Some(parent.join(absolute.file_name()?))
}

/// The path that an open file has now; none when it has none any more.
fn path_of(file: c_int) -> Option<PathBuf> {
    let path = std::fs::read_link(format!("/proc/self/fd/{file}")).ok()?;
    (path.is_absolute() && !path.as_os_str().as_bytes().ends_with(b" (deleted)")).then_some(path)
}

unsafe fn open_at(folder: c_int, name: *const c_char, flags: c_int, mode: c_uint) -> c_int {
    let path = if active() && flags & (libc::O_CREAT | libc::O_TRUNC) != 0 { unsafe { path_at(folder, name) } } else { None };
    if fails(path.as_deref()) {
        return broken();
    }
    let there = path.as_deref().is_some_and(Path::exists);
    let flags = if is_lost(path.as_deref()) { flags & !(libc::O_CREAT | libc::O_TRUNC | libc::O_EXCL) } else { flags };
    let file = unsafe { libc::syscall(libc::SYS_openat, folder, name, flags, mode) } as c_int;
    if let Some(path) = path
        && file >= 0
        && flags & libc::O_DIRECTORY == 0
    {
        note(&Seen::Opened { path: &path, created: !there, truncated: there && flags & libc::O_TRUNC != 0 });
    }
    file
}

#[unsafe(no_mangle)]
unsafe extern "C" fn open64(name: *const c_char, flags: c_int, mode: c_uint) -> c_int {
    unsafe { open_at(libc::AT_FDCWD, name, flags, mode) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn open(name: *const c_char, flags: c_int, mode: c_uint) -> c_int {
    unsafe { open_at(libc::AT_FDCWD, name, flags, mode) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn openat64(folder: c_int, name: *const c_char, flags: c_int, mode: c_uint) -> c_int {
    unsafe { open_at(folder, name, flags, mode) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn openat(folder: c_int, name: *const c_char, flags: c_int, mode: c_uint) -> c_int {
    unsafe { open_at(folder, name, flags, mode) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn read(file: c_int, bytes: *mut c_void, len: size_t) -> ssize_t {
    if verdict(file) == Verdict::Fails {
        return broken() as ssize_t;
    }
    unsafe { libc::syscall(libc::SYS_read, file, bytes, len) as ssize_t }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn pread64(file: c_int, bytes: *mut c_void, len: size_t, at: off_t) -> ssize_t {
    if verdict(file) == Verdict::Fails {
        return broken() as ssize_t;
    }
    unsafe { libc::syscall(libc::SYS_pread64, file, bytes, len, at) as ssize_t }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn pread(file: c_int, bytes: *mut c_void, len: size_t, at: off_t) -> ssize_t {
    unsafe { pread64(file, bytes, len, at) }
}

/// Writes down bytes that were written at `at`.
unsafe fn written(file: c_int, at: off_t, bytes: *const c_void, len: ssize_t) {
    let (Ok(len), Ok(at)) = (usize::try_from(len), u64::try_from(at)) else { return };
    if len == 0 {
        return;
    }
    let Some(path) = path_of(file) else { return };
    // SAFETY: the kernel has just read these bytes.
    let bytes = unsafe { std::slice::from_raw_parts(bytes.cast::<u8>(), len) };
    note(&Seen::Written { path: &path, at, bytes });
}

/// Where the next plain write goes, when it is a file.
fn place(file: c_int) -> off_t {
    unsafe { libc::syscall(libc::SYS_lseek, file, 0, libc::SEEK_CUR) as off_t }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn write(file: c_int, bytes: *const c_void, len: size_t) -> ssize_t {
    if let Some(answer) = instead(file, None, len) {
        return answer;
    }
    let done = unsafe { libc::syscall(libc::SYS_write, file, bytes, len) } as ssize_t;
    if active() && done > 0 {
        // After the write the place is known also for files that are appended to; what is no file has none.
        let after = place(file);
        unsafe { written(file, after - done as off_t, bytes, done) };
    }
    done
}

#[unsafe(no_mangle)]
unsafe extern "C" fn writev(file: c_int, parts: *const iovec, count: c_int) -> ssize_t {
    // SAFETY: the caller's own parts, as many as it says.
    let len = (0..usize::try_from(count).unwrap_or(0)).map(|n| unsafe { &*parts.add(n) }.iov_len).sum();
    if let Some(answer) = instead(file, None, len) {
        return answer;
    }
    let done = unsafe { libc::syscall(libc::SYS_writev, file, parts, count) } as ssize_t;
    if active() && done > 0 {
        let mut at = place(file) - done as off_t;
        let mut left = done as usize;
        for index in 0..usize::try_from(count).unwrap_or(0) {
            // SAFETY: the kernel has just read these parts.
            let part = unsafe { &*parts.add(index) };
            let len = part.iov_len.min(left);
            unsafe { written(file, at, part.iov_base, len as ssize_t) };
            at += len as off_t;
            left -= len;
        }
    }
    done
}

#[unsafe(no_mangle)]
unsafe extern "C" fn pwrite64(file: c_int, bytes: *const c_void, len: size_t, at: off_t) -> ssize_t {
    if let Some(answer) = instead(file, Some(at), len) {
        return answer;
    }
    let done = unsafe { libc::syscall(libc::SYS_pwrite64, file, bytes, len, at) } as ssize_t;
    if active() && done > 0 {
        unsafe { written(file, at, bytes, done) };
    }
    done
}

#[unsafe(no_mangle)]
unsafe extern "C" fn pwrite(file: c_int, bytes: *const c_void, len: size_t, at: off_t) -> ssize_t {
    unsafe { pwrite64(file, bytes, len, at) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn ftruncate64(file: c_int, len: off_t) -> c_int {
    match verdict(file) {
        Verdict::Lost => return 0,
        Verdict::Fails => return broken(),
        Verdict::Made | Verdict::Full => {}
    }
    let done = unsafe { libc::syscall(libc::SYS_ftruncate, file, len) } as c_int;
    if active()
        && done == 0
        && let Some(path) = path_of(file)
    {
        note(&Seen::Truncated { path: &path, len: u64::try_from(len).unwrap_or(0) });
    }
    done
}

#[unsafe(no_mangle)]
unsafe extern "C" fn ftruncate(file: c_int, len: off_t) -> c_int {
    unsafe { ftruncate64(file, len) }
}

/// Recorded folders are in memory or will be thrown away: the kernel need not sync them, the model does.
fn sync(file: c_int, call: libc::c_long) -> c_int {
    if verdict(file) == Verdict::Fails {
        return broken();
    }
    if active()
        && let Some(path) = path_of(file)
    {
        note(&Seen::Synced { path: &path });
    }
    unsafe { libc::syscall(call, file) as c_int }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fsync(file: c_int) -> c_int {
    sync(file, libc::SYS_fsync)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fdatasync(file: c_int) -> c_int {
    sync(file, libc::SYS_fdatasync)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn rename(from: *const c_char, to: *const c_char) -> c_int {
    let paths = if active() { unsafe { path_at(libc::AT_FDCWD, from).zip(path_at(libc::AT_FDCWD, to)) } } else { None };
    if fails(paths.as_ref().map(|(from, _)| from.as_path())) {
        return broken();
    }
    if is_lost(paths.as_ref().map(|(from, _)| from.as_path())) {
        return 0;
    }
    let done = unsafe { libc::syscall(libc::SYS_renameat2, libc::AT_FDCWD, from, libc::AT_FDCWD, to, 0) } as c_int;
    if let Some((from, to)) = paths
        && done == 0
    {
        note(&Seen::Renamed { from: &from, to: &to });
    }
    done
}

unsafe fn unlink_at(folder: c_int, name: *const c_char, flags: c_int) -> c_int {
    let path = if active() { unsafe { path_at(folder, name) } } else { None };
    if fails(path.as_deref()) {
        return broken();
    }
    if is_lost(path.as_deref()) {
        return 0;
    }
    let done = unsafe { libc::syscall(libc::SYS_unlinkat, folder, name, flags) } as c_int;
    if let Some(path) = path
        && done == 0
    {
        note(&Seen::Removed { path: &path });
    }
    done
}

#[unsafe(no_mangle)]
unsafe extern "C" fn unlink(name: *const c_char) -> c_int {
    unsafe { unlink_at(libc::AT_FDCWD, name, 0) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn unlinkat(folder: c_int, name: *const c_char, flags: c_int) -> c_int {
    unsafe { unlink_at(folder, name, flags) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn rmdir(name: *const c_char) -> c_int {
    unsafe { unlink_at(libc::AT_FDCWD, name, libc::AT_REMOVEDIR) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn mkdir(name: *const c_char, mode: mode_t) -> c_int {
    let path = if active() { unsafe { path_at(libc::AT_FDCWD, name) } } else { None };
    if fails(path.as_deref()) {
        return broken();
    }
    if is_lost(path.as_deref()) {
        return 0;
    }
    let done = unsafe { libc::syscall(libc::SYS_mkdirat, libc::AT_FDCWD, name, mode) } as c_int;
    if let Some(path) = path
        && done == 0
    {
        note(&Seen::MadeFolder { path: &path });
    }
    done
}
