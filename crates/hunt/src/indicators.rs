//! Lists of indicators: addresses, networks, names, URLs, fingerprints, hashes. One look-up for each value of a session.

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;

/// Indicators of all lists, at most.
const INDICATORS_MAX: usize = 2_000_000;
/// Maximum number of unreadable lines that are reported one by one.
const BROKEN_MAX: usize = 20;

/// Lists come from users, not from the network.
type HashSet<T> = std::collections::HashSet<T, foldhash::fast::RandomState>;

/// Indicators, by kind.
#[derive(Debug, Default)]
pub struct Indicators {
    addresses: HashSet<IpAddr>,
    /// Networks by prefix length, those of IPv4 and of IPv6.
    networks: HashMap<(bool, u8), HashSet<IpNet>>,
    names: HashSet<String>,
    urls: HashSet<String>,
    /// Hexadecimal: hashes of files, JA3, HASSH; and JA4.
    fingerprints: HashSet<String>,
    /// Lines that are not indicators: number and text.
    pub broken: Vec<(usize, String)>,
    /// The number of lines that are not indicators.
    pub broken_count: u64,
}

impl Indicators {
    /// Adds a list: one indicator per line; text after a comma, a semicolon, a space or `#` is a comment.
    pub fn read(&mut self, text: &str) {
        for (number, line) in text.lines().enumerate() {
            let word = line.split([',', ';', '#', ' ', '\t']).next().unwrap_or_default().trim().trim_matches('"');
            if word.is_empty() {
                continue;
            }
            if self.len() >= INDICATORS_MAX || !self.add(word) {
                self.broken_count += 1;
                if self.broken.len() < BROKEN_MAX {
                    self.broken.push((number + 1, word.chars().take(80).collect()));
                }
            }
        }
    }

    /// The number of indicators.
    pub fn len(&self) -> usize {
        let networks: usize = self.networks.values().map(HashSet::len).sum();
        self.addresses.len() + networks + self.names.len() + self.urls.len() + self.fingerprints.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether there are only addresses and networks.
    pub fn are_addresses(&self) -> bool {
        self.names.is_empty() && self.urls.is_empty() && self.fingerprints.is_empty()
    }

    /// The addresses and networks.
    pub fn addresses(&self) -> Vec<String> {
        let networks = self.networks.values().flatten().map(IpNet::to_string);
        self.addresses.iter().map(IpAddr::to_string).chain(networks).collect()
    }

    /// What may be hashes of files, in hexadecimal. A JA3 looks like one.
    pub fn hashes(&self) -> impl Iterator<Item = &str> {
        self.fingerprints
            .iter()
            .map(String::as_str)
            .filter(|one| matches!(one.len(), 32 | 40 | 64) && !one.contains('_'))
    }

    /// Adds an indicator. Returns whether it is one.
    pub(crate) fn add(&mut self, word: &str) -> bool {
        // Indicators are often written so that nobody follows them by accident.
        let plain = match word.contains(['[', 'x']) {
            true => Cow::Owned(word.replace("[.]", ".").replace("hxxp", "http").replace("[:]", ":")),
            false => Cow::Borrowed(word),
        };
        let word = plain.as_ref();
        if let Ok(ip) = word.parse::<IpAddr>() {
            self.addresses.insert(ip.to_canonical());
            return true;
        }
        if let Ok(net) = word.parse::<IpNet>() {
            let key = (net.addr().is_ipv4(), net.prefix_len());
            self.networks.entry(key).or_default().insert(net.trunc());
            return true;
        }
        let lower = word.to_ascii_lowercase();
        if let Some((_, rest)) = lower.split_once("://") {
            self.urls.insert(rest.trim_end_matches('/').to_owned());
            return !rest.is_empty();
        }
        let hex = lower.bytes().all(|byte| byte.is_ascii_hexdigit());
        let ja4 = lower.len() == 36 && lower.as_bytes()[10] == b'_' && lower.as_bytes()[23] == b'_';
        if (hex && matches!(lower.len(), 32 | 40 | 64)) || ja4 {
            self.fingerprints.insert(lower);
            return true;
        }
        let name = lower.trim_matches('.').trim_start_matches("*.");
        let sane =
            name.contains('.') && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        if sane {
            self.names.insert(name.to_owned());
        }
        sane
    }

    /// The indicator that an address matches.
    pub fn address(&self, ip: IpAddr) -> Option<String> {
        let ip = ip.to_canonical();
        if self.addresses.contains(&ip) {
            return Some(ip.to_string());
        }
        self.networks.iter().find_map(|((ipv4, prefix), networks)| {
            let net = IpNet::new(ip, *prefix).ok().filter(|_| ip.is_ipv4() == *ipv4)?.trunc();
            networks.contains(&net).then(|| net.to_string())
        })
    }

    /// The indicator that a name matches: the name, or one of those above it.
    pub fn name(&self, name: &str) -> Option<String> {
        let lower = name.trim_end_matches('.').to_ascii_lowercase();
        let mut rest = lower.as_str();
        loop {
            if self.names.contains(rest) {
                return Some(rest.to_owned());
            }
            rest = rest.split_once('.')?.1;
        }
    }

    /// The indicator that a URL matches.
    pub fn url(&self, url: &str) -> Option<String> {
        let lower = url.to_ascii_lowercase();
        let rest = lower.split_once("://").map_or(lower.as_str(), |(_, rest)| rest).trim_end_matches('/');
        self.urls.contains(rest).then(|| rest.to_owned())
    }

    /// Whether a hash or fingerprint is among them.
    pub fn fingerprint(&self, value: &str) -> bool {
        !self.fingerprints.is_empty() && self.fingerprints.contains(&value.to_ascii_lowercase())
    }
}
