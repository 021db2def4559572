//! The thread that seals the record: at the lowest priority, and with at most a tenth of one core.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::confinement::Confinement;
use super::error::{Error, system};
use super::priority;
use super::sandbox::Role;
use serve::Service;

/// How often what was recorded is read, so that little is evicted before.
const PASS_INTERVAL: Duration = Duration::from_secs(1);
/// How often the root is written into the log.
const SEAL_INTERVAL: Duration = Duration::from_secs(60);
/// How long the thread rests for each unit of time that it works.
const REST: u32 = 9;
/// How often the thread checks whether it should stop.
const STOP_CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// Starts the thread, if the record is sealed. It ends with the service.
pub(super) fn start(service: &Arc<Service>, confinement: &Confinement) -> Result<(), Error> {
    if !service.seals_record() {
        return Ok(());
    }
    let (service, enter) = (Arc::clone(service), confinement.in_role(Role::Query));
    let thread = std::thread::Builder::new().name("retrocap-seal".to_owned());
    let seal = move || {
        priority::lowest();
        enter();
        let mut sealed = Instant::now();
        service.begin_record();
        while !service.is_stopping() {
            let began = Instant::now();
            service.pass_over_record();
            // Files of the spool are hashed at a pace of their own.
            let worked = began.elapsed();
            if sealed.elapsed() >= SEAL_INTERVAL {
                sealed = Instant::now();
                service.seal_record();
            }
            service.seal_spool();
            let pause = (worked * REST).max(PASS_INTERVAL);
            while began.elapsed() < pause && !service.is_stopping() {
                std::thread::sleep(STOP_CHECK_INTERVAL);
            }
        }
    };
    thread.spawn(seal).map_err(system("start the thread that seals the record"))?;
    Ok(())
}
