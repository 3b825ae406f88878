//! Owns the removal of mounts below the cluster's folder.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use rustix::mount::{UnmountFlags, unmount};

use crate::Error;

/// Unmounts everything below `folder`; nothing there may be deleted before this has succeeded.
pub(crate) fn remove_below(folder: &Path) -> Result<(), Error> {
    for flags in [UnmountFlags::empty(), UnmountFlags::DETACH] {
        // Later mounts may lie on earlier ones, so the last goes first.
        for mount in below(folder)?.iter().rev() {
            unmount(mount, flags | UnmountFlags::NOFOLLOW).ok();
        }
    }
    match below(folder)?.first() {
        None => Ok(()),
        Some(mount) => Err(Error::Remains {
            what: format!("the mount {}", mount.display()),
            advice: "find who uses it with `fuser -m`, unmount it and run `down` again",
        }),
    }
}

/// The mounts below a folder, in the order they were made.
pub(crate) fn below(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let path = "/proc/self/mountinfo";
    let table = fs::read(path).map_err(Error::io("read", path))?;
    Ok(parse(&table).into_iter().filter(|mount| mount.starts_with(folder) && mount != folder).collect())
}

fn parse(table: &[u8]) -> Vec<PathBuf> {
    table
        .split(|byte| *byte == b'\n')
        .filter_map(|line| line.split(|byte| *byte == b' ').nth(4))
        .map(|field| PathBuf::from(OsString::from_vec(plain(field))))
        .collect()
}

/// Turns `\040` and its like back into the bytes they stand for.
fn plain(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let code = after.get(..3).filter(|_| *first == b'\\');
        let byte = code.and_then(|code| u8::from_str_radix(std::str::from_utf8(code).ok()?, 8).ok());
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { after.get(3..).unwrap_or_default() } else { after };
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_table_is_read() {
        let table = b"22 1 0:2 / / rw - ext4 /dev/vda rw\n30 22 0:9 net:[1] /a\\040b/netns rw - nsfs nsfs rw\n";
        assert_eq!(parse(table), vec![PathBuf::from("/"), PathBuf::from("/a b/netns")]);
        assert_eq!(plain(b"end\\04"), b"end\\04");
    }

    #[test]
    fn proc_is_below_the_root_and_nothing_below_a_new_folder() {
        assert!(below(Path::new("/")).unwrap().contains(&PathBuf::from("/proc")));
        let folder = tempfile::tempdir().unwrap();
        remove_below(folder.path()).unwrap();
    }
}
