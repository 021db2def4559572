//! Container and unit, from the name of a cgroup (cgroups(7); systemd, Docker, containerd, CRI-O, Podman, Kubernetes).

/// Number of shown characters of a container's id, as in `docker ps`.
const ID_CHARS: usize = 12;
/// Minimum length of a hexadecimal name that counts as a container's id.
const ID_CHARS_MIN: usize = 32;

/// Container and unit of the processes in a cgroup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cgroup {
    /// The container: runtime and the start of the id, as in `docker:0123456789ab`.
    pub container: Option<String>,
    /// The uid of the Kubernetes pod.
    pub pod: Option<String>,
    /// The systemd unit.
    pub unit: Option<String>,
}

impl Cgroup {
    /// Reads the text of `/proc/PID/cgroup`.
    pub fn read(text: &str) -> Self {
        let (unified, others): (Vec<&str>, Vec<&str>) = text.lines().partition(|line| line.starts_with("0:"));
        let paths = unified.into_iter().chain(others).filter_map(|line| line.splitn(3, ':').nth(2));
        // The unified hierarchy has the number 0; in a hybrid system, another hierarchy may name the container.
        let mut found = Self::default();
        for path in paths {
            found = found.or(Self::of_path(path));
        }
        found
    }

    /// What another hierarchy names is taken from it where this one names none.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            container: self.container.or(other.container),
            pod: self.pod.or(other.pod),
            unit: self.unit.or(other.unit),
        }
    }

    /// Reads the path of one cgroup. If containers are nested, the innermost counts.
    pub fn of_path(path: &str) -> Self {
        let mut cgroup = Self::default();
        let mut parent = "";
        for part in path.split('/').filter(|part| !part.is_empty()) {
            let name = part.strip_suffix(".scope").unwrap_or(part);
            let scoped = name.rsplit_once('-').filter(|(_, id)| is_id(id));
            // containerd without systemd: `unit:cri-containerd:ID`.
            let coloned = name.rsplit_once(':').filter(|(_, id)| is_id(id));
            if let Some((before, id)) = scoped.or(coloned) {
                let runtime = before.rsplit([':', '/']).next().unwrap_or(before);
                cgroup.container = Some(format!("{}:{}", runtime_name(runtime), &id[..ID_CHARS]));
            } else if is_id(name) {
                cgroup.container = Some(format!("{}:{}", runtime_name(parent), &name[..ID_CHARS]));
            }
            cgroup.pod = pod(name).or(cgroup.pod);
            if [".service", ".scope", ".socket"].iter().any(|kind| part.ends_with(kind)) {
                cgroup.unit = Some(part.to_owned());
            }
            parent = part;
        }
        cgroup
    }
}

fn is_id(text: &str) -> bool {
    text.len() >= ID_CHARS_MIN && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The runtime's usual name, from the part of the path before the id.
fn runtime_name(part: &str) -> &str {
    match part {
        "libpod" | "libpod_parent" => "podman",
        "cri-containerd" | "nerdctl" => "containerd",
        "crio" => "cri-o",
        "docker" => "docker",
        part if part.starts_with("kubepods") || pod(part).is_some() || part.starts_with("pod") => "kubernetes",
        part if !part.is_empty() && part.len() <= 32 => part,
        _ => "container",
    }
}

/// The uid of a pod: `kubepods-burstable-pod0a1b_….slice` or `pod0a1b-…`.
fn pod(part: &str) -> Option<String> {
    let name = part.strip_suffix(".slice").unwrap_or(part);
    let uid = name.strip_prefix("pod").or_else(|| Some(name.split_once("-pod")?.1))?.replace('_', "-");
    let is_uid = uid.len() >= 32 && uid.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    is_uid.then_some(uid)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn the_usual_names_are_read() {
        let pod = "0a1b2c3d-0000-1111-2222-333344445555";
        let slice = format!("kubepods-burstable-pod{}.slice", pod.replace('-', "_"));
        for (path, container, with_pod, unit) in [
            (format!("/system.slice/docker-{ID}.scope"), Some("docker:0123456789ab"), false, true),
            (format!("/docker/{ID}"), Some("docker:0123456789ab"), false, false),
            (format!("/machine.slice/libpod-{ID}.scope/container"), Some("podman:0123456789ab"), false, true),
            (format!("/kubepods.slice/{slice}/cri-containerd-{ID}.scope"), Some("containerd:0123456789ab"), true, true),
            (format!("/kubepods.slice/{slice}/crio-{ID}.scope"), Some("cri-o:0123456789ab"), true, true),
            (format!("/kubepods/burstable/pod{pod}/{ID}"), Some("kubernetes:0123456789ab"), true, false),
            (
                format!("/system.slice/containerd.service/{slice}:cri-containerd:{ID}"),
                Some("containerd:0123456789ab"),
                false,
                true,
            ),
            ("/system.slice/ssh.service".to_owned(), None, false, true),
            ("/user.slice/user-1000.slice/session-3.scope".to_owned(), None, false, true),
            ("/".to_owned(), None, false, false),
            ("/kubepods.slice/podx.slice".to_owned(), None, false, false),
        ] {
            let cgroup = Cgroup::of_path(&path);
            assert_eq!(cgroup.container.as_deref(), container, "{path}");
            assert_eq!(cgroup.pod.as_deref(), with_pod.then_some(pod), "{path}");
            assert_eq!(cgroup.unit.is_some(), unit, "{path}: {:?}", cgroup.unit);
        }
        let hybrid = format!("12:cpu:/\n1:name=systemd:/docker/{ID}\n0::/system.slice/x.service\n");
        let cgroup = Cgroup::read(&hybrid);
        assert_eq!(
            (cgroup.container.as_deref(), cgroup.unit.as_deref()),
            (Some("docker:0123456789ab"), Some("x.service"))
        );
    }
}
