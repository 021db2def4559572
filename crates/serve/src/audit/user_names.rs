//! The names of users.

use serde_json::{Map, Value};

const PASSWD: &str = "/etc/passwd";
/// The files that are read here.
pub(super) const FILES: &[&str] = &[PASSWD, "/proc"];

/// The login uid of a process that nobody logged in for.
const NOBODY: u32 = u32::MAX;

/// The users of this host at the start: after privileges are dropped the file may be out of reach.
#[derive(Debug)]
pub(super) struct UserNames {
    passwd: String,
}

impl UserNames {
    pub(super) fn read() -> Self {
        Self { passwd: passwd().unwrap_or_default() }
    }

    /// Adds the name of the user, and the user who logged in, which `sudo` does not change.
    pub(super) fn describe(&self, who: &mut Map<String, Value>, uid: u32, pid: Option<i32>) {
        // A user who was added since the start is only in the file.
        let now = passwd();
        let name = |uid| now.as_deref().and_then(|text| find(text, uid)).or_else(|| find(&self.passwd, uid));
        if let Some(user) = name(uid) {
            who.insert("user".to_owned(), user.into());
        }
        if let Some(login) = pid.and_then(login).filter(|&login| login != uid) {
            who.insert("login_uid".to_owned(), login.into());
            if let Some(user) = name(login) {
                who.insert("login_user".to_owned(), user.into());
            }
        }
    }
}

fn passwd() -> Option<String> {
    Some(String::from_utf8_lossy(&std::fs::read(PASSWD).ok()?).into_owned())
}

fn find(passwd: &str, uid: u32) -> Option<&str> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then_some(name)
    })
}

/// The user who logged in, where the kernel keeps account of it.
fn login(pid: i32) -> Option<u32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/loginuid")).ok()?;
    text.trim().parse().ok().filter(|&uid| uid != NOBODY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_number() {
        let passwd = "root:x:0:0::/root:/bin/sh\nbroken\nalice:x:1000:1000:::\n";
        assert_eq!((find(passwd, 1000), find(passwd, 0), find(passwd, 7)), (Some("alice"), Some("root"), None));
    }
}
