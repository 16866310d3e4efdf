//! What a request may be: checked here, before a server would drop the connection over it.

use crate::api::{Op, RegistryError};

/// ZooKeeper drops the connection, and with it every request in flight, above `jute.maxbuffer`
/// (1 MiB); half of it leaves room for paths, access lists and an operator's lower setting.
pub const REQUEST_BYTES_MAX: usize = 512 * 1024;

/// One slow transaction delays every other client of the ensemble.
pub const MULTI_OPS_MAX: usize = 200;

/// Far above any path of this crate.
pub const PATH_BYTES_MAX: usize = 1024;

/// A path as ZooKeeper takes it: absolute, no empty, `.` or `..` names, no control characters.
/// A prefix for a sequential node may end in `/`.
pub fn check_path(path: &str, is_prefix: bool) -> Result<(), RegistryError> {
    let bad = |why: &str| Err(RegistryError::BadArgument(format!("path {path:?}: {why}")));
    if path.len() > PATH_BYTES_MAX {
        return Err(RegistryError::BadArgument(format!(
            "a path of {} bytes; at most {PATH_BYTES_MAX} are allowed",
            path.len()
        )));
    }
    if path == "/" {
        return Ok(());
    }
    let Some(names) = path.strip_prefix('/') else {
        return bad("does not start with '/'");
    };
    if path.chars().any(is_refused) {
        return bad("has characters that ZooKeeper refuses");
    }
    let names = if is_prefix { names.strip_suffix('/').unwrap_or(names) } else { names };
    if names.split('/').any(str::is_empty) {
        return bad("has an empty name");
    }
    if names.split('/').any(|name| matches!(name, "." | "..")) {
        return bad("is relative");
    }
    Ok(())
}

fn is_refused(c: char) -> bool {
    matches!(u32::from(c), 0..=0x1f | 0x7f..=0x9f | 0xd800..=0xf8ff | 0xfff0..=0xffff)
}

/// The data of one node.
pub fn check_data(path: &str, data: &[u8]) -> Result<(), RegistryError> {
    if data.len() > REQUEST_BYTES_MAX {
        return Err(RegistryError::BadArgument(format!(
            "{} bytes for {path}; at most {REQUEST_BYTES_MAX} are allowed",
            data.len()
        )));
    }
    Ok(())
}

/// Every path, every datum and the size of the whole. On failure the index of the operation,
/// or none when the whole is too large.
pub fn check_ops(ops: &[Op]) -> Result<(), (Option<usize>, RegistryError)> {
    if ops.len() > MULTI_OPS_MAX {
        let text = format!("{} operations; at most {MULTI_OPS_MAX} are allowed", ops.len());
        return Err((None, RegistryError::BadArgument(text)));
    }
    let mut bytes = 0;
    for (index, op) in ops.iter().enumerate() {
        bytes += check_op(op).map_err(|error| (Some(index), error))?;
    }
    if bytes > REQUEST_BYTES_MAX {
        let text = format!("{bytes} bytes of data; at most {REQUEST_BYTES_MAX} are allowed");
        return Err((None, RegistryError::BadArgument(text)));
    }
    Ok(())
}

fn check_op(op: &Op) -> Result<usize, RegistryError> {
    match op {
        Op::Check { path, .. } => check_path(path, false).map(|()| path.len()),
        Op::Create { path, data, mode } => check_create(path, data, *mode).map(|()| path.len() + data.len()),
        Op::Set { path, data, .. } => {
            check_path(path, false)?;
            check_data(path, data).map(|()| path.len() + data.len())
        }
        Op::Delete { path, .. } => check_delete(path).map(|()| path.len()),
    }
}

pub fn check_create(path: &str, data: &[u8], mode: crate::api::CreateMode) -> Result<(), RegistryError> {
    check_path(path, mode == crate::api::CreateMode::EphemeralSequential)?;
    check_data(path, data)
}

pub fn check_delete(path: &str) -> Result<(), RegistryError> {
    check_path(path, false)?;
    if path == "/" {
        return Err(RegistryError::BadArgument("the root cannot be deleted".to_owned()));
    }
    Ok(())
}

/// The path of the node above; `None` for the root.
#[must_use]
pub fn parent_of(path: &str) -> Option<&str> {
    if path == "/" {
        return None;
    }
    path.rfind('/').map(|slash| if slash == 0 { "/" } else { &path[..slash] })
}

/// The last name of a path.
#[must_use]
pub fn name_of(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_taken_or_refused_as_zookeeper_does() {
        for good in ["/", "/a", "/a/b-c/.d", "/a/..b"] {
            assert!(check_path(good, false).is_ok(), "{good:?} was refused");
        }
        for bad in ["", "a", "/a/", "//a", "/a//b", "/a/./b", "/a/..", "/a\u{0}", "/a\u{85}"] {
            assert!(check_path(bad, false).is_err(), "{bad:?} was taken");
        }
        assert!(check_path("/a/", true).is_ok());
        assert!(check_path(&format!("/{}", "x".repeat(2000)), false).is_err());
    }

    #[test]
    fn parents_and_names() {
        assert_eq!(parent_of("/"), None);
        assert_eq!(parent_of("/a"), Some("/"));
        assert_eq!(parent_of("/a/b"), Some("/a"));
        assert_eq!(name_of("/a/b"), "b");
    }
}
