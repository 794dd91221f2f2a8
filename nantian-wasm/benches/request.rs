//! What a plugin adds to a request.

fn main() {
    divan::main();
}
