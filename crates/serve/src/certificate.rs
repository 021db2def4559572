//! Certificates: what they say, and the files they are in. The service and its clients read the same ones.

use std::fmt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;

use api::{Role, Roles};
use base::foreign::Foreign;

/// The methods of a verifier that check signatures within a handshake: they are left to the library, which is in the field
/// `$library`.
#[macro_export]
macro_rules! signatures_as_the_library {
    ($library:tt) => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            certificate: &::tokio_rustls::rustls::pki_types::CertificateDer<'_>,
            signature: &::tokio_rustls::rustls::DigitallySignedStruct,
        ) -> Result<::tokio_rustls::rustls::client::danger::HandshakeSignatureValid, ::tokio_rustls::rustls::Error> {
            self.$library.verify_tls12_signature(message, certificate, signature)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &::tokio_rustls::rustls::pki_types::CertificateDer<'_>,
            signature: &::tokio_rustls::rustls::DigitallySignedStruct,
        ) -> Result<::tokio_rustls::rustls::client::danger::HandshakeSignatureValid, ::tokio_rustls::rustls::Error> {
            self.$library.verify_tls13_signature(message, certificate, signature)
        }

        fn supported_verify_schemes(&self) -> Vec<::tokio_rustls::rustls::SignatureScheme> {
            self.$library.supported_verify_schemes()
        }
    };
}
/// The prefix of a role in the alternative names of a certificate.
pub const ROLE_URI: &str = "urn:retrocap:role:";
/// Characters of a name that are kept; a stranger chooses the name.
const SHOWN_CHARS_MAX: usize = 80;
/// Alternative names that are read.
const NAMES_MAX: usize = 32;
/// Bytes of a file with certificates or a key; the certificates of all public authorities take a fourth of it.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What a certificate says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Its subject's common name, else the first alternative name.
    pub name: Foreign,
    /// Host names and addresses it stands for.
    pub hosts: Vec<Foreign>,
    /// The roles it gives a client.
    pub roles: Roles,
    /// Its serial number, in hexadecimal.
    pub serial: String,
    /// The SHA-256 hash of all of it, in hexadecimal with colons as other tools show it.
    pub fingerprint: String,
    /// The authority that signed it.
    pub issuer: Foreign,
    /// The beginning of its validity.
    pub not_before: Timestamp,
    /// The end of its validity.
    pub not_after: Timestamp,
    /// Whether it says that it is for clients (extended key usage).
    pub for_clients: bool,
    /// How many authorities it permits below it, if it limits them.
    pub path_length: Option<u32>,
}

impl Certificate {
    /// Reads a certificate; `None` if it is none.
    pub fn read(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let common_name = |name: &x509_parser::x509::X509Name<'_>| {
            let names = name.iter_common_name().filter_map(|attribute| attribute.as_str().ok());
            names.filter(|name| !name.is_empty()).map(shown).next()
        };
        let (mut hosts, mut roles) = (Vec::new(), Vec::new());
        if let Ok(Some(names)) = certificate.subject_alternative_name() {
            for name in names.value.general_names.iter().take(NAMES_MAX) {
                match name {
                    GeneralName::DNSName(host) if !host.is_empty() => hosts.push(shown(host)),
                    GeneralName::IPAddress(bytes) => hosts.extend(address(bytes).map(Foreign::from)),
                    GeneralName::URI(uri) => {
                        roles.extend(uri.strip_prefix(ROLE_URI).and_then(|role| role.parse::<Role>().ok()));
                    }
                    _ => {}
                }
            }
        }
        let usage = certificate.extended_key_usage().ok().flatten();
        let constraints = certificate.basic_constraints().ok().flatten();
        let time = |time: x509_parser::time::ASN1Time| Timestamp::from_second(time.timestamp()).ok();
        Some(Self {
            name: common_name(certificate.subject())
                .or_else(|| hosts.first().cloned())
                .unwrap_or_else(|| "without a name".to_owned().into()),
            hosts,
            roles: roles.into_iter().collect(),
            serial: certificate.raw_serial().iter().take(20).map(|byte| format!("{byte:02x}")).collect(),
            fingerprint: fingerprint(der),
            issuer: common_name(certificate.issuer()).unwrap_or_else(|| shown(&certificate.issuer().to_string())),
            not_before: time(certificate.validity().not_before)?,
            not_after: time(certificate.validity().not_after)?,
            for_clients: usage.is_some_and(|usage| usage.value.client_auth),
            path_length: constraints.and_then(|constraints| constraints.value.path_len_constraint),
        })
    }
}

impl fmt::Display for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} (", self.name)?;
        if !self.hosts.is_empty() {
            write!(f, "for {}, ", self.hosts.iter().map(|host| host.log().to_string()).collect::<Vec<_>>().join(", "))?;
        }
        let seconds = |time: Timestamp| Timestamp::from_second(time.as_second()).unwrap_or(time);
        let (from, until) = (seconds(self.not_before), seconds(self.not_after));
        write!(f, "issued by {:?}, number {}, good from {from} until {until})", self.issuer, self.serial)
    }
}

fn fingerprint(der: &[u8]) -> String {
    let hash = ring::digest::digest(&ring::digest::SHA256, der);
    hash.as_ref().iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":")
}

fn shown(text: &str) -> Foreign {
    text.chars().take(SHOWN_CHARS_MAX).collect::<String>().into()
}

fn address(bytes: &[u8]) -> Option<String> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Some(std::net::Ipv4Addr::from(four).to_string());
    }
    <[u8; 16]>::try_from(bytes).ok().map(|sixteen| std::net::Ipv6Addr::from(sixteen).to_string())
}

/// A file with a certificate or key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("cannot read {}: {source}{}", .path.display(), hint(.source))]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It holds something else.
    #[error("{} holds no {what} in PEM, which begins with -----BEGIN: `retrocap certs` makes such files", .path.display())]
    Empty {
        /// Which.
        path: PathBuf,
        /// What should be there.
        what: &'static str,
    },
    /// Everybody could take the key.
    #[error("{} is a private key that every user of this machine can read: chmod 600 {}", .0.display(), .0.display())]
    Open(PathBuf),
}

fn hint(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::NotFound => "; `retrocap certs` makes certificates",
        _ => "",
    }
}

/// The certificates of a file, at least one.
///
/// # Errors
///
/// When there is none.
pub fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, FileError> {
    let text = read(path)?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&text).filter_map(Result::ok).collect();
    match certificates.first().and_then(|first| Certificate::read(first)) {
        Some(_) => Ok(certificates),
        None => Err(FileError::Empty { path: path.to_owned(), what: "certificate" }),
    }
}

/// The private key of a file.
///
/// # Errors
///
/// When there is none, or everybody may read it.
pub fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, FileError> {
    let text = read(path)?;
    let key = PrivateKeyDer::from_pem_slice(&text)
        .map_err(|_| FileError::Empty { path: path.to_owned(), what: "private key" })?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        if std::fs::metadata(path).is_ok_and(|file| file.permissions().mode() & 0o004 != 0) {
            return Err(FileError::Open(path.to_owned()));
        }
    }
    Ok(key)
}

fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    use std::io::Read as _;
    let unreadable = |source| FileError::Unreadable { path: path.to_owned(), source };
    let mut text = Vec::new();
    std::fs::File::open(path).map_err(unreadable)?.take(FILE_BYTES_MAX).read_to_end(&mut text).map_err(unreadable)?;
    Ok(text)
}
