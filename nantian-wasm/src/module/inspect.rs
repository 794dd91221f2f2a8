//! Judges a module by its bytes, before any of it is compiled.

use wasmparser::{
    BinaryReaderError, CompositeInnerType, Element, ElementItems, ElementSectionReader, ExternalKind,
    FuncType, Parser, Payload, TypeRef, TypeSectionReader, ValType,
};

use crate::error::ModuleError;
use crate::proxy_wasm::{
    Abi, GET_BODY, GUEST_EXPORTS, ON_REQUEST, ON_RESPONSE, ON_STREAM_CHUNK, PINGORA, PINGORA_EXPORTS,
};
use crate::sandbox::MAX_TABLE_ELEMENTS;
use crate::stream::Direction;

/// Largest module accepted, in bytes.
pub(super) const MAX_BYTES: u64 = 32 << 20;
/// Largest single function body accepted, in bytes: compile time grows faster than the body.
pub(super) const MAX_FUNCTION_BYTES: u64 = 256 << 10;
/// Most functions accepted; real plugins have up to 4 000.
pub(super) const MAX_FUNCTIONS: u64 = 20_000;
pub(super) const MAX_IMPORTS: u64 = 256;
pub(super) const MAX_EXPORTS: u64 = 1_000;
pub(super) const MAX_GLOBALS: u64 = 1_000;
/// Most tables accepted: no toolchain makes a second one.
pub(super) const MAX_TABLES: u64 = 1;
/// Most data segments accepted; a real Go plugin has 69 019.
pub(super) const MAX_DATA_SEGMENTS: u64 = 100_000;
/// Most function types accepted; real plugins have some hundreds.
pub(super) const MAX_TYPES: u64 = 10_000;
/// Most element segments accepted, and elements of all of them; real plugins have one, of as many as their
/// table.
pub(super) const MAX_ELEMENT_SEGMENTS: u64 = 10_000;
pub(super) const MAX_ELEMENTS: u64 = 100_000;

/// How many bytes are shown of what is no module.
const SHOWN_BYTES: usize = 24;

/// The byte that begins a group of types that refer to each other, which may be larger than the number of
/// groups tells.
const GROUP: u8 = 0x4e;

/// Callbacks that never run once a request has left.
const RUN_BEFORE: [&str; 5] = [
    "proxy_on_memory_allocate",
    "proxy_on_context_create",
    "proxy_on_vm_start",
    "proxy_on_configure",
    "proxy_on_request_headers",
];

/// What the bytes say about the guest.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Traits {
    pub(crate) abi: Abi,
    /// The guest can look at the exchange: it imports header maps or properties.
    pub(crate) reads_exchange: bool,
    /// The guest can look at properties.
    pub(crate) reads_properties: bool,
    /// The guest has something that runs after the request has left.
    pub(crate) outlives_request: bool,
    /// The guest is called for something else than its streams, and can do something to them then.
    pub(crate) may_interrupt: bool,
    /// Callbacks that the guest has.
    has_request_body: bool,
    has_request_trailers: bool,
    has_response_body: bool,
    has_response_trailers: bool,
    /// The guest's hooks look at bodies ([`Abi::Pingora`]).
    pub(crate) reads_body: bool,
}

/// Types and functions seen so far, and the verdicts they lead to.
#[derive(Default)]
struct Survey<'a> {
    /// The module.
    bytes: &'a [u8],
    /// Function types by index; other types leave a gap.
    types: Vec<Option<FuncType>>,
    /// Type index of each function, imported ones first.
    functions: Vec<u32>,
    markers: Vec<Abi>,
    has_initialize: bool,
    main: Option<u32>,
    has_memory: bool,
    reads_exchange: bool,
    reads_properties: bool,
    outlives_request: bool,
    may_interrupt: bool,
    has_request_body: bool,
    has_request_trailers: bool,
    has_response_body: bool,
    has_response_trailers: bool,
    /// It imports something from [`PINGORA`].
    is_pingora: bool,
    reads_body: bool,
    /// Exports that mean something in that ABI, with their functions.
    hooks: Vec<(&'static str, u32)>,
}

/// Refuses a module that is too large to hash.
pub(crate) fn check_size(bytes: &[u8]) -> Result<(), ModuleError> {
    limited("bytes", bytes.len(), MAX_BYTES)
}

/// Refuses what no module begins with, and says what it begins with instead: the page of a login, or the text
/// format.
pub(super) fn check_magic(bytes: &[u8]) -> Result<(), ModuleError> {
    if bytes.starts_with(b"\0asm") {
        return Ok(());
    }
    let reason = match bytes.get(..SHOWN_BYTES).unwrap_or(bytes) {
        [] => "it is empty".to_owned(),
        beginning => format!("it begins with \"{}\"", beginning.escape_ascii()),
    };
    Err(ModuleError::Malformed { reason })
}

/// Finds the ABI of a module and refuses what has none, what has wrong exports and what is built to be
/// costly.
pub(crate) fn inspect(bytes: &[u8]) -> Result<Traits, ModuleError> {
    check_magic(bytes)?;
    if Parser::is_component(bytes) {
        return Err(ModuleError::UnknownAbi { found: "a component".to_owned() });
    }
    let mut survey = Survey { bytes, ..Survey::default() };
    for payload in Parser::new(0).parse_all(bytes) {
        survey.visit(payload.map_err(malformed)?)?;
    }
    survey.conclude()
}

fn limited(what: &'static str, found: impl TryInto<u64>, limit: u64) -> Result<(), ModuleError> {
    let found = found.try_into().unwrap_or(u64::MAX);
    if found > limit { Err(ModuleError::TooLarge { what, found, limit }) } else { Ok(()) }
}

pub(super) fn malformed(error: BinaryReaderError) -> ModuleError {
    ModuleError::Malformed { reason: error.to_string() }
}

/// Elements of all segments together.
pub(super) fn elements(section: ElementSectionReader<'_>) -> Result<u64, BinaryReaderError> {
    let count = |segment: Element<'_>| match segment.items {
        ElementItems::Functions(functions) => u64::from(functions.count()),
        ElementItems::Expressions(_, expressions) => expressions.count().into(),
    };
    section.into_iter().map(|segment| segment.map(count)).sum()
}

/// Writes a type the way the specification does: `(i32, i32) -> (i32)`.
fn signature(params: &[ValType], results: &[ValType]) -> String {
    let list = |types: &[ValType]| types.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    format!("({}) -> ({})", list(params), list(results))
}

// === impl Traits ===

impl Traits {
    /// Whether the guest has a callback for bodies of this direction.
    pub(crate) fn has_body_callback(&self, direction: Direction) -> bool {
        match direction {
            Direction::Request => self.has_request_body,
            Direction::Response => self.has_response_body,
        }
    }

    /// Whether it has one for them or their trailers.
    pub(crate) fn looks_behind_headers(&self, direction: Direction) -> bool {
        match direction {
            Direction::Request => self.has_request_body || self.has_request_trailers,
            Direction::Response => self.has_response_body || self.has_response_trailers,
        }
    }
}

// === impl Survey ===

impl Survey<'_> {
    fn visit(&mut self, payload: Payload<'_>) -> Result<(), ModuleError> {
        match payload {
            Payload::TypeSection(section) => self.visit_types(section)?,
            Payload::ImportSection(section) => {
                for (before, import) in (0_u64..).zip(section.into_imports()) {
                    limited("imports", before + 1, MAX_IMPORTS)?;
                    let import = import.map_err(malformed)?;
                    self.reads_properties |= import.name == "proxy_get_property";
                    self.reads_exchange |= import.name.contains("header_map") || self.reads_properties;
                    self.is_pingora |= import.module == PINGORA;
                    self.reads_body |= import.module == PINGORA && import.name == GET_BODY;
                    self.may_interrupt |= import.name == "proxy_set_effective_context";
                    if let TypeRef::Func(index) = import.ty {
                        self.functions.push(index);
                    }
                }
            }
            Payload::FunctionSection(section) => {
                limited("functions", section.count(), MAX_FUNCTIONS)?;
                for index in section {
                    self.functions.push(index.map_err(malformed)?);
                }
            }
            Payload::MemorySection(section) => {
                for memory in section {
                    if memory.map_err(malformed)?.shared {
                        return Err(ModuleError::Uncompilable {
                            reason: "shared memories are off".to_owned(),
                        });
                    }
                }
            }
            Payload::TableSection(section) => {
                limited("tables", section.count(), MAX_TABLES)?;
                for table in section {
                    let elements = table.map_err(malformed)?.ty.initial;
                    limited("table elements", elements, MAX_TABLE_ELEMENTS as u64)?;
                }
            }
            Payload::GlobalSection(section) => limited("globals", section.count(), MAX_GLOBALS)?,
            Payload::ElementSection(section) => {
                limited("element segments", section.count(), MAX_ELEMENT_SEGMENTS)?;
                limited("elements", elements(section).map_err(malformed)?, MAX_ELEMENTS)?;
            }
            Payload::DataSection(section) => limited("data segments", section.count(), MAX_DATA_SEGMENTS)?,
            Payload::CodeSectionEntry(body) => {
                limited("bytes of a function", body.range().len(), MAX_FUNCTION_BYTES)?;
            }
            Payload::ExportSection(section) => {
                limited("exports", section.count(), MAX_EXPORTS)?;
                for export in section {
                    let export = export.map_err(malformed)?;
                    match export.kind {
                        ExternalKind::Func => self.visit_function(export.name, export.index)?,
                        ExternalKind::Memory => self.has_memory |= export.name == "memory",
                        _ => {}
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn visit_types(&mut self, section: TypeSectionReader<'_>) -> Result<(), ModuleError> {
        limited("types", section.count(), MAX_TYPES)?;
        let mut types = section.into_iter();
        loop {
            if self.bytes.get(types.original_position()) == Some(&GROUP) {
                return Err(ModuleError::Uncompilable { reason: "groups of types are off".to_owned() });
            }
            let Some(ty) = types.next() else { return Ok(()) };
            self.types.extend(ty.map_err(malformed)?.into_types().map(|ty| match ty.composite_type.inner {
                CompositeInnerType::Func(function) => Some(function),
                _ => None,
            }));
        }
    }

    fn visit_function(&mut self, name: &str, index: u32) -> Result<(), ModuleError> {
        match name {
            "_initialize" => self.has_initialize = true,
            "main" => self.main = Some(index),
            "proxy_on_request_body" => self.has_request_body = true,
            "proxy_on_request_trailers" => self.has_request_trailers = true,
            "proxy_on_response_body" => self.has_response_body = true,
            "proxy_on_response_trailers" => self.has_response_trailers = true,
            _ => {}
        }
        // A guest can look at the streams it serves in any callback, its own or that of another.
        self.outlives_request |= name.starts_with("proxy_on_") && !RUN_BEFORE.contains(&name);
        if let Some(abi) = Abi::from_marker(name) {
            self.markers.push(abi);
            return self.expect_type(name, index, &[(0, 0)]);
        }
        if let Some((known, _)) = PINGORA_EXPORTS.iter().find(|(known, _)| *known == name) {
            self.hooks.push((known, index));
        }
        match GUEST_EXPORTS.iter().find(|(known, _)| *known == name) {
            Some((_, shapes)) => self.expect_type(name, index, shapes),
            None => Ok(()),
        }
    }

    /// Checks a function against the shapes the ABI knows; all its parameters and results are `i32`.
    fn expect_type(&self, name: &str, index: u32, shapes: &[(usize, usize)]) -> Result<(), ModuleError> {
        let found = usize::try_from(index)
            .ok()
            .and_then(|index| self.functions.get(index))
            .and_then(|ty| self.types.get(usize::try_from(*ty).ok()?)?.as_ref())
            .ok_or_else(|| ModuleError::Malformed { reason: format!("export {name} names no function") })?;
        let all_i32 = found.params().iter().chain(found.results()).all(|ty| *ty == ValType::I32);
        if all_i32 && shapes.contains(&(found.params().len(), found.results().len())) {
            return Ok(());
        }
        let expected = shapes
            .iter()
            .map(|(params, results)| signature(&vec![ValType::I32; *params], &vec![ValType::I32; *results]));
        Err(ModuleError::MistypedExport {
            name: name.to_owned(),
            expected: expected.collect::<Vec<_>>().join(" or "),
            found: signature(found.params(), found.results()),
        })
    }

    fn conclude(self) -> Result<Traits, ModuleError> {
        let Some(abi) = Abi::of_markers(self.markers.iter().copied()) else {
            if self.is_pingora {
                return self.conclude_pingora();
            }
            return Err(ModuleError::UnknownAbi { found: "none of them".to_owned() });
        };
        if !self.has_memory {
            return Err(ModuleError::MissingExport { name: "memory" });
        }
        // Beside `_start` nobody calls it.
        if let (true, Some(main)) = (self.has_initialize, self.main) {
            self.expect_type("main", main, &[(2, 1)])?;
        }
        Ok(Traits {
            abi,
            reads_exchange: self.reads_exchange,
            reads_properties: self.reads_properties,
            outlives_request: self.outlives_request,
            may_interrupt: self.may_interrupt,
            has_request_body: self.has_request_body,
            has_request_trailers: self.has_request_trailers,
            has_response_body: self.has_response_body,
            has_response_trailers: self.has_response_trailers,
            reads_body: false,
        })
    }

    fn conclude_pingora(self) -> Result<Traits, ModuleError> {
        for (name, index) in &self.hooks {
            let shapes = PINGORA_EXPORTS.iter().find(|(known, _)| known == name);
            self.expect_type(name, *index, shapes.map_or(&[], |(_, shapes)| shapes))?;
        }
        if !self.has_memory {
            return Err(ModuleError::MissingExport { name: "memory" });
        }
        let has = |wanted: &str| self.hooks.iter().any(|(name, _)| *name == wanted);
        let (has_response, has_chunk) = (has(ON_RESPONSE), has(ON_STREAM_CHUNK));
        Ok(Traits {
            abi: Abi::Pingora,
            reads_exchange: true,
            reads_properties: false,
            outlives_request: has_response || has_chunk,
            may_interrupt: false,
            has_request_body: self.reads_body && has(ON_REQUEST),
            has_request_trailers: false,
            has_response_body: has_chunk || (self.reads_body && has_response),
            has_response_trailers: false,
            reads_body: self.reads_body,
        })
    }
}
