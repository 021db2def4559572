//! The built-in attacks.

use crate::attack::{Attack, AttackError};

/// The texts of the rules, each with the name of its file.
pub const RULES: [(&str, &str); 11] = [
    ("heartbleed.toml", include_str!("../attacks/heartbleed.toml")),
    ("log4shell.toml", include_str!("../attacks/log4shell.toml")),
    ("shellshock.toml", include_str!("../attacks/shellshock.toml")),
    ("eternalblue.toml", include_str!("../attacks/eternalblue.toml")),
    ("bluekeep.toml", include_str!("../attacks/bluekeep.toml")),
    ("petitpotam.toml", include_str!("../attacks/petitpotam.toml")),
    ("dns-tunnel.toml", include_str!("../attacks/dns-tunnel.toml")),
    ("self-signed-address.toml", include_str!("../attacks/self-signed-address.toml")),
    ("plaintext-credentials.toml", include_str!("../attacks/plaintext-credentials.toml")),
    ("port-knocking.toml", include_str!("../attacks/port-knocking.toml")),
    ("smb1.toml", include_str!("../attacks/smb1.toml")),
];

/// All rules.
///
/// # Errors
///
/// If one of them is broken, which a test refuses.
pub fn all() -> Result<Vec<Attack>, AttackError> {
    RULES.iter().map(|(_, text)| Attack::read(text)).collect()
}
