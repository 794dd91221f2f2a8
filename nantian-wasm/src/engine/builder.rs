//! What an embedder says about an engine.

use std::fmt;
use std::num::{NonZeroU32, NonZeroUsize};

use super::{Engine, EngineThreads};
use crate::error::{Cause, EngineError};
use crate::held_bodies::BodyMemory;

/// Makes an [`Engine`] with other than default settings.
#[must_use]
pub struct EngineBuilder {
    pub(super) max_instances: NonZeroU32,
    pub(super) max_memory: usize,
    pub(super) max_memory_of_space: usize,
    pub(super) body_memory: Option<BodyMemory>,
}

// === impl EngineBuilder ===

impl EngineBuilder {
    /// Sets how many instances of all plugins there are together. While a plugin is replaced, its successor's
    /// instances live beside its own.
    ///
    /// Each is reserved 4 GiB of address space, of which it has as much memory as its guest uses.
    ///
    /// Range: 1 and upwards; what cannot be reserved is not ([`Engine::allocation`]), with 47 bits of
    /// addresses 30 000 and more. Default: 128 for each thread the machine runs at once, at least 1024, at
    /// most 4096.
    pub fn max_instances(mut self, most: NonZeroU32) -> Self {
        self.max_instances = most;
        self
    }

    /// Sets how much linear memory all instances of all plugins have together, beside what each may have
    /// ([`Sandbox::max_memory`](crate::Sandbox::max_memory)). What one starts with counts, whether the guest
    /// has touched it or not. Where there is no more, a guest's `memory.grow` fails, and a plugin does not
    /// start ([`PluginError::NoMemory`](crate::PluginError::NoMemory)). The last quarter is for instances of
    /// at most 16 MiB.
    ///
    /// For a plugin to start its first instance needs room. Others start as long as they leave a third of
    /// it, or of what their [space](Self::max_memory_of_space) has, and room for one more of the same size,
    /// so that a plugin can be replaced while it serves.
    ///
    /// Unit: bytes. Range: any. Default: no limit.
    pub fn max_memory(mut self, bytes: usize) -> Self {
        self.max_memory = bytes;
        self
    }

    /// Sets how much of the linear memory of [all plugins](Self::max_memory) those of a
    /// [`SharedSpace`](crate::SharedSpace) have together, so that no tenant takes all of it: guests keep what
    /// they have grown to. A plugin that is in nobody's space has as much. Where this is less than all, the
    /// plugins of a space have half of all call-outs, too.
    ///
    /// Unit: bytes. Range: any. Default: no limit.
    pub fn max_memory_of_space(mut self, bytes: usize) -> Self {
        self.max_memory_of_space = bytes;
        self
    }

    /// Has plugins hold bodies back in memory that the embedder counts: each body has a limit
    /// ([`Sandbox::max_buffered_body`](crate::Sandbox::max_buffered_body)), and clients may send any number
    /// of them, as slowly as they like. Default: nobody counts.
    ///
    /// `begin` gives a stream, or a body of it, a share: a function that is to hold at least so many bytes
    /// from now on, until it is dropped. It is dropped when what plugins have let go has been taken, which
    /// one who drives a [`StreamContext`](crate::StreamContext) himself says by its next step. Where a share
    /// has no room, it goes on to hold what it held and tells why the stream fails, under either failure
    /// policy: [`Cause::NoMemory`], or [`Cause::BodyTooLarge`] if there never will be room.
    pub fn body_memory<H>(mut self, begin: impl Fn() -> H + Send + Sync + 'static) -> Self
    where
        H: Fn(u64) -> Result<(), Cause> + Send + Sync + 'static,
    {
        self.body_memory = Some(BodyMemory::new(begin));
        self
    }

    /// The engine, and what has to run beside it.
    ///
    /// # Errors
    ///
    /// [`EngineError`] when the machine cannot run compiled WebAssembly. That it cannot reserve places for
    /// instances is no error: [`Engine::allocation`] tells.
    pub fn build(self) -> Result<(Engine, EngineThreads), EngineError> {
        let engine = Engine::of(self)?;
        let threads = EngineThreads::new(&engine);
        Ok((engine, threads))
    }
}

impl Default for EngineBuilder {
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let instances = threads.saturating_mul(128).clamp(1024, 4096);
        let max_instances =
            u32::try_from(instances).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN);
        Self { max_instances, max_memory: usize::MAX, max_memory_of_space: usize::MAX, body_memory: None }
    }
}

impl fmt::Debug for EngineBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EngineBuilder")
            .field("max_instances", &self.max_instances)
            .field("max_memory", &self.max_memory)
            .field("max_memory_of_space", &self.max_memory_of_space)
            .field("body_memory", &self.body_memory.is_some())
            .finish()
    }
}
