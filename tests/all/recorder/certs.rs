//! `retrocap certs`, and the opinion of other tools about the files it makes.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::running::{PROGRAM, Reply, directory, have, reply};

/// A certificate authority, a recorder's certificate for this host, and clients.
pub(crate) struct Pki(pub(super) TempDir);

impl Pki {
    pub(crate) fn new() -> Self {
        let pki = Self(directory());
        assert_eq!(pki.certs(&["server", "localhost", "127.0.0.1"]).code, 0);
        pki
    }

    pub(crate) fn certs(&self, arguments: &[&str]) -> Reply {
        let mut command = Command::new(PROGRAM);
        command.arg("certs").args(arguments).arg("--dir").arg(self.0.path());
        reply(&command.stdin(Stdio::null()).output().unwrap())
    }

    /// Makes a client's certificate; returns its folder.
    pub(super) fn client(&self, name: &str, role: &str) -> PathBuf {
        let made = self.certs(&["client", name, "--role", role]);
        assert_eq!(made.code, 0, "{made:?}");
        self.path(name)
    }

    /// Makes another certificate for a client that has one; returns its folder.
    pub(super) fn client_again(&self, name: &str, role: &str) -> PathBuf {
        let out = self.path(&format!("{name}-again"));
        let made = self.certs(&["client", name, "--role", role, "--out", out.to_str().unwrap()]);
        assert_eq!(made.code, 0, "{made:?}");
        out
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A certificate that `certs` does not make: expired, or for another use.
    pub(super) fn sign(&self, name: &str, server: bool, until_year: i32) -> (PathBuf, PathBuf) {
        use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair, date_time_ymd};
        let read = |name| std::fs::read_to_string(self.path(name)).unwrap();
        let authority = Issuer::from_ca_cert_pem(&read("ca.pem"), KeyPair::from_pem(&read("ca.key")).unwrap()).unwrap();
        let mut parameters = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        parameters.distinguished_name.push(DnType::CommonName, name);
        (parameters.not_before, parameters.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(until_year, 1, 1));
        parameters.extended_key_usages =
            vec![if server { ExtendedKeyUsagePurpose::ServerAuth } else { ExtendedKeyUsagePurpose::ClientAuth }];
        let pair = KeyPair::generate().unwrap();
        let made = parameters.signed_by(&pair, &authority).unwrap();
        let (cert, key) = (self.path(&format!("{name}.pem")), self.path(&format!("{name}.key")));
        std::fs::write(&cert, made.pem()).unwrap();
        std::fs::write(&key, pair.serialize_pem()).unwrap();
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
        (cert, key)
    }
}

/// The password of the file for browsers, as `certs client` prints it.
pub(crate) fn browser_password(stdout: &str) -> String {
    let (_, rest) = stdout.split_once("with the password ").unwrap_or_else(|| panic!("{stdout}"));
    rest.lines().next().unwrap().to_owned()
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// A peer without a name would be nobody in the log.
#[test]
fn a_certificate_with_an_empty_name_is_said_to_have_none() {
    let mut parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
    parameters.distinguished_name.push(rcgen::DnType::CommonName, "");
    let made = parameters.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
    let read = retrocap::serve::certificate::Certificate::read(made.der()).unwrap();
    assert_eq!(read.name.untrusted(), "without a name");
}

#[test]
fn keys_are_private_and_no_file_is_overwritten() {
    let pki = Pki::new();
    let alice = pki.client("alice", "packets,pin");
    for key in ["ca.key", "server.key", "alice/client.key", "alice/client.p12"] {
        assert_eq!(mode(&pki.path(key)), 0o600, "{key}");
    }
    assert_eq!(mode(&alice), 0o700);
    let before = std::fs::read(pki.path("server.key")).unwrap();
    for again in [&["server", "localhost"][..], &["client", "alice", "--role", "status"], &["ca"]] {
        let refused = pki.certs(again);
        assert!(refused.code == 1 && refused.stderr.contains("already exists"), "{again:?}: {refused:?}");
    }
    assert_eq!(std::fs::read(pki.path("server.key")).unwrap(), before);
    for (wrong, says) in [
        (&["client", "../eve", "--role", "packets"][..], "try alice"),
        (&["client", "eve", "--role", "root"], "try status, flows, packets or pin"),
        (&["client", "eve"], "--role"),
        (&["server", "bad host"], "neither a host name nor an address"),
        (&["client", "eve", "--role", "status", "--days", "0"], "--days"),
    ] {
        let refused = pki.certs(wrong);
        assert!(refused.code == 2 && refused.stderr.contains(says), "{wrong:?}: {refused:?}");
    }
    assert!(!pki.path("eve").exists());
    let shown = pki.certs(&["show"]);
    assert!(shown.stdout.contains("alice/client.pem: 365 days left, may: status, flows, packets, pin"), "{shown:?}");
}

#[test]
fn openssl_reads_the_file_for_browsers_with_its_password_alone() {
    if !have("openssl_reads_the_file_for_browsers_with_its_password_alone", &["openssl"]) {
        return;
    }
    let pki = Pki::new();
    let made = pki.certs(&["client", "alice", "--role", "status"]);
    let password = browser_password(&made.stdout);
    let read = |password: &str| {
        let mut command = Command::new("openssl");
        command.args(["pkcs12", "-nodes", "-passin", &format!("pass:{password}"), "-in"]);
        command.arg(pki.path("alice/client.p12")).output().unwrap()
    };
    let output = read(&password);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("friendlyName: alice"), "{text}");
    for file in ["alice/client.pem", "alice/client.key", "ca.pem"] {
        let there = std::fs::read_to_string(pki.path(file)).unwrap().replace("\r\n", "\n");
        let body: Vec<&str> = there.lines().filter(|line| !line.starts_with("-----")).collect();
        assert!(text.contains(body[0]) && text.contains(body[body.len() - 1]), "{file}: {text}");
    }
    for wrong in ["", "wrong"] {
        assert!(!read(wrong).status.success(), "{wrong:?}");
    }
}

#[test]
fn openssl_verifies_the_certificates() {
    if !have("certificates", &["openssl"]) {
        return;
    }
    let pki = Pki::new();
    let elsewhere = pki.path("web1");
    let made =
        pki.certs(&["server", "web1.example", "2001:db8::1", "--out", elsewhere.to_str().unwrap(), "--days", "30"]);
    assert_eq!(made.code, 0, "{made:?}");
    assert_eq!(std::fs::read(elsewhere.join("ca.pem")).unwrap(), std::fs::read(pki.path("ca.pem")).unwrap());
    pki.client("alice", "flows");
    let openssl = |arguments: &[&str]| reply(&Command::new("openssl").args(arguments).output().unwrap());
    let (ca, text) = (pki.path("ca.pem"), |name: &str| pki.path(name).to_str().unwrap().to_owned());
    for (file, purpose) in
        [("server.pem", "sslserver"), ("web1/server.pem", "sslserver"), ("alice/client.pem", "sslclient")]
    {
        let arguments = ["verify", "-x509_strict", "-purpose", purpose, "-CAfile", ca.to_str().unwrap(), &text(file)];
        let verified = openssl(&arguments);
        assert!(verified.code == 0 && verified.stdout.contains("OK"), "{file}: {verified:?}");
    }
    let said = openssl(&["x509", "-noout", "-subject", "-ext", "subjectAltName", "-in", &text("alice/client.pem")]);
    assert!(said.stdout.contains("alice") && said.stdout.contains("URI:urn:retrocap:role:flows"), "{said:?}");
    // The message about a new certificate lets other tools find the same one.
    let made = pki.certs(&["client", "bob", "--role", "status"]);
    let bob = text("bob/client.pem");
    let field = |option: &str| {
        let said = openssl(&["x509", "-noout", option, "-sha256", "-in", &bob]).stdout;
        said.trim().split_once('=').unwrap().1.to_owned()
    };
    let serial = field("-serial").to_lowercase();
    assert!(made.stdout.contains(&format!("number       {serial}")), "{serial}: {made:?}");
    assert!(made.stdout.contains(&format!("SHA-256 {}", field("-fingerprint"))), "{made:?}");
    assert!(made.stdout.contains("who may: status; valid until 20"), "{made:?}");
    assert!(made.stderr.contains(&format!("serial = \"{serial}\", roles = []")), "{made:?}");
    let shown = pki.certs(&["show"]);
    assert!(shown.stdout.contains(&format!("number {serial},")) && shown.stdout.contains(&field("-fingerprint")));
    let month = openssl(&["x509", "-noout", "-checkend", "2764800", "-in", &text("web1/server.pem")]);
    assert_eq!(month.code, 1, "it ends within 32 days: {month:?}");
    let days = openssl(&["x509", "-noout", "-checkend", "2592000", "-in", &text("web1/server.pem")]);
    assert_eq!(days.code, 0, "not within 30: {days:?}");
}
