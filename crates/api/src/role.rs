//! Roles: what a client may ask for.

use std::fmt;
use std::str::FromStr;

/// What a client may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Status, health, metrics and the description of the API.
    Status,
    /// Sessions; implies [`Status`](Self::Status).
    Flows,
    /// Packets; implies [`Flows`](Self::Flows).
    Packets,
    /// To list, make and remove pins; implies [`Status`](Self::Status).
    Pin,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 4] = [Self::Status, Self::Flows, Self::Packets, Self::Pin];

    /// The word that certificates and the configuration use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Flows => "flows",
            Self::Packets => "packets",
            Self::Pin => "pin",
        }
    }

    /// One bit for each role, with those that it implies.
    fn with_implied(self) -> u8 {
        match self {
            Self::Status => 0b0001,
            Self::Flows => 0b0011,
            Self::Packets => 0b0111,
            Self::Pin => 0b1001,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let role = Self::ALL.into_iter().find(|role| role.name() == text);
        role.ok_or_else(|| format!("there is no role {text:?}: try status, flows, packets or pin"))
    }
}

/// A set of roles, closed under implication.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Roles(u8);

impl Roles {
    /// Every role.
    pub const ALL: Self = Self(0b1111);
    /// The roles that change nothing.
    pub const READ: Self = Self(0b0111);

    /// Whether the set contains `role`.
    pub fn include(self, role: Role) -> bool {
        self.include_all(Self(role.with_implied()))
    }

    /// Whether the set contains all of `others`.
    pub fn include_all(self, others: Self) -> bool {
        self.0 & others.0 == others.0
    }

    /// Whether the set is empty.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The roles as words.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Role::ALL.into_iter().filter(move |&role| self.include(role)).map(Role::name)
    }
}

impl FromIterator<Role> for Roles {
    fn from_iter<T: IntoIterator<Item = Role>>(roles: T) -> Self {
        Self(roles.into_iter().fold(0, |bits, role| bits | role.with_implied()))
    }
}

impl fmt::Display for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("no role");
        }
        f.write_str(&self.names().collect::<Vec<_>>().join(", "))
    }
}

impl fmt::Debug for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_implies_what_can_be_seen_with_it() {
        let roles = |text: &str| text.split(' ').map(|role| role.parse().unwrap()).collect::<Roles>().to_string();
        for (given, has) in [
            ("status", "status"),
            ("flows", "status, flows"),
            ("packets", "status, flows, packets"),
            ("pin", "status, pin"),
            ("pin flows", "status, flows, pin"),
        ] {
            assert_eq!(roles(given), has);
        }
        assert_eq!((Roles::default().to_string().as_str(), Roles::ALL.include(Role::Pin)), ("no role", true));
        assert!(!Roles::READ.include(Role::Pin));
        assert!("admin".parse::<Role>().unwrap_err().contains("try status, flows"));
    }
}
