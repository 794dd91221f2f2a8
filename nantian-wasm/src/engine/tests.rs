use std::num::NonZeroUsize;

use super::*;
use crate::{Module, Plugin, PluginConfig};

#[test]
fn places_of_plugins_that_were_replaced_are_free_again() {
    let engine = Engine::new().unwrap();
    let metrics = engine.wasmtime().pooling_allocator_metrics().unwrap();
    let taken = || (metrics.core_instances(), metrics.memories(), metrics.tables(), metrics.stacks());
    let guest = wat::parse_str(include_str!("../../tests/guests/add_header.wat")).unwrap();
    let module = Module::compile(&engine, &guest, None).unwrap();
    let mut config = PluginConfig::new("probe");
    config.instances = NonZeroUsize::new(2);
    let mut present = Plugin::new(&module, config.clone()).unwrap();
    let one = taken();
    assert_eq!((one.0, one.1), (4, 2), "two guests with a shim each");
    for _ in 0..1_000 {
        present = present.successor(&module, config.clone(), None).unwrap();
    }
    assert_eq!(taken(), one);
    drop((present, module));
    assert_eq!(taken(), (0, 0, 0, 0));
}
