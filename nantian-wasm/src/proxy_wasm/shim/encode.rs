//! The bytes of the shim.

use wasm_encoder::{
    BlockType, CodeSection, ConstExpr, ElementSection, Elements, EntityType, ExportKind, ExportSection,
    Function, FunctionSection, ImportSection, InstructionSink, Module, RefType, TableSection, TableType,
    TypeSection, ValType,
};

use super::{BEGIN, CALLBACKS, Callback, END, FINISH, FUNCTIONS, HOST, NEXT, PACK, TAKE_OVER};
use crate::proxy_wasm::pingora;

/// Most parameters of a function that has a result. Type `n` is that of `n` parameters and one result.
const MOST_PARAMETERS: u32 = 6;
/// The type of one parameter and no result.
const NOTICE: u32 = MOST_PARAMETERS + 1;
/// The type of two parameters and no result.
const CREATION: u32 = MOST_PARAMETERS + 2;
/// The types of one and of two parameters and a result of 64 bits.
const PACKING: u32 = MOST_PARAMETERS + 3;
const PACKED: u32 = MOST_PARAMETERS + 4;

/// The sections of the shim, as they come together.
#[derive(Default)]
struct Shim {
    imports: ImportSection,
    functions: FunctionSection,
    exports: ExportSection,
    code: CodeSection,
    /// Functions so far, imported or not.
    count: u32,
}

/// Encodes the shim: first the functions that hand bytes over, then what enters a guest for several callbacks
/// at once, and what stands in the table for callbacks that a guest has not.
pub(super) fn encode() -> Vec<u8> {
    let mut shim = Shim::default();
    let first_halves: Vec<_> = FUNCTIONS
        .iter()
        .map(|(name, parameters)| (*name, *parameters, shim.import("env", name, *parameters)))
        .collect();
    let header = shim.import(HOST, pingora::GET_HEADER, 2);
    let take_over = shim.import(HOST, TAKE_OVER, 1);
    let pack = shim.import(HOST, PACK, PACKING);
    let next = shim.import(HOST, NEXT, 0);
    for (name, parameters, first_half) in first_halves {
        shim.define(parameters, Some(name), &handing_over(parameters, first_half, take_over));
    }
    shim.define(PACKED, Some(pingora::GET_HEADER), &packing(header, pack));
    shim.define(4, Some(BEGIN), &begin(next));
    shim.define(NOTICE, Some(END), &end(next));
    shim.define(NOTICE, Some(FINISH), &finish(next));
    let absent: Vec<_> =
        [Callback::Create, Callback::RequestHeaders, Callback::Log, Callback::Done, Callback::Delete]
            .iter()
            .map(|callback| shim.define(callback.ty(), None, &absent(callback.has_result())))
            .collect();
    shim.finish(&absent)
}

// === impl Shim ===

impl Shim {
    fn import(&mut self, module: &str, name: &str, ty: u32) -> u32 {
        self.imports.import(module, name, EntityType::Function(ty));
        self.count += 1;
        self.count - 1
    }

    fn define(&mut self, ty: u32, name: Option<&str>, body: &Function) -> u32 {
        self.functions.function(ty);
        self.code.function(body);
        if let Some(name) = name {
            self.exports.export(name, ExportKind::Func, self.count);
        }
        self.count += 1;
        self.count - 1
    }

    /// The module; these functions are in the table behind the allocator's place, which stays empty.
    fn finish(mut self, absent: &[u32]) -> Vec<u8> {
        let mut types = TypeSection::new();
        for parameters in 0..=MOST_PARAMETERS {
            types.ty().function((0..parameters).map(|_| ValType::I32), [ValType::I32]);
        }
        types.ty().function([ValType::I32], []);
        types.ty().function([ValType::I32; 2], []);
        types.ty().function([ValType::I32], [ValType::I64]);
        types.ty().function([ValType::I32; 2], [ValType::I64]);
        let places = Callback::Delete.place() + 1;
        let mut tables = TableSection::new();
        tables.table(TableType {
            element_type: RefType::FUNCREF,
            table64: false,
            minimum: u64::from(places),
            maximum: Some(u64::from(places)),
            shared: false,
        });
        let mut elements = ElementSection::new();
        let offset = i32::try_from(Callback::Create.place()).unwrap_or_default();
        elements.active(None, &ConstExpr::i32_const(offset), Elements::Functions(absent.into()));
        self.exports.export(CALLBACKS, ExportKind::Table, 0);
        let mut module = Module::new();
        module.section(&types).section(&self.imports).section(&self.functions).section(&tables);
        module.section(&self.exports).section(&elements).section(&self.code);
        module.finish()
    }
}

// === impl Callback ===

impl Callback {
    /// Its place in the table.
    pub(super) fn place(self) -> u32 {
        self as u32
    }

    fn ty(self) -> u32 {
        match self {
            Self::Create => CREATION,
            Self::RequestHeaders => 3,
            Self::Allocate | Self::Done => 1,
            Self::Log | Self::Delete => NOTICE,
        }
    }

    fn has_result(self) -> bool {
        self.ty() <= MOST_PARAMETERS
    }

    /// Calls it with the arguments on the stack.
    fn call<'a, 'b>(self, instructions: &'a mut InstructionSink<'b>) -> &'a mut InstructionSink<'b> {
        instructions.i32_const(i32::try_from(self.place()).unwrap_or_default()).call_indirect(0, self.ty())
    }
}

/// `wanted = first_half(..); wanted > 0 ? take_over(allocate(wanted)) : -wanted`.
fn handing_over(parameters: u32, first_half: u32, take_over: u32) -> Function {
    let wanted = parameters;
    let mut function = Function::new([(1, ValType::I32)]);
    let mut instructions = function.instructions();
    for parameter in 0..parameters {
        instructions.local_get(parameter);
    }
    instructions
        .call(first_half)
        .local_tee(wanted)
        .i32_const(0)
        .i32_gt_s()
        .if_(BlockType::Result(ValType::I32));
    instructions.local_get(wanted);
    Callback::Allocate.call(&mut instructions).call(take_over);
    instructions.else_().i32_const(0).local_get(wanted).i32_sub().end().end();
    function
}

/// `length = header(name, name_length); length >= 0 ? pack(allocate(length)) : 0`.
fn packing(header: u32, pack: u32) -> Function {
    let (name, name_length, length) = (0, 1, 2);
    let mut function = Function::new([(1, ValType::I32)]);
    let mut instructions = function.instructions();
    instructions.local_get(name).local_get(name_length).call(header).local_tee(length);
    instructions.i32_const(0).i32_ge_s().if_(BlockType::Result(ValType::I64)).local_get(length);
    Callback::Allocate.call(&mut instructions).call(pack);
    instructions.else_().i64_const(0).end().end();
    function
}

/// `create(context, root); next() ? request_headers(context, count, end) : 0`.
fn begin(next: u32) -> Function {
    let (context, root, count, end) = (0, 1, 2, 3);
    let mut function = Function::new([]);
    let mut instructions = function.instructions();
    Callback::Create.call(instructions.local_get(context).local_get(root));
    instructions.call(next).if_(BlockType::Result(ValType::I32));
    Callback::RequestHeaders.call(instructions.local_get(context).local_get(count).local_get(end));
    instructions.else_().i32_const(0).end().end();
    function
}

/// `log(context); next(); done(context); next(); delete(context)`.
fn end(next: u32) -> Function {
    let context = 0;
    let mut function = Function::new([]);
    let mut instructions = function.instructions();
    Callback::Log.call(instructions.local_get(context)).call(next).drop();
    done_and_delete(&mut instructions, next);
    function
}

/// `done(context); next(); delete(context)`.
fn finish(next: u32) -> Function {
    let mut function = Function::new([]);
    done_and_delete(&mut function.instructions(), next);
    function
}

fn done_and_delete(instructions: &mut InstructionSink<'_>, next: u32) {
    let context = 0;
    Callback::Done.call(instructions.local_get(context)).drop().call(next).drop();
    Callback::Delete.call(instructions.local_get(context)).end();
}

/// A callback that does nothing.
fn absent(has_result: bool) -> Function {
    let mut function = Function::new([]);
    let mut instructions = function.instructions();
    if has_result {
        instructions.i32_const(0);
    }
    instructions.end();
    function
}
