//! SIGHUP: what of a new configuration holds at once, and what waits for the next start.
//!
//! What always holds: a configuration that is wrong anywhere changes nothing; what was changed, what waits, and what
//! was wrong is logged.

use std::sync::Arc;

use super::workers::WorkerControl;
use super::{Config, Error, Remote};
use capture::selection::InterfaceSelection;
use engine::judge::Classes;
use filter::FilterSet;
use query::History;
use serve::Service;
use serve::tls::{Keys, Tls};

/// Reads the configuration anew; the text of an error goes into the log.
pub type Reload = Box<dyn FnMut() -> Result<Config, String> + Send>;

/// ReloadEffect a changed setting holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReloadEffect {
    /// At once.
    Now,
    /// From the next start on.
    Restart,
}

/// All settings by their keys, with when a change of them holds and whether there is one.
pub fn compare(old: &Config, new: &Config) -> Vec<(&'static str, ReloadEffect, bool)> {
    // Whole, so that nobody adds a setting without deciding.
    let Config {
        socket,
        interfaces,
        filter,
        snaplen,
        memory_bytes,
        workers,
        promiscuous,
        replay,
        drop_privileges,
        user,
        compression_cpu,
        retention,
        classes,
        community_id_seed,
        sandbox,
        file,
        limits,
        wanted,
        remote: Remote { listen, listen_plain, files, clients, pcap_over_ip },
        audit,
    } = new;
    vec![
        ("interface", ReloadEffect::Now, *interfaces != old.interfaces),
        ("filter", ReloadEffect::Now, *filter != old.filter),
        ("[retention]", ReloadEffect::Now, *retention != old.retention),
        ("[limits]", ReloadEffect::Now, *limits != old.limits),
        ("[health]", ReloadEffect::Now, *wanted != old.wanted),
        ("community-id-seed", ReloadEffect::Now, *community_id_seed != old.community_id_seed),
        ("[[client]]", ReloadEffect::Now, clients.listed != old.remote.clients.listed),
        ("unlisted-clients", ReloadEffect::Now, clients.only_listed != old.remote.clients.only_listed),
        ("ca, cert or key", ReloadEffect::Now, *files != old.remote.files),
        ("listen", ReloadEffect::Restart, *listen != old.remote.listen),
        ("listen-plain", ReloadEffect::Restart, *listen_plain != old.remote.listen_plain),
        ("audit", ReloadEffect::Restart, *audit != old.audit),
        ("[[class]]", ReloadEffect::Restart, *classes != old.classes),
        ("socket", ReloadEffect::Restart, *socket != old.socket),
        ("snaplen", ReloadEffect::Restart, *snaplen != old.snaplen),
        ("memory", ReloadEffect::Restart, *memory_bytes != old.memory_bytes),
        ("workers", ReloadEffect::Restart, *workers != old.workers),
        ("promiscuous", ReloadEffect::Restart, *promiscuous != old.promiscuous),
        ("replay", ReloadEffect::Restart, *replay != old.replay),
        ("no-drop-privileges", ReloadEffect::Restart, *drop_privileges != old.drop_privileges),
        ("user", ReloadEffect::Restart, *user != old.user),
        ("compression-cpu", ReloadEffect::Restart, *compression_cpu != old.compression_cpu),
        ("sandbox", ReloadEffect::Restart, *sandbox != old.sandbox),
        ("pcap-over-ip", ReloadEffect::Restart, *pcap_over_ip != old.remote.pcap_over_ip),
        ("config", ReloadEffect::Restart, *file != old.file),
    ]
}

/// What can be changed while it records.
pub(super) struct Reloader {
    pub(super) config: Config,
    pub(super) reload: Option<Reload>,
    pub(super) controls: Vec<Arc<WorkerControl>>,
    pub(super) selection: Option<Arc<InterfaceSelection>>,
    pub(super) history: Arc<History>,
    pub(super) service: Arc<Service>,
    pub(super) tls: Option<Arc<Tls>>,
}

impl Reloader {
    /// Does what SIGHUP asks for.
    pub(super) fn reload(&mut self) {
        let Some(reload) = &mut self.reload else {
            tracing::warn!("nothing is reloaded: there is no configuration file (start with --config)");
            return;
        };
        let applied = reload().and_then(|config| self.apply(config).map_err(|error| error.to_string()));
        if let Err(error) = applied {
            tracing::error!("nothing is changed, the configuration is not usable: {error}");
        }
    }

    fn apply(&mut self, new: Config) -> Result<(), Error> {
        // Everything that can fail comes first.
        let filter = new.filter.as_deref().map(FilterSet::new).transpose()?;
        // Not taken over, but it has to be one that the next start takes.
        Classes::new(&new.classes, new.memory_bytes)?;
        let keys = self.keys(&new.remote)?;
        let changed = compare(&self.config, &new);
        let at = |when: ReloadEffect| -> Vec<_> {
            changed.iter().filter(|(_, at, changed)| *changed && *at == when).map(|(key, ..)| *key).collect()
        };
        let (now, later) = (at(ReloadEffect::Now), at(ReloadEffect::Restart));

        for control in &self.controls {
            control.change(filter.clone(), new.retention.clone());
        }
        self.history.capture_filter.set(new.filter.clone());
        self.history.community_id_seed.set(new.community_id_seed);
        if let Some(selection) = self.selection.as_ref().filter(|_| new.interfaces != self.config.interfaces) {
            selection.choose(&new.interfaces);
            self.history.capture_interfaces.set(new.interfaces.clone());
            if let Err(missing) = selection.check() {
                tracing::warn!("{missing}; it is recorded when it comes");
            }
        }
        self.service.set_limits(new.limits);
        self.service.set_retention_target(new.wanted);
        if let Some(tls) = &self.tls {
            tls.renew(keys, new.remote.clients.clone());
        }

        match now.as_slice() {
            [] if later.is_empty() => tracing::info!("the configuration is reloaded: nothing that matters has changed"),
            [] => {}
            now => tracing::info!("the configuration is reloaded: {} changed", now.join(", ")),
        }
        if !later.is_empty() {
            let keys = later.join(", ");
            tracing::warn!("{keys} changed too, which takes a restart, and with it the history in memory");
        }
        // What waits is compared with what runs, each time.
        let Config { interfaces, filter, retention, limits, wanted, community_id_seed, .. } = new;
        let Remote { files, clients, .. } = new.remote;
        let remote = Remote { files, clients, ..self.config.remote.clone() };
        let old = self.config.clone();
        self.config = Config { interfaces, filter, retention, limits, wanted, community_id_seed, remote, ..old };
        Ok(())
    }

    /// Certificates and key as they are now. Rights to read them may have been given up: then those that were read stay,
    /// save that others were named.
    fn keys(&self, new: &Remote) -> Result<Option<Keys>, Error> {
        let (Some(_), Some(files)) = (&self.tls, &new.files) else { return Ok(None) };
        match Keys::read(files) {
            Ok(keys) => Ok(Some(keys)),
            Err(error) if self.config.remote.files.as_ref() != Some(files) => Err(error.into()),
            Err(error) => {
                tracing::warn!("the certificates stay those that were read before: {error}");
                Ok(None)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_has_changed_until_something_has() {
        let config = Config {
            socket: "s".into(),
            interfaces: Vec::new(),
            filter: None,
            snaplen: 0,
            memory_bytes: 1,
            workers: 1,
            promiscuous: false,
            replay: None,
            drop_privileges: true,
            user: None,
            compression_cpu: 10.0,
            retention: engine::store::retention::Policy::default(),
            classes: Vec::new(),
            community_id_seed: 0,
            sandbox: crate::SandboxMode::default(),
            file: None,
            limits: serve::Limits::default(),
            wanted: serve::RetentionTarget::default(),
            remote: Remote::default(),
            audit: serve::audit::Config::default(),
        };
        assert!(compare(&config, &config).iter().all(|(_, _, changed)| !changed));
        let other = Config { filter: Some("ip".into()), workers: 2, ..config.clone() };
        let changed: Vec<_> = compare(&config, &other).into_iter().filter(|(.., changed)| *changed).collect();
        assert_eq!(changed, [("filter", ReloadEffect::Now, true), ("workers", ReloadEffect::Restart, true)]);
    }
}
