//! The tools on files of an execution's own. A name is one plain name, and no link is followed, so
//! that nothing outside the execution's folder can be reached.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::Tool;

/// The largest file, in bytes.
const MAX_FILE: u64 = 16 * 1024 * 1024;
/// Files of one execution.
const MAX_FILES: usize = 1000;
/// The longest name, in bytes.
const MAX_NAME: usize = 200;
/// What one load gives, when it does not say, in bytes.
const PAGE: u64 = 64 * 1024;
/// Remembers, for each file, the last append and where it began.
const APPENDS: &str = ".appends";

/// The folders of executions.
#[derive(Clone, Debug)]
pub(super) struct Files {
    root: PathBuf,
}

/// An append that was begun: repeated, it writes at the same place.
#[derive(Debug, Serialize, Deserialize)]
struct Append {
    key: String,
    at: u64,
}

/// One of the tools by its name.
pub(super) fn tool(name: &str) -> Option<Tool> {
    let filename = ("filename", "The file's name, without folders");
    let none: &[(&str, &str)] = &[];
    let (description, needed, optional) = match name {
        "save_data" => ("Writes a file.", vec![filename, ("data", "Its whole content")], none),
        "append_data" => ("Adds to the end of a file.", vec![filename, ("data", "What is added")], none),
        "load_data" => {
            let page: &[(&str, &str)] =
                &[("offset", "The first byte, a number"), ("limit", "The most bytes, a number")];
            ("Reads a file.", vec![filename], page)
        }
        "list_data_files" => ("Lists the files, with their sizes in bytes.", vec![], none),
        "serve_file_to_user" => {
            let label: &[(&str, &str)] = &[("label", "Its title")];
            ("Gives the file:// address of a file, for the person.", vec![filename], label)
        }
        _ => return None,
    };
    let property = |(name, description): &(&str, &str)| {
        let kind = if matches!(*name, "offset" | "limit") { "integer" } else { "string" };
        ((*name).to_owned(), json!({"type": kind, "description": description}))
    };
    let properties: Map<String, Value> = needed.iter().chain(optional).map(property).collect();
    let required: Vec<&str> = needed.iter().map(|(name, _)| *name).collect();
    Some(Tool {
        name: name.to_owned(),
        description: description.to_owned(),
        schema: json!({"type": "object", "properties": properties, "required": required}),
    })
}

impl Files {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// Calls a tool. Both an answer and an error are words for the model.
    pub(super) fn call(
        &self,
        tool: &str,
        arguments: &Map<String, Value>,
        execution: &str,
        key: &str,
    ) -> Result<String, String> {
        let folder = self.folder(execution)?;
        let text = |name: &str| {
            let given = arguments.get(name).and_then(Value::as_str);
            given.ok_or_else(|| format!("give {name}, a text; call {tool} with separate arguments and no _raw"))
        };
        let number = |name: &str| arguments.get(name).and_then(Value::as_u64);
        let name = || text("filename").and_then(checked);
        match tool {
            "save_data" => save(&folder, name()?, text("data")?.as_bytes()),
            "append_data" => append(&folder, name()?, text("data")?.as_bytes(), key),
            "load_data" => load(&folder, name()?, number("offset").unwrap_or(0), number("limit").unwrap_or(PAGE)),
            "list_data_files" => list(&folder),
            _ => self.serve(&folder, execution, name()?),
        }
    }

    /// Throws away an execution's folder.
    pub(super) fn forget(&self, execution: &str) -> std::io::Result<()> {
        match std::fs::remove_dir_all(self.root.join(execution)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// The execution's folder, made if it is not there. Ids are the runtime's own, and so plain names.
    fn folder(&self, execution: &str) -> Result<OwnedFd, String> {
        let failed = |error: &dyn std::fmt::Display| format!("the execution's folder cannot be used: {error}");
        std::fs::create_dir_all(&self.root).map_err(|error| failed(&error))?;
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY;
        let root = rustix::fs::openat(CWD, &self.root, flags, Mode::empty()).map_err(|error| failed(&error))?;
        match rustix::fs::mkdirat(&root, execution, Mode::RWXU) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(failed(&error)),
        }
        rustix::fs::openat(&root, execution, flags | OFlags::NOFOLLOW, Mode::empty()).map_err(|error| failed(&error))
    }

    fn serve(&self, folder: &OwnedFd, execution: &str, name: &str) -> Result<String, String> {
        open(folder, name, OFlags::RDONLY)?;
        let path = std::path::absolute(self.root.join(execution).join(name)).map_err(|error| error.to_string())?;
        Ok(format!("file://{}", path.display()))
    }
}

fn checked(name: &str) -> Result<&str, String> {
    let plain = (1..=MAX_NAME).contains(&name.len())
        && !name.starts_with('.')
        && !name.contains(['/', '\\', '\0'])
        && !name.chars().any(char::is_control);
    let rule = || format!("{name:?} is no file name: 1 to {MAX_NAME} bytes without folders, not beginning with a dot");
    plain.then_some(name).ok_or_else(rule)
}

fn open(folder: &OwnedFd, name: &str, flags: OFlags) -> Result<File, String> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = rustix::fs::openat(folder, name, flags, Mode::RUSR | Mode::WUSR).map_err(|error| match error {
        rustix::io::Errno::NOENT => format!("there is no file {name:?}"),
        rustix::io::Errno::LOOP => format!("{name:?} is a link, and links are not followed"),
        other => format!("{name:?}: {other}"),
    })?;
    let file = File::from(file);
    let plain = file.metadata().is_ok_and(|metadata| metadata.is_file());
    plain.then_some(file).ok_or_else(|| format!("{name:?} is no plain file"))
}

/// Writes a file whole or not at all.
fn save(folder: &OwnedFd, name: &str, data: &[u8]) -> Result<String, String> {
    if data.len() as u64 > MAX_FILE {
        return Err(format!("a file has at most {MAX_FILE} bytes"));
    }
    let known = names(folder)?;
    if known.len() >= MAX_FILES && !known.iter().any(|known| known == name) {
        return Err(format!("there are {MAX_FILES} files already"));
    }
    let fresh = format!(".new-{name}");
    // One that a crash left behind.
    let _ = rustix::fs::unlinkat(folder, fresh.as_str(), AtFlags::empty());
    let mut file = open(folder, &fresh, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL)?;
    let written = file.write_all(data).and_then(|()| file.sync_all());
    written.map_err(|error| format!("{name:?} cannot be written: {error}"))?;
    rustix::fs::renameat(folder, fresh.as_str(), folder, name).map_err(|error| format!("{name:?}: {error}"))?;
    Ok(format!("{name}: {} bytes", data.len()))
}

/// Adds to a file. The place is on disk before the data, so that a repetition writes the same again.
fn append(folder: &OwnedFd, name: &str, data: &[u8], key: &str) -> Result<String, String> {
    let mut file = open(folder, name, OFlags::RDWR | OFlags::CREATE)?;
    let failed = |error: std::io::Error| format!("{name:?} cannot be written: {error}");
    let end = file.metadata().map_err(failed)?.len();
    let mut appends = appends(folder)?;
    let at = match appends.get(name) {
        Some(last) if last.key == key => last.at.min(end),
        Some(_) | None => end,
    };
    if at + data.len() as u64 > MAX_FILE {
        return Err(format!("a file has at most {MAX_FILE} bytes"));
    }
    appends.insert(name.to_owned(), Append { key: key.to_owned(), at });
    save(folder, APPENDS, &serde_json::to_vec(&appends).unwrap_or_default())?;
    let written = file
        .set_len(at)
        .and_then(|()| file.seek(SeekFrom::Start(at)))
        .and_then(|_| file.write_all(data))
        .and_then(|()| file.sync_all());
    written.map_err(failed)?;
    Ok(format!("{name}: {} bytes", at + data.len() as u64))
}

fn appends(folder: &OwnedFd) -> Result<std::collections::BTreeMap<String, Append>, String> {
    let Ok(file) = open(folder, APPENDS, OFlags::RDONLY) else { return Ok(std::collections::BTreeMap::new()) };
    serde_json::from_reader(file).map_err(|error| format!("{APPENDS}: {error}"))
}

fn load(folder: &OwnedFd, name: &str, offset: u64, limit: u64) -> Result<String, String> {
    let mut file = open(folder, name, OFlags::RDONLY)?;
    let failed = |error: std::io::Error| format!("{name:?} cannot be read: {error}");
    let size = file.metadata().map_err(failed)?.len();
    let limit = limit.clamp(1, 1024 * 1024);
    file.seek(SeekFrom::Start(offset)).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes).map_err(failed)?;
    let mut text = String::from_utf8_lossy(&bytes).into_owned();
    let end = offset.saturating_add(bytes.len() as u64);
    if end < size {
        text.push_str(&format!("\n[{size} bytes; go on with offset {end}]"));
    }
    Ok(text)
}

fn list(folder: &OwnedFd) -> Result<String, String> {
    let mut lines = Vec::new();
    for name in names(folder)? {
        let size = open(folder, &name, OFlags::RDONLY).ok().and_then(|file| Some(file.metadata().ok()?.len()));
        lines.extend(size.map(|size| format!("{name} {size}")));
    }
    Ok(if lines.is_empty() { "there are no files".to_owned() } else { lines.join("\n") })
}

/// The names of files, in order; those that begin with a dot are the runtime's own.
fn names(folder: &OwnedFd) -> Result<Vec<String>, String> {
    let entries = rustix::fs::Dir::read_from(folder).map_err(|error| error.to_string())?;
    let names = entries.filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()));
    let mut names: Vec<String> = names.filter(|name| !name.starts_with('.')).collect();
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use proptest::prelude::*;

    use super::*;

    struct Place {
        root: tempfile::TempDir,
        files: Files,
    }

    fn place() -> Place {
        let root = tempfile::tempdir().unwrap();
        let files = Files::new(root.path().join("files"));
        Place { root, files }
    }

    impl Place {
        fn call(&self, tool: &str, arguments: &Value, key: &str) -> Result<String, String> {
            self.files.call(tool, arguments.as_object().unwrap(), "execution", key)
        }
    }

    #[test]
    fn files_are_saved_added_to_loaded_listed_and_served() {
        let place = place();
        assert_eq!(place.call("list_data_files", &json!({}), "").unwrap(), "there are no files");
        place.call("save_data", &json!({"filename": "a.txt", "data": "one "}), "k1").unwrap();
        place.call("append_data", &json!({"filename": "a.txt", "data": "two"}), "k2").unwrap();
        let load = |arguments| place.call("load_data", &arguments, "").unwrap();
        assert_eq!(load(json!({"filename": "a.txt"})), "one two");
        assert_eq!(load(json!({"filename": "a.txt", "offset": 1, "limit": 3})), "ne \n[7 bytes; go on with offset 4]");
        assert_eq!(place.call("list_data_files", &json!({}), "").unwrap(), "a.txt 7");
        let address = place.call("serve_file_to_user", &json!({"filename": "a.txt"}), "").unwrap();
        assert_eq!(std::fs::read_to_string(address.strip_prefix("file://").unwrap()).unwrap(), "one two");
        place.files.forget("execution").unwrap();
        assert!(place.call("load_data", &json!({"filename": "a.txt"}), "").unwrap_err().contains("no file"));
    }

    #[test]
    fn a_repeated_append_adds_nothing_wherever_a_crash_hit_it() {
        let place = place();
        let add = |data: &str, key: &str| {
            place.call("append_data", &json!({"filename": "a", "data": data}), key).unwrap();
            place.call("load_data", &json!({"filename": "a"}), "").unwrap()
        };
        assert_eq!(add("one ", "k1"), "one ");
        assert_eq!(add("one ", "k1"), "one ");
        assert_eq!(add("two", "k2"), "one two");
        let half = place.root.path().join("files/execution/a");
        std::fs::write(&half, "one t").unwrap();
        assert_eq!(add("two", "k2"), "one two");
    }

    #[test]
    fn nothing_outside_the_folder_can_be_reached() {
        let place = place();
        let secret = place.root.path().join("secret");
        std::fs::write(&secret, "secret").unwrap();
        place.call("save_data", &json!({"filename": "a", "data": "x"}), "").unwrap();
        let folder = place.root.path().join("files/execution");
        symlink(&secret, folder.join("link")).unwrap();
        symlink(place.root.path(), folder.join("folder")).unwrap();
        for name in [
            "../secret",
            "/etc/passwd",
            "a/../../secret",
            "..",
            ".",
            "",
            "link",
            "folder",
            "folder/secret",
            ".appends",
            "a\0b",
        ] {
            for tool in ["load_data", "append_data", "serve_file_to_user"] {
                let refused = place.call(tool, &json!({"filename": name, "data": "y"}), "k");
                assert!(refused.is_err(), "{tool} {name:?}: {refused:?}");
            }
        }
        // Saving replaces a link and does not follow it.
        place.call("save_data", &json!({"filename": "link", "data": "y"}), "").unwrap();
        assert_eq!(std::fs::read_to_string(&secret).unwrap(), "secret");
        symlink(place.root.path(), place.root.path().join("files/other")).unwrap();
        let through = place.files.call("load_data", json!({"filename": "secret"}).as_object().unwrap(), "other", "");
        assert!(through.is_err(), "the folder itself is a link");
    }

    #[test]
    fn sizes_and_numbers_are_bounded() {
        let place = place();
        let large = "x".repeat(usize::try_from(MAX_FILE).unwrap() + 1);
        assert!(place.call("save_data", &json!({"filename": "a", "data": large}), "").is_err());
        assert!(place.call("append_data", &json!({"filename": "a", "data": large}), "").is_err());
        assert!(place.call("save_data", &json!({"filename": "a", "data": 5}), "").unwrap_err().contains("data"));
        assert!(place.call("save_data", &json!({"_raw": "{"}), "").unwrap_err().contains("_raw"));
    }

    proptest! {
        #[test]
        fn no_name_leaves_the_folder(name in "[a./\\\\\\x00-]{0,12}") {
            let place = place();
            let _ = place.call("save_data", &json!({"filename": name, "data": "x"}), "");
            let _ = place.call("append_data", &json!({"filename": name, "data": "x"}), "");
            let outside = std::fs::read_dir(place.root.path()).unwrap().count();
            let executions = std::fs::read_dir(place.root.path().join("files")).unwrap().count();
            prop_assert_eq!((outside, executions), (1, 1));
        }
    }
}
