//! The peers' programs: built or installed once, and left out with a reason where that is not possible.

use std::path::{Path, PathBuf};

use crate::venv;

/// The peers that can take part, and how each is told of in the report.
#[derive(Default)]
pub(crate) struct Peers {
    pub(crate) controller_runtime: Option<PathBuf>,
    pub(crate) kopf: Option<(PathBuf, PathBuf)>,
    pub(crate) told: Vec<(&'static str, String)>,
}

/// Looks for both below this folder.
pub(crate) fn find(folder: &Path) -> Peers {
    let go = folder.join("controller-runtime");
    eprintln!("the peers are built and installed if they have not been, which takes some minutes once");
    let controller_runtime = cluster::program_of(&go, &cluster::Silent).map_err(anyhow::Error::from);
    let python = folder.join("kopf");
    let kopf = venv::interpreter(&python);
    let versions = kopf.as_ref().map(|interpreter| venv::versions(interpreter, &PACKAGES));
    let told = vec![
        ("controller-runtime", told("controller-runtime", controller_runtime.as_ref().map(|_| versions_of(&go)))),
        ("kopf", told("kopf", versions)),
    ];
    Peers { controller_runtime: controller_runtime.ok(), kopf: kopf.ok().map(|program| (program, python)), told }
}

/// The packages whose versions are told.
const PACKAGES: [&str; 4] = ["kopf", "kubernetes_asyncio", "aiohttp", "uvloop"];

fn told(name: &str, found: Result<String, &anyhow::Error>) -> String {
    match found {
        Ok(versions) => versions,
        Err(error) => {
            eprintln!("the peer {name} is skipped: {error:#}");
            format!("skipped: {error:#}")
        }
    }
}

/// What the module asks for by itself.
fn versions_of(module: &Path) -> String {
    let text = std::fs::read_to_string(module.join("go.mod")).unwrap_or_default();
    let direct = text.lines().filter(|line| !line.contains("indirect"));
    let asked = direct.filter_map(|line| line.trim().strip_prefix("require ").or_else(|| line.strip_prefix('\t')));
    let asked = asked.filter(|module| *module != "(");
    let go = text.lines().find_map(|line| line.strip_prefix("go ")).unwrap_or("unknown");
    std::iter::once(format!("Go {go}")).chain(asked.map(str::to_owned)).collect::<Vec<_>>().join(", ")
}
