//! Names of a session, and their selection. [`names`](super::names) reads them from packets.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use base::foreign::Foreign;

/// Names in the first packets of a session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Names {
    /// TLS: the server name that the client requested (SNI).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_name: Option<Foreign>,
    /// HTTP: the host of the first request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_host: Option<Foreign>,
    /// DNS: the name in the first question.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns_question: Option<Foreign>,
    /// DNS: the type of the first question, such as `A`, `TXT` or `TYPE4711`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns_type: Option<Foreign>,
}

/// Selects names: those that contain a text, or those below a domain. Ignores ASCII case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameFilter(String);

impl NameFilter {
    /// A text that begins with a dot selects all names below that domain; any other text, the names that contain it.
    pub fn new(text: &str) -> Self {
        Self(text.to_ascii_lowercase())
    }

    /// Whether one of the names is selected.
    pub fn matches(&self, names: &Names) -> bool {
        [&names.server_name, &names.http_host, &names.dns_question]
            .into_iter()
            .flatten()
            .any(|name| self.selects(name.untrusted()))
    }

    fn selects(&self, name: &str) -> bool {
        let name = name.to_ascii_lowercase();
        if !self.0.starts_with('.') {
            return name.contains(&self.0);
        }
        // An HTTP host may have a port, and a DNS name may end with the dot of the root.
        let host = match name.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
            _ => &name,
        };
        host.trim_end_matches('.').ends_with(self.0.trim_end_matches('.'))
    }
}

impl std::fmt::Display for NameFilter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leading_dot_selects_the_names_below_a_domain() {
        let host = |name: &str| Names { http_host: Some(name.to_owned().into()), ..Names::default() };
        for (filter, name, expected) in [
            (".example.com", "www.example.com", true),
            (".example.com", "a.b.Example.COM:8080", true),
            (".Example.com", "www.example.com.", true),
            (".example.com", "evil-example.com", false),
            (".example.com", "www.example.com.evil.org", false),
            (".example.com", "example.com", false),
            ("example.com", "evil-example.com", true),
            ("EXAMPLE", "www.example.com", true),
            ("example.org", "www.example.com", false),
        ] {
            assert_eq!(NameFilter::new(filter).matches(&host(name)), expected, "{filter} {name}");
        }
    }
}
