//! The request to shut down, as every task of the service sees it.

use tokio::sync::watch;

/// Waits until the service is to end; a sender that is gone counts as such a request.
pub(crate) async fn shutdown_requested(shutdown: &mut watch::Receiver<bool>) {
    let _ = shutdown.wait_for(|&stop| stop).await;
}
