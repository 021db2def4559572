//! `retrocap certs`: a small certificate authority, and certificates for recorders and remote readers.
//!
//! Invariants: an existing file is never overwritten; a private key is readable only by its owner from the moment it
//! exists.

mod pkcs12;

use std::fs::{DirBuilder, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use clap::{Args, Subcommand};
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType, string::Ia5String,
};

use crate::error::Usage;
use crate::options::Common;
use crate::terminal::printable::{note, print};
use api::Role;
use serve::certificate::{Certificate, ROLE_URI, read_certificates, read_key};

/// Default directory of the recorder's certificates.
pub(crate) const DIRECTORY: &str = "/etc/retrocap/tls";
const CA_DAYS: u32 = 3650;
const SERVER_DAYS: u32 = 825;
const CLIENT_DAYS: u32 = 365;
const DAYS_MAX: i64 = 36_500;
/// Maximum number of characters of a common name, as in X.520.
const NAME_CHARS_MAX: usize = 64;

/// Make certificates for reading from other machines
#[derive(Debug, Args)]
#[command(after_help = "\
The roles in a certificate of the authority determine what its owner may read: status; flows (and status); packets (and flows \
and status); pin (and status). A [[client]] entry in the configuration of `run` replaces the roles of a certificate by name.

Examples:
  sudo retrocap certs server sensor1.example 10.0.0.5     the authority if there is none, and this recorder's own
  sudo retrocap run --listen 0.0.0.0:57443                serve with them
  sudo retrocap certs client alice --role packets         for alice: copy the folder it names to her ~/.config/retrocap
  retrocap status --remote https://sensor1.example:57443  as alice, on her machine
  sudo retrocap certs show                                the certificates, and when they expire")]
pub(crate) struct Certs {
    #[command(subcommand)]
    action: CertsAction,
}

#[derive(Debug, Subcommand)]
enum CertsAction {
    /// Make the authority; server and client make one if there is none
    Ca {
        #[command(flatten)]
        folder: AuthorityFolder,
        /// Name of the authority [default: Retrocap CA, the host name and a mark of the key]
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
        /// Days until it expires
        #[arg(long, value_name = "N", default_value_t = CA_DAYS, value_parser = clap::value_parser!(u32).range(1..=DAYS_MAX))]
        days: u32,
    },
    /// Make a recorder's certificate: server.pem and server.key
    Server {
        #[command(flatten)]
        folder: AuthorityFolder,
        /// All names and addresses that clients use for the recorder
        #[arg(value_name = "NAME|ADDRESS", required = true)]
        hosts: Vec<String>,
        /// Write it to this folder, together with ca.pem, for use on another machine [default: the authority's folder]
        #[arg(long, value_name = "FOLDER")]
        out: Option<PathBuf>,
        /// Days until it expires
        #[arg(long, value_name = "N", default_value_t = SERVER_DAYS, value_parser = clap::value_parser!(u32).range(1..=DAYS_MAX))]
        days: u32,
    },
    /// Make a reader's certificate: a folder with client.pem, client.key, ca.pem, and client.p12 for browsers
    Client {
        #[command(flatten)]
        folder: AuthorityFolder,
        /// Name of the reader, as the audit log shows it
        #[arg(value_name = "NAME")]
        name: String,
        /// Permission to grant: status, flows, packets, pin; may be repeated
        #[arg(long = "role", value_name = "ROLE", required = true, value_delimiter = ',')]
        roles: Vec<Role>,
        /// Write it to this folder [default: a folder with the client's name in the authority's folder]
        #[arg(long, value_name = "FOLDER")]
        out: Option<PathBuf>,
        /// Days until it expires
        #[arg(long, value_name = "N", default_value_t = CLIENT_DAYS, value_parser = clap::value_parser!(u32).range(1..=DAYS_MAX))]
        days: u32,
    },
    /// Show the contents of the certificates in the authority's folder, or of these files
    Show {
        #[command(flatten)]
        folder: AuthorityFolder,
        /// Certificate files
        #[arg(value_name = "FILE")]
        files: Vec<PathBuf>,
    },
}

#[derive(Debug, Args)]
struct AuthorityFolder {
    /// Folder of the authority
    #[arg(long, value_name = "FOLDER", default_value = DIRECTORY)]
    dir: PathBuf,
}

impl Certs {
    /// Runs the action.
    pub(crate) fn run(&self, common: &Common) -> anyhow::Result<()> {
        match &self.action {
            CertsAction::Ca { folder, name, days } => make_authority(&folder.dir, name.as_deref(), *days).map(drop),
            CertsAction::Server { folder, hosts, out, days } => server(&folder.dir, hosts, out.as_deref(), *days),
            CertsAction::Client { folder, name, roles, out, days } => {
                client(&folder.dir, name, roles, out.as_deref(), *days)
            }
            CertsAction::Show { folder, files } => show(&folder.dir, files, common.json),
        }
    }
}

fn server(directory: &Path, hosts: &[String], out: Option<&Path>, days: u32) -> anyhow::Result<()> {
    let mut parameters = CertificateParams::default();
    let name = &hosts[0];
    parameters.distinguished_name.push(DnType::CommonName, name.chars().take(NAME_CHARS_MAX).collect::<String>());
    for host in hosts {
        parameters.subject_alt_names.push(alternative_name(host)?);
    }
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let out = out.unwrap_or(directory);
    let (mark, _) = leaf(directory, out, "server", parameters, days)?;
    print(&format!(
        "{}: the certificate of a recorder called {}, {mark}{}: its private key; keep it secret\n",
        out.join("server.pem").display(),
        hosts.join(", "),
        out.join("server.key").display(),
    ))?;
    note(&if out == Path::new(DIRECTORY) {
        "next: sudo retrocap run --listen 0.0.0.0:57443".to_owned()
    } else {
        let of = |name| out.join(name).display().to_string();
        let (ca, cert, key) = (of("ca.pem"), of("server.pem"), of("server.key"));
        format!("next: retrocap run --listen 0.0.0.0:57443 --ca {ca} --cert {cert} --key {key}")
    });
    Ok(())
}

fn client(directory: &Path, name: &str, roles: &[Role], out: Option<&Path>, days: u32) -> anyhow::Result<()> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '@');
    if name.is_empty() || name.len() > NAME_CHARS_MAX || !name.chars().all(good) || name.starts_with(['.', '-']) {
        return Err(Usage::of(format_args!(
            "{name:?} cannot be a client's name: it has up to {NAME_CHARS_MAX} letters, digits and . _ - @; try alice or \
             soc-laptop-2"
        )));
    }
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name.push(DnType::CommonName, name);
    for role in roles {
        parameters.subject_alt_names.push(SanType::URI(Ia5String::try_from(format!("{ROLE_URI}{role}"))?));
    }
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let out = out.map_or_else(|| directory.join(name), Path::to_owned);
    let for_browsers = out.join("client.p12");
    free(&[&for_browsers])?;
    let (mark, made) = leaf(directory, &out, "client", parameters, days)?;
    let password = pkcs12::password()?;
    let file = pkcs12::file(name, &made.certificate, &made.authority, &made.key, &password)?;
    write(&for_browsers, &file, 0o600)?;
    let roles = roles.iter().copied().collect::<api::Roles>();
    print(&format!(
        "{}: ca.pem, client.pem and the private key client.key of {name}, who may: {roles}; {mark}\
         client.p12: the same for browsers, which import it with the password {password}\n",
        out.display()
    ))?;
    note(&format!(
        "the audit log names it by that number; to take it away, in the configuration: [[client]] name = {name:?}, \
         serial = {:?}, roles = []",
        mark.serial
    ));
    note(&format!(
        "next: move that folder to {name}'s machine, as ~/.config/retrocap; then there: retrocap status --remote \
         https://HOST:57443"
    ));
    Ok(())
}

/// Identifies a certificate. Administrators revoke it by its serial number, and find it in other tools by its
/// fingerprint.
struct Fingerprint {
    serial: String,
    fingerprint: String,
    until: Date,
}

impl Fingerprint {
    fn of(der: &[u8], until: Date) -> anyhow::Result<Self> {
        let said = Certificate::read(der).context("what was made cannot be read")?;
        Ok(Self { serial: said.serial, fingerprint: said.fingerprint, until })
    }
}

impl std::fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { serial, fingerprint, until } = self;
        write!(f, "valid until {until}\n  number       {serial}\n  fingerprint  SHA-256 {fingerprint}\n")
    }
}

/// Makes a certificate and its key, and writes the authority's certificate beside them.
fn leaf(
    directory: &Path,
    out: &Path,
    name: &str,
    mut parameters: CertificateParams,
    days: u32,
) -> anyhow::Result<(Fingerprint, Made)> {
    let (cert, key) = (out.join(format!("{name}.pem")), out.join(format!("{name}.key")));
    free(&[&cert, &key])?;
    let authority = match directory.join("ca.pem").exists() || directory.join("ca.key").exists() {
        true => read_authority(directory)?,
        false => make_authority(directory, None, CA_DAYS)?,
    };
    let mut until = validity(&mut parameters, days)?;
    if authority.until < until {
        until = authority.until;
        set_validity(&mut parameters, yesterday()?, until)?;
        note(&format!("retrocap: it is valid only until {until}, when the authority expires"));
    }
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.use_authority_key_identifier_extension = true;
    let pair = KeyPair::generate().context("cannot make a key")?;
    let made = parameters.signed_by(&pair, &authority.issuer).context("cannot sign")?;
    make_directory(out)?;
    let ca = out.join("ca.pem");
    match std::fs::read_to_string(&ca) {
        Ok(there) if there == authority.pem => {}
        Ok(_) => {
            return Err(anyhow!(
                "{} was issued by another authority than {}: choose another --out",
                ca.display(),
                directory.display()
            ));
        }
        Err(_) => write(&ca, authority.pem.as_bytes(), 0o644)?,
    }
    write(&key, pair.serialize_pem().as_bytes(), 0o600)?;
    write(&cert, made.pem().as_bytes(), 0o644)?;
    let authority = read_certificates(&ca)?.first().map(|first| first.to_vec()).unwrap_or_default();
    let of = Made { certificate: made.der().to_vec(), authority, key: pair.serialize_der() };
    Ok((Fingerprint::of(made.der(), until)?, of))
}

/// What was made, in DER, and the certificate of its authority.
struct Made {
    certificate: Vec<u8>,
    authority: Vec<u8>,
    key: Vec<u8>,
}

struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
    until: Date,
}

fn make_authority(directory: &Path, name: Option<&str>, days: u32) -> anyhow::Result<Authority> {
    let (cert, key) = (directory.join("ca.pem"), directory.join("ca.key"));
    free(&[&cert, &key])?;
    let pair = KeyPair::generate().context("cannot make a key")?;
    // Add a mark of the key, because people and programs confuse two authorities with one name.
    let mark: String = pair.public_key_raw().iter().rev().take(2).map(|byte| format!("{byte:02x}")).collect();
    let name = name.map_or_else(|| format!("Retrocap CA {} {mark}", host_name()), str::to_owned);
    if name.is_empty() || name.chars().count() > NAME_CHARS_MAX || name.chars().any(char::is_control) {
        return Err(Usage::of(format_args!(
            "an authority's name has 1 to {NAME_CHARS_MAX} characters: try \"Our CA\""
        )));
    }
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name.push(DnType::CommonName, name.as_str());
    // It signs certificates of recorders and readers, but no other authorities.
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let until = validity(&mut parameters, days)?;
    let made = parameters.self_signed(&pair).context("cannot sign")?;
    let (pem, mark) = (made.pem(), Fingerprint::of(made.der(), until)?);
    make_directory(directory)?;
    write(&key, pair.serialize_pem().as_bytes(), 0o600)?;
    write(&cert, pem.as_bytes(), 0o644)?;
    print(&format!(
        "{}: the certificate of the authority {name:?}, {mark}{}: its private key; who has it can make \
         clients, so keep it where no recorder runs if you can\n",
        cert.display(),
        key.display()
    ))?;
    Ok(Authority { pem, issuer: Issuer::new(parameters, pair), until })
}

fn read_authority(directory: &Path) -> anyhow::Result<Authority> {
    let (cert, key) = (directory.join("ca.pem"), directory.join("ca.key"));
    let chain = read_certificates(&cert)?;
    let said = chain.first().and_then(|first| Certificate::read(first)).context("the authority cannot be read")?;
    if said.not_after < Timestamp::now() {
        return Err(anyhow!("the authority {said} in {} has expired: make another in another --dir", cert.display()));
    }
    read_key(&key)?;
    let text = |path: &Path| std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()));
    let pem = text(&cert)?;
    let unfit = || format!("{} and {} cannot be used as an authority", cert.display(), key.display());
    let pair = KeyPair::from_pem(&text(&key)?).with_context(unfit)?;
    let issuer = Issuer::from_ca_cert_pem(&pem, pair).with_context(unfit)?;
    Ok(Authority { pem, issuer, until: said.not_after.to_zoned(TimeZone::UTC).date() })
}

fn alternative_name(host: &str) -> anyhow::Result<SanType> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
    };
    if host.len() > 253 || !host.split('.').all(label) {
        return Err(Usage::of(format_args!(
            "{host:?} is neither a host name nor an address: try sensor1.example 10.0.0.5"
        )));
    }
    Ok(SanType::DnsName(Ia5String::try_from(host)?))
}

/// Sets the validity from yesterday, because clocks differ, to the end of the last day. Returns the end.
fn validity(parameters: &mut CertificateParams, days: u32) -> anyhow::Result<Date> {
    let until = yesterday()?.checked_add(Span::new().days(i64::from(days) + 2)).context("that is too long")?;
    set_validity(parameters, yesterday()?, until)?;
    Ok(until)
}

fn yesterday() -> anyhow::Result<Date> {
    Ok(Timestamp::now().to_zoned(TimeZone::UTC).date().yesterday()?)
}

fn set_validity(parameters: &mut CertificateParams, from: Date, until: Date) -> anyhow::Result<()> {
    let parts = |date: Date| anyhow::Ok((date.year().into(), u8::try_from(date.month())?, u8::try_from(date.day())?));
    let ((y, m, d), (until_y, until_m, until_d)) = (parts(from)?, parts(until)?);
    parameters.not_before = rcgen::date_time_ymd(y, m, d);
    parameters.not_after = rcgen::date_time_ymd(until_y, until_m, until_d);
    Ok(())
}

/// Returns an error if one of the paths exists.
fn free(paths: &[&Path]) -> anyhow::Result<()> {
    match paths.iter().find(|path| path.symlink_metadata().is_ok()) {
        Some(path) => Err(taken(path)),
        None => Ok(()),
    }
}

fn taken(path: &Path) -> anyhow::Error {
    anyhow!("{} already exists and is not overwritten: move it, or choose another folder", path.display())
}

fn make_directory(directory: &Path) -> anyhow::Result<()> {
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(directory).map_err(|error| cannot_make(directory, &error))
}

fn write(path: &Path, text: &[u8], mode: u32) -> anyhow::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
    let mut file = options.open(path).map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => taken(path),
        _ => cannot_make(path, &error),
    })?;
    if let Err(error) = file.write_all(text).and_then(|()| file.sync_all()) {
        // Remove a partly written key.
        let _ = std::fs::remove_file(path);
        return Err(cannot_make(path, &error));
    }
    Ok(())
}

fn cannot_make(path: &Path, error: &std::io::Error) -> anyhow::Error {
    let advice = match error.kind() {
        ErrorKind::PermissionDenied => ": use sudo, or a folder of your own with --dir ./certs",
        _ => "",
    };
    anyhow!("cannot make {}: {error}{advice}", path.display())
}

fn host_name() -> String {
    #[cfg(unix)]
    return rustix::system::uname().nodename().to_string_lossy().chars().take(40).collect();
    #[cfg(not(unix))]
    String::new()
}

fn show(directory: &Path, files: &[PathBuf], json: bool) -> anyhow::Result<()> {
    let found = if files.is_empty() { in_folder(directory)? } else { files.to_vec() };
    let now = Timestamp::now();
    let mut text = String::new();
    for path in &found {
        let said = read_certificates(path)?.first().and_then(|first| Certificate::read(first));
        let Some(said) = said else { continue };
        if json {
            let document = serde_json::json!({
                "file": path.display().to_string(), "name": said.name, "hosts": said.hosts,
                "roles": if said.roles.is_empty() { None } else { Some(said.roles.to_string()) },
                "issuer": said.issuer, "serial": said.serial, "fingerprint": said.fingerprint,
                "not_before": said.not_before.to_string(), "not_after": said.not_after.to_string(),
                "expired": said.not_after < now,
            });
            text.push_str(&format!("{document}\n"));
            continue;
        }
        let days = (said.not_after.as_second() - now.as_second()) / 86_400;
        let left = if said.not_after < now { "EXPIRED".to_owned() } else { format!("{days} days left") };
        let roles = if said.roles.is_empty() { String::new() } else { format!(", may: {}", said.roles) };
        text.push_str(&format!(
            "{}: {left}{roles}\n  {said}\n  fingerprint SHA-256 {}\n",
            path.display(),
            said.fingerprint
        ));
    }
    print(&text)
}

/// Lists the certificates in the authority's folder and in its clients' folders.
fn in_folder(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let list = |directory: &Path| -> anyhow::Result<Vec<PathBuf>> {
        let entries =
            std::fs::read_dir(directory).with_context(|| format!("cannot look into {}", directory.display()))?;
        let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
        paths.sort();
        Ok(paths)
    };
    let is_pem = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "pem");
    let mut found: Vec<PathBuf> = list(directory)?.into_iter().filter(is_pem).collect();
    for folder in list(directory)?.into_iter().filter(|path| path.is_dir()) {
        // Each client's folder has a copy of ca.pem, which is listed once.
        found.extend(list(&folder)?.into_iter().filter(is_pem).filter(|path| !path.ends_with("ca.pem")));
    }
    match found.is_empty() {
        true => Err(anyhow!(
            "there are no certificates in {}: `retrocap certs server NAME` makes them",
            directory.display()
        )),
        false => Ok(found),
    }
}
