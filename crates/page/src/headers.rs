//! Headers of the page's files. A browser runs nothing but these files, and asks nobody but the recorder.

/// The policy of the page: scripts and styles from its files alone, no inline code, and no text becomes code.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; \
    worker-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; \
    trusted-types retrocap-dissector";
/// The policy of the worker that dissects packets, which alone may make code from text: the generated code of the dissector
/// needs that. It can ask the recorder for files, but has no token.
const DISSECTOR_POLICY: &str =
    "default-src 'none'; script-src 'self' 'unsafe-eval' 'wasm-unsafe-eval'; connect-src 'self'";

/// What a file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The page.
    Page,
    /// The worker that dissects packets, and what it loads.
    Dissector,
}

/// The headers of every file.
pub fn headers(purpose: Purpose) -> [(&'static str, &'static str); 7] {
    let policy = match purpose {
        Purpose::Page => PAGE_POLICY,
        Purpose::Dissector => DISSECTOR_POLICY,
    };
    [
        ("content-security-policy", policy),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
        ("permissions-policy", "camera=(), microphone=(), geolocation=(), usb=(), clipboard-write=(self)"),
        ("cache-control", "no-cache"),
    ]
}
