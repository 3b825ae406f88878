//! Asking a person before many runtimes change at once.

use std::io::{BufRead as _, IsTerminal as _, Write as _};

use crate::error::Error;

/// Asks for the number affected, unless one was named or --yes was given.
pub(crate) fn number(verb: &str, count: usize, yes: bool) -> Result<(), Error> {
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return Err(Error::NotConfirmed(format!("this would {verb} {count} runtimes: confirm with --yes")));
    }
    eprint!("This will {verb} {count} runtimes. Type {count} to go on: ");
    let mut line = String::new();
    let _ = std::io::stderr().flush();
    std::io::stdin()
        .lock()
        .read_line(&mut line)
        .map_err(|error| Error::NotConfirmed(format!("the answer cannot be read: {error}")))?;
    if line.trim() == count.to_string() {
        return Ok(());
    }
    Err(Error::NotConfirmed("not confirmed: nothing was changed".to_owned()))
}
