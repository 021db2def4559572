//! Files of the dissector: what an administrator installed into one folder, and nothing else.

use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::path::Path;
use std::sync::Arc;

use super::super::peer::Peer;
use super::super::service::Service;
use super::stream::{AnswerEnd, ClientGone, Sink, stream};
use super::{Answer, AnswerKind};
use api::Problem;

/// Answers with a file of the folder, as it is, or in gzip where that is beside it and `gzip` is accepted. Returns whether it is
/// in gzip.
pub(crate) async fn file(
    service: &Arc<Service>,
    peer: &Peer,
    folder: &Path,
    name: &str,
    gzip: bool,
) -> Result<(Answer, bool), Problem> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    if name.starts_with('.') || !name.bytes().all(plain) {
        return Err(Problem::no_such_path(name));
    }
    let (path, packed) = (folder.join(name), folder.join(format!("{name}.gz")));
    let open = move || match File::open(packed) {
        Ok(file) if gzip => Ok((file, true)),
        _ => File::open(path).map(|file| (file, false)),
    };
    let (file, is_packed) = service.blocking(open).await?.map_err(|_| Problem::no_such_path(name))?;
    let share = service.packet_query(peer).await?;
    let body = stream(service, share, move |sink| send(file, sink)).await?;
    Ok((Answer { media: AnswerKind::Dissector, body }, is_packed))
}

fn send(mut file: File, mut sink: Sink) -> Result<(), ClientGone> {
    let chunk_bytes = sink.chunk_bytes() as u64;
    loop {
        match (&mut file).take(chunk_bytes).read_to_end(sink.buffer()) {
            Ok(0) => return sink.end(AnswerEnd::default()),
            Ok(_) => sink.send_full()?,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // Without its end, the answer is broken.
            Err(_) => return Err(ClientGone),
        }
    }
}
