//! Owns the folders: where the cluster keeps its state, and where built programs are cached.

use std::env;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::Error;

/// The folder that overrides where the cluster lives.
pub const DIR_VARIABLE: &str = "AGENTRUNTIME_CLUSTER_DIR";

/// A socket's path may have 108 bytes; the longest one below the folder takes under 40.
const LONGEST: usize = 64;

/// The folder of the cluster, with everything in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    root: PathBuf,
}

impl Place {
    /// The folder the environment asks for, or the one in the user's cache.
    pub(crate) fn find() -> Result<Self, Error> {
        let root = match env::var_os(DIR_VARIABLE) {
            Some(folder) if !folder.is_empty() => {
                std::path::absolute(&folder).map_err(Error::io("resolve", &folder))?
            }
            _ => cache()?.join("cluster"),
        };
        Self::at(root)
    }

    fn at(root: PathBuf) -> Result<Self, Error> {
        // The mount table shows resolved paths, so ours must be resolved too.
        let root = root.canonicalize().unwrap_or(root);
        if root.as_os_str().len() > LONGEST {
            return Err(Error::LongPath(root));
        }
        Ok(Self { root })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The administrator's kubeconfig.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.root.join("kubeconfig")
    }

    /// Keys and certificates.
    pub(crate) fn pki(&self) -> PathBuf {
        self.root.join("pki")
    }

    /// Configuration files of the components.
    pub(crate) fn config(&self) -> PathBuf {
        self.root.join("config")
    }

    /// Logs; they outlive `down`, so that a failure can be looked into.
    pub(crate) fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }

    /// What the components store.
    pub(crate) fn data(&self) -> PathBuf {
        self.root.join("data")
    }

    /// Sockets and containerd's state.
    pub(crate) fn run(&self) -> PathBuf {
        self.root.join("run")
    }

    /// Records of the processes.
    pub(crate) fn pids(&self) -> PathBuf {
        self.root.join("pids")
    }

    /// Archives of images on their way into the cluster.
    pub(crate) fn scratch(&self) -> PathBuf {
        self.root.join("scratch")
    }

    /// Which cluster is in use.
    pub(crate) fn target(&self) -> PathBuf {
        self.root.join("target.json")
    }

    /// Says that bridge and iptables rules are ours to remove.
    pub(crate) fn network_mark(&self) -> PathBuf {
        self.root.join("network")
    }

    /// containerd's socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.run().join("containerd.sock")
    }

    /// containerd's state folder.
    pub(crate) fn containerd_state(&self) -> PathBuf {
        self.run().join("containerd")
    }

    /// The API server's audit log.
    pub(crate) fn audit_log(&self) -> PathBuf {
        self.logs().join("audit.log")
    }

    /// Makes the folders, closed to other users because keys are below.
    pub(crate) fn create(&self) -> Result<(), Error> {
        for folder in [self.root.clone(), self.pki(), self.config(), self.logs(), self.data(), self.run(), self.pids()]
        {
            private_folder(&folder)?;
        }
        Ok(())
    }

    /// Waits for its turn: `up` and `down` of two processes must not mix. The lock goes with the file.
    pub(crate) fn lock(&self) -> Result<File, Error> {
        private_folder(&self.root)?;
        let path = self.root.join("lock");
        let file = File::create(&path).map_err(Error::io("create", &path))?;
        file.lock().map_err(Error::io("lock", &path))?;
        Ok(file)
    }
}

/// The cache shared by all clusters of this user: built programs and images.
pub(crate) fn cache() -> Result<PathBuf, Error> {
    let base = match env::var_os("XDG_CACHE_HOME") {
        Some(folder) if Path::new(&folder).is_absolute() => PathBuf::from(folder),
        _ => env::home_dir().filter(|home| home.is_absolute()).ok_or(Error::NoHome)?.join(".cache"),
    };
    Ok(base.join("agentruntime"))
}

/// Makes a folder that only its owner can enter.
pub(crate) fn private_folder(path: &Path) -> Result<(), Error> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(Error::io("create", path))
}

/// Writes a file that only its owner can read.
pub(crate) fn write_private(path: &Path, content: &str) -> Result<(), Error> {
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .map_err(Error::io("create", path))?;
    file.write_all(content.as_bytes()).map_err(Error::io("write", path))
}

/// Removes a file or folder that may not be there.
pub(crate) fn remove(path: &Path) -> Result<(), Error> {
    let result = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(_) => return Ok(()),
    };
    match result {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", path)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_too_long_for_sockets_is_refused() {
        assert!(matches!(Place::at(PathBuf::from(format!("/{}", "x".repeat(90)))), Err(Error::LongPath(_))));
    }

    #[test]
    fn the_longest_socket_fits() {
        let place = Place::at(PathBuf::from(format!("/{}", "x".repeat(LONGEST - 1)))).unwrap();
        assert!(place.socket().with_extension("sock.ttrpc").as_os_str().len() < 108);
        assert!(place.data().join("kubelet/pod-resources/kubelet.sock").as_os_str().len() < 108);
    }

    #[test]
    fn removing_nothing_is_fine() {
        let folder = tempfile::tempdir().unwrap();
        remove(&folder.path().join("none")).unwrap();
    }
}
