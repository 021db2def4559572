//! A real S3 server on loopback, and a proxy before it that fails in chosen ways.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;

use crate::Place;

pub(crate) const KEY: &str = "AKIDTEST";
pub(crate) const SECRET: &str = "the-secret-of-the-tests";
/// A user that may read, list and put, and not delete.
pub(crate) const COPIER: &str = "AKIDCOPIER";

/// A server with one bucket. Its threads end with the test program.
pub(crate) struct S3 {
    root: PathBuf,
    address: SocketAddr,
    _runtime: tokio::runtime::Runtime,
}

struct Rights;

#[async_trait::async_trait]
impl S3Access for Rights {
    async fn check(&self, context: &mut S3AccessContext<'_>) -> s3s::S3Result<()> {
        let user = context.credentials().map(|credentials| credentials.access_key.clone());
        let operation = context.s3_op().name().to_owned();
        match user.as_deref() {
            None => Err(s3s::s3_error!(AccessDenied)),
            Some(COPIER) if operation.starts_with("Delete") => Err(s3s::s3_error!(AccessDenied)),
            Some(_) => Ok(()),
        }
    }
}

impl S3 {
    pub(crate) fn start(root: &Path) -> Self {
        std::fs::create_dir_all(root.join("traffic")).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let mut builder = S3ServiceBuilder::new(s3s_fs::FileSystem::new(root).unwrap());
        let mut auth = SimpleAuth::from_single(KEY, SECRET);
        auth.register(COPIER.to_owned(), SECRET.into());
        builder.set_auth(auth);
        builder.set_access(Rights);
        let service = builder.build();
        let listener = runtime.block_on(tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let service = service.clone();
                tokio::spawn(async move {
                    let io = hyper_util::rt::TokioIo::new(stream);
                    let _ = hyper::server::conn::http1::Builder::new().serve_connection(io, service).await;
                });
            }
        });
        Self { root: root.to_owned(), address, _runtime: runtime }
    }

    pub(crate) fn place(&self) -> Place {
        self.place_at(self.address)
    }

    fn place_at(&self, address: SocketAddr) -> Place {
        let environment = [
            ("AWS_ACCESS_KEY_ID", KEY),
            ("AWS_SECRET_ACCESS_KEY", SECRET),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ENDPOINT_URL", &format!("http://{address}")),
        ];
        let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Place { url: "s3://traffic/eu/berlin".to_owned(), objects: self.root.join("traffic/eu/berlin"), environment }
    }

    /// The server behind a proxy.
    pub(crate) fn behind(&self, fault: Fault) -> (Place, Arc<Proxy>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let proxy = Arc::new(Proxy { fault: Mutex::new(fault), server: self.address, requests: AtomicU32::new(0) });
        let running = Arc::clone(&proxy);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let proxy = Arc::clone(&running);
                std::thread::spawn(move || proxy.serve(stream));
            }
        });
        (self.place_at(address), proxy)
    }
}

/// What a proxy does with requests of a method. Each counts down with each such request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    None,
    /// Answers with this status and code, without asking the server.
    Status(&'static str, u16, &'static str, u32),
    /// Cuts the answer off after so many bytes.
    HalfAnswer(&'static str, usize, u32),
    /// Hands the request on, and ends the connection before the answer.
    LostAnswer(&'static str, u32),
    /// Changes a byte of the body.
    Flip(&'static str, u32),
}

pub(crate) struct Proxy {
    fault: Mutex<Fault>,
    server: SocketAddr,
    pub(crate) requests: AtomicU32,
}

impl Proxy {
    pub(crate) fn set(&self, fault: Fault) {
        *self.fault.lock().unwrap() = fault;
    }

    /// The fault of this request, if it has one.
    fn fault_of(&self, method: &str) -> Fault {
        let mut fault = self.fault.lock().unwrap();
        let (of, left) = match &mut *fault {
            Fault::None => return Fault::None,
            Fault::Status(of, _, _, left)
            | Fault::HalfAnswer(of, _, left)
            | Fault::LostAnswer(of, left)
            | Fault::Flip(of, left) => (*of, left),
        };
        if of != method || *left == 0 {
            return Fault::None;
        }
        *left -= 1;
        *fault
    }

    /// Serves one request of a connection, and ends it.
    fn serve(&self, mut client: TcpStream) {
        let Some((head, mut body)) = request(&mut client) else { return };
        self.requests.fetch_add(1, Ordering::Relaxed);
        let method = head.split(' ').next().unwrap();
        let fault = self.fault_of(method);
        if let Fault::Status(_, status, code, _) = fault {
            let body =
                format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>made by a test</Message></Error>");
            let head = format!(
                "HTTP/1.1 {status} x\r\ncontent-type: application/xml\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                body.len()
            );
            let _ = client.write_all((head + &body).as_bytes());
            return;
        }
        if let (Fault::Flip(..), Some(byte)) = (fault, body.last_mut()) {
            *byte ^= 1;
        }
        // The server ends the connection after the answer.
        let head = head.replacen("\r\n", "\r\nconnection: close\r\n", 1);
        let mut server = TcpStream::connect(self.server).unwrap();
        let _ = server.write_all(head.as_bytes()).and_then(|()| server.write_all(&body));
        let mut answer = Vec::new();
        let _ = server.read_to_end(&mut answer);
        match fault {
            Fault::LostAnswer(..) => {}
            Fault::HalfAnswer(_, bytes, _) => drop(client.write_all(&answer[..bytes.min(answer.len())])),
            _ => drop(client.write_all(&answer)),
        }
    }
}

/// The head and the body of a request.
fn request(client: &mut TcpStream) -> Option<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    let mut part = vec![0; 64 << 10];
    let end = loop {
        if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        let read = client.read(&mut part).ok().filter(|read| *read > 0)?;
        bytes.extend_from_slice(&part[..read]);
    };
    let body = bytes.split_off(end);
    let head = String::from_utf8(bytes).unwrap();
    let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let mut body = body;
    let length: usize = length.unwrap_or(0);
    if head.to_ascii_lowercase().contains("expect: 100-continue") {
        client.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").ok()?;
    }
    while body.len() < length {
        let read = client.read(&mut part).ok().filter(|read| *read > 0)?;
        body.extend_from_slice(&part[..read]);
    }
    Some((head, body))
}
