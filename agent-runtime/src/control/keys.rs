//! Whose commands are obeyed: the keys of the mounted file, newer ones on disk before they count.

use lifecycle::{BootFile, Keys};

use super::{Broken, Controller, record};

impl Controller {
    /// Whose commands are obeyed; none when nothing manages this runtime, or nothing has said so yet.
    #[must_use]
    pub fn keys(&self) -> Option<Keys> {
        self.shown.borrow().keys.clone()
    }

    /// Reads the mounted file now, for keys that it may have brought since.
    ///
    /// # Errors
    /// The record could not be written, and the process ends.
    pub async fn look_for_keys(&self) -> Result<(), Broken> {
        match self.boot_file() {
            Some(file) => self.take_keys(&file).await,
            None => Ok(()),
        }
    }

    /// The mounted file, if it is there and this runtime's.
    pub(super) fn boot_file(&self) -> Option<BootFile> {
        match record::read_boot(self.config.boot_dir.as_deref()?) {
            Ok(file) => file.filter(|file| file.runtime_uid == self.config.runtime_uid),
            Err(error) => {
                tracing::warn!(%error, "the boot file cannot be read, which changes nothing");
                None
            }
        }
    }

    /// Takes over keys that are newer. They are on disk before the first command that they signed is
    /// obeyed: a process that boots later with an older mount is not opened by it.
    pub(super) async fn take_keys(&self, file: &BootFile) -> Result<(), Broken> {
        let named = file.named_keys();
        if !named.is_newer(self.shown.borrow().keys.as_ref()) {
            return Ok(());
        }
        let mut core = self.core.lock().await;
        if named.is_newer(core.keys.as_ref()) {
            if core.keys.as_ref().is_none_or(|keys| keys.public != named.public) {
                tracing::info!(epoch = named.epoch, count = named.public.len(), "other keys");
            }
            core.keys = Some(named);
            self.record(&mut core).await?;
            self.publish(&core);
        }
        Ok(())
    }
}
