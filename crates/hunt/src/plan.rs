//! The patterns of a rule.

use crate::attack::Attack;
use crate::matched::Kind;
use crate::patterns::{Builder, Pattern, PatternError};

/// Adds the patterns of a rule.
///
/// # Errors
///
/// If one of them cannot be read.
pub fn patterns(attack: &Attack, builder: &mut Builder) -> Result<(), PatternError> {
    for sign in &attack.matches {
        let named = Pattern {
            rule: attack.name.clone(),
            kind: Kind::Attack,
            stage: sign.stage.clone(),
            sender: sign.sender.map(|side| side.sender()),
            app: sign.app.clone(),
        };
        if let Some(text) = &sign.text {
            builder.literal(named, text.as_bytes())?;
        } else if let Some(hex) = &sign.bytes {
            builder.hex(named, hex)?;
        } else if let Some(regex) = &sign.regex {
            builder.regex(named, regex)?;
        }
    }
    Ok(())
}
