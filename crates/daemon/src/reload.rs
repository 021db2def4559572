//! SIGHUP: reads the settings again and applies what does not need a restart.
//!
//! What always holds: a configuration with any mistake changes nothing. The log says what was applied, what waits for the
//! next start, and what was wrong.

use std::sync::Arc;

use super::classes;
use super::error::Error;
use super::settings::{self, Settings};
use super::workers::WorkerControl;
use capture::selection::InterfaceSelection;
use filter::FilterSet;
use query::History;
use serve::Service;
use serve::tls::{Keys, Tls};

/// Reads the settings again; the text of an error goes into the log.
pub type Reload = Box<dyn FnMut() -> Result<Settings, String> + Send>;

/// What a reload changes.
pub(super) struct Reloader {
    /// What applies now.
    pub(super) settings: Settings,
    pub(super) reload: Option<Reload>,
    pub(super) controls: Vec<Arc<WorkerControl>>,
    pub(super) selection: Option<Arc<InterfaceSelection>>,
    pub(super) history: Arc<History>,
    pub(super) service: Arc<Service>,
    pub(super) tls: Option<Arc<Tls>>,
}

impl Reloader {
    /// Reads the settings again and applies them.
    pub(super) fn reload(&mut self) {
        let Some(reload) = &mut self.reload else {
            tracing::warn!("nothing was reloaded: there is no configuration file (start with --config)");
            return;
        };
        let applied = reload().and_then(|new| self.apply(&new).map_err(|error| error.to_string()));
        if let Err(error) = applied {
            tracing::error!("nothing was changed, because the configuration cannot be used: {error}");
        }
    }

    fn apply(&mut self, new: &Settings) -> Result<(), Error> {
        // Everything that can fail comes first.
        let filter = new.filter.as_deref().map(FilterSet::new).transpose()?;
        // Classes apply at the next start, which must not fail because of them.
        classes::compile(new, &classes::split(new)?)?;
        let keys = self.keys(new)?;
        let applied = self.settings.changes(new, settings::Reload::Now);
        let waiting = self.settings.changes(new, settings::Reload::Restart);

        for control in &self.controls {
            control.change(filter.clone(), new.retention());
        }
        self.history.capture_filter.set(new.filter.clone());
        self.history.community_id_seed.set(new.community_id_seed);
        if let Some(selection) = self.selection.as_ref().filter(|_| new.interface != self.settings.interface) {
            selection.choose(&new.interface);
            self.history.capture_interfaces.set(new.interface.clone());
            if let Err(missing) = selection.check() {
                tracing::warn!("{missing}; it is recorded from the moment it appears");
            }
        }
        self.service.set_limits(new.limits());
        self.service.set_retention_target(new.retention_target());
        if let Some(tls) = &self.tls {
            tls.renew(keys, new.remote_clients());
        }
        // What waits for a restart is compared with what runs at each reload.
        self.settings.adopt_reloaded(new);

        match applied.as_slice() {
            [] if waiting.is_empty() => tracing::info!("the configuration is reloaded: no setting has changed"),
            [] => {}
            applied => tracing::info!("the configuration is reloaded: {} changed", applied.join(", ")),
        }
        if !waiting.is_empty() {
            tracing::warn!(
                "{} changed too, which takes a restart (under systemd, `systemctl restart retrocap` keeps the history)",
                waiting.join(", ")
            );
        }
        Ok(())
    }

    /// Certificates and key as they are now. If they can no longer be read, because privileges were dropped, the ones in
    /// use stay, unless the configuration names others.
    fn keys(&self, new: &Settings) -> Result<Option<Keys>, Error> {
        if self.tls.is_none() {
            return Ok(None);
        }
        match Keys::read(&new.certificates()) {
            Ok(keys) => Ok(Some(keys)),
            Err(error) if self.settings.certificates() != new.certificates() => Err(error.into()),
            Err(error) => {
                tracing::warn!("the recorder keeps its certificates, because it cannot read them again: {error}");
                Ok(None)
            }
        }
    }
}
