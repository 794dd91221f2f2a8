//! WASI preview 1 without an operating system behind it: clocks, randomness, and standard output as logs.
//!
//! Everything else links and answers the errno of a system that has nothing to give.

use std::time::SystemTime;

use wasmtime::{Caller, Linker};

use super::abi::Status;
use super::control::{nanos, unix_nanos};
use super::memory::{HostCallError, put, put_u32, put_u64, slice, view};
use super::state::State;
use crate::sandbox::HostTrap;

/// Both names the functions are imported under.
pub(super) const MODULES: [&str; 2] = ["wasi_snapshot_preview1", "wasi_unstable"];

const SUCCESS: u32 = 0;
const BADF: u32 = 8;
const FAULT: u32 = 21;
const INVAL: u32 = 28;
const NOENT: u32 = 44;
const NOSYS: u32 = 52;
const NOTSUP: u32 = 58;
pub(super) const NOTCAPABLE: u32 = 76;

/// Ids of clocks.
const REALTIME: u32 = 0;
const MONOTONIC: u32 = 1;

/// Most random bytes given in one call.
const MAX_RANDOM: usize = 64 << 10;
/// Most buffers gathered by one write.
const MAX_VECTORS: u32 = 64;

/// Functions that answer one errno, whatever their arguments; linked with the type a module declares.
pub(super) const INERT: &[(&str, u32)] = &[
    ("args_get", SUCCESS),
    ("fd_advise", BADF),
    ("fd_allocate", BADF),
    ("fd_close", BADF),
    ("fd_datasync", BADF),
    ("fd_fdstat_set_flags", SUCCESS),
    ("fd_fdstat_set_rights", NOTCAPABLE),
    ("fd_filestat_get", BADF),
    ("fd_filestat_set_size", BADF),
    ("fd_filestat_set_times", BADF),
    ("fd_pread", BADF),
    ("fd_prestat_get", BADF),
    ("fd_prestat_dir_name", BADF),
    ("fd_pwrite", BADF),
    ("fd_read", BADF),
    ("fd_readdir", BADF),
    ("fd_renumber", BADF),
    ("fd_seek", BADF),
    ("fd_sync", BADF),
    ("fd_tell", BADF),
    ("path_create_directory", NOTCAPABLE),
    ("path_filestat_get", NOENT),
    ("path_filestat_set_times", NOENT),
    ("path_link", NOTCAPABLE),
    ("path_open", NOENT),
    ("path_readlink", NOENT),
    ("path_remove_directory", NOENT),
    ("path_rename", NOTCAPABLE),
    ("path_symlink", NOTCAPABLE),
    ("path_unlink_file", NOENT),
    ("proc_raise", NOSYS),
    ("sched_yield", SUCCESS),
    ("sock_accept", NOSYS),
    ("sock_recv", NOSYS),
    ("sock_send", NOSYS),
    ("sock_shutdown", NOSYS),
];

/// How a call ends when it does not end well.
enum WasiError {
    /// The guest gets this.
    Errno(u32),
    /// The guest gets nothing: it ends here.
    Trap(wasmtime::Error),
}

/// Whatever is wrong with a pointer.
impl From<Status> for WasiError {
    fn from(_: Status) -> Self {
        Self::Errno(FAULT)
    }
}

impl From<HostCallError> for WasiError {
    fn from(error: HostCallError) -> Self {
        match error {
            HostCallError::Status(status) => status.into(),
            HostCallError::Trap(error) => Self::Trap(error),
        }
    }
}

/// Links what does something.
pub(super) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    type Guest<'a> = Caller<'a, State>;
    for module in MODULES {
        linker.func_wrap(module, "args_sizes_get", |mut c: Guest<'_>, count: u32, bytes: u32| {
            answer(&mut c, "args_sizes_get", |c| no_strings(c, count, bytes))
        })?;
        linker.func_wrap(module, "environ_sizes_get", |mut c: Guest<'_>, count: u32, bytes: u32| {
            answer(&mut c, "environ_sizes_get", |c| environ_sizes(c, count, bytes))
        })?;
        linker.func_wrap(module, "environ_get", |mut c: Guest<'_>, pointers: u32, out: u32| {
            answer(&mut c, "environ_get", |c| environ(c, pointers, out))
        })?;
        linker.func_wrap(module, "clock_res_get", |mut c: Guest<'_>, clock: u32, out: u32| {
            answer(&mut c, "clock_res_get", |c| clock_resolution(c, clock, out))
        })?;
        linker.func_wrap(module, "clock_time_get", |mut c: Guest<'_>, clock: u32, _: u64, out: u32| {
            answer(&mut c, "clock_time_get", |c| clock_time(c, clock, out))
        })?;
        linker.func_wrap(module, "fd_fdstat_get", |mut c: Guest<'_>, fd: u32, out: u32| {
            answer(&mut c, "fd_fdstat_get", |c| fdstat(c, fd, out))
        })?;
        linker.func_wrap(
            module,
            "fd_write",
            |mut c: Guest<'_>, fd: u32, vectors: u32, count: u32, written: u32| {
                answer(&mut c, "fd_write", |c| write(c, fd, vectors, count, written))
            },
        )?;
        linker.func_wrap(module, "random_get", |mut c: Guest<'_>, out: u32, length: u32| {
            answer(&mut c, "random_get", |c| random(c, out, length))
        })?;
        // A plugin must not sleep: every wait is over at once, and nothing has happened.
        linker.func_wrap(
            module,
            "poll_oneoff",
            |mut c: Guest<'_>, _: u32, _: u32, _: u32, events: u32| {
                answer(&mut c, "poll_oneoff", |c| Ok(put_u32(c, events, 0)?))
            },
        )?;
        linker.func_wrap(module, "proc_exit", |code: u32| -> wasmtime::Result<()> {
            Err(wasmtime::Error::new(HostTrap::Exit(code)))
        })?;
    }
    Ok(())
}

/// Calls a function that the plugin may call.
fn answer<'a>(
    caller: &mut Caller<'a, State>,
    name: &str,
    call: impl FnOnce(&mut Caller<'a, State>) -> Result<(), WasiError>,
) -> wasmtime::Result<u32> {
    if !caller.data().plugin.capabilities.allow(name) {
        return Ok(NOTCAPABLE);
    }
    match call(caller) {
        Ok(()) => Ok(SUCCESS),
        Err(WasiError::Errno(errno)) => Ok(errno),
        Err(WasiError::Trap(error)) => Err(error),
    }
}

fn no_strings(caller: &mut Caller<'_, State>, count: u32, bytes: u32) -> Result<(), WasiError> {
    put_u32(caller, count, 0)?;
    Ok(put_u32(caller, bytes, 0)?)
}

fn environ_sizes(caller: &mut Caller<'_, State>, count: u32, bytes: u32) -> Result<(), WasiError> {
    let environment = &caller.data().plugin.environment;
    let number = u32::try_from(environment.len()).unwrap_or(u32::MAX);
    let size = environment.iter().map(|(name, value)| name.len() + value.len() + 2).sum::<usize>();
    put_u32(caller, count, number)?;
    Ok(put_u32(caller, bytes, u32::try_from(size).unwrap_or(u32::MAX))?)
}

fn environ(caller: &mut Caller<'_, State>, mut pointers: u32, mut out: u32) -> Result<(), WasiError> {
    let plugin = std::sync::Arc::clone(&caller.data().plugin);
    for (name, value) in &plugin.environment {
        let text = format!("{name}={value}\0");
        put_u32(caller, pointers, out)?;
        put(view(caller)?.0, out, text.as_bytes())?;
        pointers = pointers.wrapping_add(4);
        out = out.wrapping_add(u32::try_from(text.len()).unwrap_or(u32::MAX));
    }
    Ok(())
}

fn clock_resolution(caller: &mut Caller<'_, State>, clock: u32, out: u32) -> Result<(), WasiError> {
    if clock > 1 {
        return Err(WasiError::Errno(INVAL));
    }
    Ok(put_u64(caller, out, 1)?)
}

/// The clock of wall time shows what `proxy_get_current_time_nanoseconds` shows.
fn clock_time(caller: &mut Caller<'_, State>, clock: u32, out: u32) -> Result<(), WasiError> {
    let time = match clock {
        REALTIME => unix_nanos(SystemTime::now()),
        MONOTONIC => nanos(caller.data().plugin.clock.monotonic()),
        _ => return Err(WasiError::Errno(NOTSUP)),
    };
    Ok(put_u64(caller, out, time)?)
}

/// Standard streams are character devices that can be written to.
fn fdstat(caller: &mut Caller<'_, State>, fd: u32, out: u32) -> Result<(), WasiError> {
    const CHARACTER_DEVICE: u8 = 2;
    const RIGHT_FD_WRITE: u64 = 1 << 6;
    if fd > 2 {
        return Err(WasiError::Errno(BADF));
    }
    let mut stat = [0; 24];
    if let Some((kind, rest)) = stat.split_first_mut() {
        *kind = CHARACTER_DEVICE;
        if let Some(rights) = rest.get_mut(7..15) {
            rights.copy_from_slice(&RIGHT_FD_WRITE.to_le_bytes());
        }
    }
    Ok(put(view(caller)?.0, out, &stat)?)
}

/// Standard output logs at info, standard error at error.
fn write(
    caller: &mut Caller<'_, State>,
    fd: u32,
    vectors: u32,
    count: u32,
    written: u32,
) -> Result<(), WasiError> {
    let level = match fd {
        1 => 2,
        2 => 4,
        _ => return Err(WasiError::Errno(BADF)),
    };
    if count > MAX_VECTORS {
        return Err(WasiError::Errno(INVAL));
    }
    let line = gather(caller, vectors, count)?;
    // As in Envoy.
    if !line.is_empty() {
        caller.data_mut().log(level, line.strip_suffix(b"\n").unwrap_or(&line));
    }
    Ok(put_u32(caller, written, u32::try_from(line.len()).unwrap_or(u32::MAX))?)
}

fn gather(caller: &mut Caller<'_, State>, vectors: u32, count: u32) -> Result<Vec<u8>, HostCallError> {
    let (memory, state) = view(caller)?;
    let mut line = Vec::new();
    for vector in slice(memory, vectors, count.saturating_mul(8))?.chunks_exact(8) {
        let Some((pointer, rest)) = vector.split_first_chunk::<4>() else { continue };
        let Some((length, _)) = rest.split_first_chunk::<4>() else { continue };
        let bytes = slice(memory, u32::from_le_bytes(*pointer), u32::from_le_bytes(*length))?;
        state.charge_from_guest(bytes.len())?;
        line.extend_from_slice(bytes);
    }
    Ok(line)
}

fn random(caller: &mut Caller<'_, State>, out: u32, length: u32) -> Result<(), WasiError> {
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if length > MAX_RANDOM {
        return Err(WasiError::Errno(INVAL));
    }
    let mut bytes = vec![0; length];
    if getrandom::fill(&mut bytes).is_err() {
        return Err(WasiError::Errno(NOSYS));
    }
    Ok(put(view(caller)?.0, out, &bytes)?)
}
