//! How much memory the process may have.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The bytes that the process may have: as many as its cgroups let it, at most what the machine has. `None`
/// where the system does not tell.
pub(crate) fn memory() -> Option<u64> {
    least(|file| fs::read_to_string(file).ok())
}

/// The least that is told in what `read` finds.
fn least(read: impl Fn(&Path) -> Option<String>) -> Option<u64> {
    let groups = read(Path::new("/proc/self/cgroup")).unwrap_or_default();
    let files = groups.lines().flat_map(limit_files);
    let limits = files.filter_map(|file| read(file.as_path())?.trim().parse::<u64>().ok());
    let machine = read(Path::new("/proc/meminfo")).and_then(|text| total(&text));
    limits.chain(machine).min()
}

/// The files with the limits of a cgroup and of those around it, of version 2 or, if it is one of memory, of
/// version 1, by its line in `/proc/self/cgroup`.
fn limit_files(line: &str) -> Vec<PathBuf> {
    let mut fields = line.splitn(3, ':').skip(1);
    let (Some(controllers), Some(group)) = (fields.next(), fields.next()) else { return Vec::new() };
    let (root, file) = match controllers {
        "" => ("/sys/fs/cgroup", "memory.max"),
        "memory" => ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
        _ => return Vec::new(),
    };
    // A container may be told a path of its machine, which is not there, and has its own limit at the root.
    let groups = Path::new(group.trim_start_matches('/')).ancestors();
    groups.map(|group| Path::new(root).join(group).join(file)).collect()
}

/// What the machine has, by its `/proc/meminfo`, in which a kB is 1024 bytes.
fn total(text: &str) -> Option<u64> {
    let size = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    size.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACHINE: (&str, &str) = ("/proc/meminfo", "MemTotal:        4096 kB\nMemFree:         1024 kB\n");

    fn least_of(files: &[(&str, &str)]) -> Option<u64> {
        least(|path| {
            let found = files.iter().find(|(name, _)| Path::new(name) == path);
            found.map(|(_, text)| (*text).to_owned())
        })
    }

    #[test]
    fn process_may_have_what_its_cgroup_and_those_around_it_let_it() {
        let group = ("/proc/self/cgroup", "0::/pods.slice/gateway.scope\n");
        let own = ("/sys/fs/cgroup/pods.slice/gateway.scope/memory.max", "2097152\n");
        let around = ("/sys/fs/cgroup/pods.slice/memory.max", "1048576\n");
        let unlimited = ("/sys/fs/cgroup/pods.slice/memory.max", "max\n");
        assert_eq!(least_of(&[MACHINE, group, own]), Some(2 << 20));
        assert_eq!(least_of(&[MACHINE, group, own, around]), Some(1 << 20));
        assert_eq!(least_of(&[MACHINE, group, unlimited]), Some(4 << 20));
        let container =
            [MACHINE, ("/proc/self/cgroup", "0::/\n"), ("/sys/fs/cgroup/memory.max", "3145728\n")];
        assert_eq!(least_of(&container), Some(3 << 20));
    }

    #[test]
    fn cgroups_of_version_1_are_known_also_where_their_path_is_that_of_the_machine() {
        let group = ("/proc/self/cgroup", "5:memory:/docker/0a\n4:cpu,cpuacct:/docker/0a\n0::/\n");
        let own = ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "2097152\n");
        let unlimited = ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(least_of(&[MACHINE, group, own]), Some(2 << 20));
        assert_eq!(least_of(&[MACHINE, group, unlimited]), Some(4 << 20));
    }

    #[test]
    fn nothing_is_known_where_the_system_does_not_tell() {
        assert_eq!(least_of(&[]), None);
    }
}
