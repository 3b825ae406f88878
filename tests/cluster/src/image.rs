//! Owns the images: the one every pod's sandbox is made of, and those that tests load.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::containers::ctr;
use crate::packages::debian;
use crate::place::{self, Place, private_folder, remove, write_private};
use crate::program::Program;
use crate::toolchain::Toolchain;
use crate::{Error, tool};

/// The image of the sandboxes.
pub(crate) const PAUSE: &str = "localhost/agentruntime-pause:1";

/// The drivers under which somebody may have built an image.
const DRIVERS: [&str; 2] = ["vfs", "overlay"];

/// An archive to be loaded, and the name it is loaded under.
#[derive(Debug)]
pub(crate) struct Archive {
    pub(crate) path: PathBuf,
    pub(crate) name: Option<String>,
    /// We wrote it, so we remove it.
    ours: bool,
}

impl Drop for Archive {
    fn drop(&mut self) {
        if self.ours {
            fs::remove_file(&self.path).ok();
        }
    }
}

/// The full name that containerd looks an image up by, as in `docker.io/library/name:tag`.
pub(crate) fn reference(name: &str) -> String {
    let (first, rest) = name.split_once('/').unwrap_or(("", name));
    let full = if first == "localhost" || first.contains(['.', ':']) {
        name.to_owned()
    } else if first.is_empty() {
        format!("docker.io/library/{rest}")
    } else {
        format!("docker.io/{name}")
    };
    let last = rest.rsplit('/').next().unwrap_or(rest);
    if last.contains([':', '@']) { full } else { format!("{full}:latest") }
}

/// Finds the archive for a file or for an image of buildah.
pub(crate) fn archive(source: &str, name: Option<&str>, scratch: &Path) -> Result<Archive, Error> {
    let named = name.map(reference);
    if Path::new(source).is_file() {
        let path = Path::new(source).canonicalize().map_err(Error::io("resolve", source))?;
        return Ok(Archive { path, name: named, ours: false });
    }
    let inspect = |driver: &str| {
        tool::attempt(debian("buildah").args(["--storage-driver", driver, "inspect", "--type", "image", source]))
    };
    let driver = DRIVERS.into_iter().find(|driver| inspect(driver)).ok_or_else(|| Error::NoImage(source.to_owned()))?;
    let mut buildah = debian("buildah");
    buildah.args(["--storage-driver", driver]);
    export(buildah, source, &named.unwrap_or_else(|| reference(source)), scratch)
}

fn export(mut buildah: Command, source: &str, name: &str, scratch: &Path) -> Result<Archive, Error> {
    private_folder(scratch)?;
    let path = scratch.join(format!("image-{}.tar", std::process::id()));
    remove(&path)?;
    let archive = Archive { path, name: Some(name.to_owned()), ours: true };
    let target = format!("oci-archive:{}:{name}", archive.path.display());
    tool::run(buildah.args(["push", "--quiet", source, &target]), &format!("exporting the image {source}"))?;
    Ok(archive)
}

/// Imports an archive into our containerd and returns the names it has there.
pub(crate) fn import(place: &Place, archive: &Archive) -> Result<Vec<String>, Error> {
    let mut command = ctr(place);
    command.args(["images", "import"]);
    // An archive that we wrote bears its name already. Given once more, the one image replaces the
    // other, and containerd may have thrown away the content of the first before it is unpacked.
    if let Some(name) = archive.name.as_ref().filter(|_| !archive.ours) {
        command.args(["--index-name", name]);
    }
    let said = tool::run(command.arg(&archive.path), &format!("loading {}", archive.path.display()))?;
    Ok(imported(&said))
}

/// Reads `unpacking NAME (sha256:…)...done`, which comes twice when the archive bears the name it is given.
fn imported(said: &str) -> Vec<String> {
    let names = said.lines().filter_map(|line| Some(line.strip_prefix("unpacking ")?.split(' ').next()?.to_owned()));
    names.collect::<BTreeSet<_>>().into_iter().collect()
}

/// The archive of the sandbox image, built once for each version of its program.
pub(crate) fn pause(place: &Place, toolchain: &Toolchain) -> Result<Archive, Error> {
    let program = toolchain.path(Program::Pause)?;
    let folder = program.parent().unwrap_or(Path::new("/")).to_owned();
    let path = folder.join("pause.tar");
    if !path.is_file() {
        let store = place.data().join("buildah");
        let buildah = || {
            let mut command = debian("buildah");
            command.arg("--root").arg(&store).arg("--runroot").arg(place.run().join("buildah"));
            command.args(["--storage-driver", "vfs"]);
            command
        };
        let recipe = folder.join("Containerfile");
        write_private(&recipe, "FROM scratch\nCOPY pause /pause\nENTRYPOINT [\"/pause\"]\n")?;
        let mut build = buildah();
        build.args(["bud", "--quiet", "--isolation", "chroot", "--tag", PAUSE, "--file"]).arg(&recipe).arg(&folder);
        tool::run(&mut build, "building the sandbox image")?;
        let mut made = export(buildah(), PAUSE, PAUSE, &folder)?;
        fs::rename(&made.path, &path).map_err(Error::io("rename", &path))?;
        made.ours = false;
        place::remove(&store)?;
    }
    Ok(Archive { path, name: Some(PAUSE.to_owned()), ours: false })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_full_like_containerd_does() {
        for (short, full) in [
            ("operator", "docker.io/library/operator:latest"),
            ("operator:1", "docker.io/library/operator:1"),
            ("hive/operator", "docker.io/hive/operator:latest"),
            ("localhost/operator:1", "localhost/operator:1"),
            ("example.com/a/b", "example.com/a/b:latest"),
            ("example.com:5000/b:1", "example.com:5000/b:1"),
            ("b@sha256:00", "docker.io/library/b@sha256:00"),
        ] {
            assert_eq!(reference(short), full);
        }
    }

    #[test]
    fn names_of_imported_images_are_read() {
        let line = "unpacking docker.io/library/a:1 (sha256:00)...done\n";
        let said = &format!("{line}other\n{line}");
        assert_eq!(imported(said), vec!["docker.io/library/a:1"]);
    }

    #[test]
    fn what_is_no_image_says_how_to_make_one() {
        let folder = tempfile::tempdir().unwrap();
        let error = archive("no/such/thing:at-all", None, folder.path()).unwrap_err();
        assert!(error.to_string().contains("buildah"), "{error}");
    }
}
