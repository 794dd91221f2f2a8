//! What a module is made of, for people who write one.

use wasmparser::{BinaryReaderError, ExternalKind, Parser, Payload, TypeRef};

use super::Digest;
use super::inspect::{
    self, MAX_BYTES, MAX_DATA_SEGMENTS, MAX_ELEMENT_SEGMENTS, MAX_ELEMENTS, MAX_EXPORTS, MAX_FUNCTION_BYTES,
    MAX_FUNCTIONS, MAX_GLOBALS, MAX_IMPORTS, MAX_TYPES,
};
use crate::error::ModuleError;
use crate::observe::BudgetUsage;
use crate::proxy_wasm::{Abi, GUEST_EXPORTS, PINGORA, PINGORA_EXPORTS};

/// One WebAssembly page, in bytes.
const PAGE: u64 = 64 << 10;

/// A module by its bytes, whether it can run here or not: [`Module::compile`](super::Module::compile) decides
/// that.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Inventory {
    /// SHA-256 of the bytes.
    pub digest: Digest,
    /// The ABI its marker stands for: of several, the first that Envoy knows.
    pub abi: Option<Abi>,
    /// Functions it imports, as `module.name`, in its own order.
    pub imports: Vec<String>,
    /// Functions it exports that are called here, in its own order.
    pub callbacks: Vec<String>,
    /// Memory it starts with, in bytes; none when it has none of its own.
    pub initial_memory: Option<u64>,
    /// What is limited before anything is compiled, and how much of it the module uses.
    pub sizes: Vec<BudgetUsage>,
}

// === impl Inventory ===

impl Inventory {
    /// Reads a module.
    ///
    /// # Errors
    ///
    /// [`ModuleError::Malformed`] when the bytes are no WebAssembly module, [`ModuleError::TooLarge`] when
    /// there are too many of them to look at.
    pub fn of(bytes: &[u8]) -> Result<Self, ModuleError> {
        inspect::check_size(bytes)?;
        inspect::check_magic(bytes)?;
        if Parser::is_component(bytes) {
            return Err(ModuleError::UnknownAbi { found: "a component".to_owned() });
        }
        let mut counts = Counts::default();
        let mut this = Self {
            digest: Digest::of(bytes),
            abi: None,
            imports: Vec::new(),
            callbacks: Vec::new(),
            initial_memory: None,
            sizes: Vec::new(),
        };
        for payload in Parser::new(0).parse_all(bytes) {
            payload.and_then(|payload| this.visit(payload, &mut counts)).map_err(inspect::malformed)?;
        }
        if this.abi.is_none() && this.imports.iter().any(|import| import.starts_with(&format!("{PINGORA}.")))
        {
            this.abi = Some(Abi::Pingora);
        }
        let known = if this.abi == Some(Abi::Pingora) { PINGORA_EXPORTS } else { GUEST_EXPORTS };
        this.callbacks.retain(|callback| known.iter().any(|(known, _)| known == callback));
        let size = BudgetUsage::new;
        this.sizes = vec![
            size("bytes", u64::try_from(bytes.len()).unwrap_or(u64::MAX), MAX_BYTES),
            size("types", counts.types, MAX_TYPES),
            size("functions", counts.functions, MAX_FUNCTIONS),
            size("bytes of the largest function", counts.largest_function, MAX_FUNCTION_BYTES),
            size("imports", counts.imports, MAX_IMPORTS),
            size("exports", counts.exports, MAX_EXPORTS),
            size("globals", counts.globals, MAX_GLOBALS),
            size("element segments", counts.element_segments, MAX_ELEMENT_SEGMENTS),
            size("elements", counts.elements, MAX_ELEMENTS),
            size("data segments", counts.data_segments, MAX_DATA_SEGMENTS),
        ];
        Ok(this)
    }

    fn visit(&mut self, payload: Payload<'_>, counts: &mut Counts) -> Result<(), BinaryReaderError> {
        match payload {
            Payload::TypeSection(section) => counts.types = section.count().into(),
            Payload::ImportSection(section) => {
                counts.imports = section.count().into();
                for import in section.into_imports() {
                    let import = import?;
                    if matches!(import.ty, TypeRef::Func(_)) {
                        self.imports.push(format!("{}.{}", import.module, import.name));
                    }
                }
            }
            Payload::MemorySection(section) => {
                for memory in section {
                    self.initial_memory = Some(memory?.initial.saturating_mul(PAGE));
                }
            }
            Payload::FunctionSection(section) => counts.functions = section.count().into(),
            Payload::GlobalSection(section) => counts.globals = section.count().into(),
            Payload::ElementSection(section) => {
                counts.element_segments = section.count().into();
                counts.elements = inspect::elements(section)?;
            }
            Payload::DataSection(section) => counts.data_segments = section.count().into(),
            Payload::CodeSectionEntry(body) => {
                let length = u64::try_from(body.range().len()).unwrap_or(u64::MAX);
                counts.largest_function = counts.largest_function.max(length);
            }
            Payload::ExportSection(section) => {
                counts.exports = section.count().into();
                for export in section {
                    let export = export?;
                    if export.kind == ExternalKind::Func {
                        self.abi = Abi::of_markers(self.abi.into_iter().chain(Abi::from_marker(export.name)));
                        if GUEST_EXPORTS.iter().chain(PINGORA_EXPORTS).any(|(known, _)| *known == export.name)
                        {
                            self.callbacks.push(export.name.to_owned());
                        }
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }
}

#[derive(Default)]
struct Counts {
    types: u64,
    functions: u64,
    largest_function: u64,
    imports: u64,
    exports: u64,
    globals: u64,
    element_segments: u64,
    elements: u64,
    data_segments: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn module_that_cannot_run_is_described_all_the_same() {
        let bytes = wat::parse_str(
            r#"(module
                (import "env" "proxy_log" (func (param i32 i32 i32) (result i32)))
                (import "env" "proxy_fly" (func))
                (memory (export "memory") 3)
                (func (export "proxy_on_tick") (param i32))
                (func (export "helper")))"#,
        );
        let inventory = Inventory::of(&bytes.unwrap()).unwrap();
        assert_eq!(inventory.abi, None);
        assert_eq!(inventory.imports, ["env.proxy_log", "env.proxy_fly"]);
        assert_eq!(inventory.callbacks, ["proxy_on_tick"]);
        assert_eq!(inventory.initial_memory, Some(3 << 16));
        let functions = inventory.sizes.iter().find(|size| size.what == "functions").unwrap();
        assert_eq!((functions.used, functions.limit), (2, 20_000));
    }

    #[test]
    fn bytes_that_are_no_module_are_told() {
        assert!(matches!(Inventory::of(b"#!/bin/sh\n"), Err(ModuleError::Malformed { .. })));
    }
}
