//! The one translator: objects in, the intermediate representation and every condition out.
