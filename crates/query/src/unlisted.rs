//! Sessions that a listing lacks.

use super::explain::undecided;
use base::counted::counted;

/// Sessions that are not listed, although a user may expect them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UnlistedSessions {
    /// Sessions that may match, but the packets that would decide were evicted.
    pub undecided: u64,
    /// Sessions whose addresses and ports match, but in packets that the expression does not look into.
    pub hidden: u64,
}

impl UnlistedSessions {
    /// Describes these sessions; `None` if there are none.
    pub fn sentence(self) -> Option<String> {
        let undecided = (self.undecided > 0).then(|| undecided(self.undecided));
        let hidden = (self.hidden > 0).then(|| {
            format!(
                "{} these addresses and ports in packets that the expression does not look into (tags, tunnels, extension \
                 headers): --address, --port or --flow finds them",
                counted(self.hidden, "session has", "sessions have")
            )
        });
        let parts: Vec<String> = [undecided, hidden].into_iter().flatten().collect();
        (!parts.is_empty()).then(|| parts.join("; "))
    }
}
