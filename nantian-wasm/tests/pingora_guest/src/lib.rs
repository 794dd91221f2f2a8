//! A module for the `pingora` ABI: asks for a key, looks into bodies, and cuts streams that tell a secret.

use std::sync::atomic::{AtomicUsize, Ordering};

#[link(wasm_import_module = "pingora")]
unsafe extern "C" {
    fn log(level: i32, line: *const u8, length: i32);
    fn get_header(name: *const u8, length: i32) -> i64;
    fn set_header(name: *const u8, name_length: i32, value: *const u8, value_length: i32);
    fn get_body(out: *mut u8, length: i32) -> i32;
    fn get_all_headers(out: *mut u8, length: i32) -> i32;
}

/// Memory that the host asks for, until the next hook.
static mut ARENA: [u8; 4096] = [0; 4096];
static TAKEN: AtomicUsize = AtomicUsize::new(0);

#[unsafe(no_mangle)]
pub extern "C" fn alloc(length: i32) -> i32 {
    let start = TAKEN.fetch_add(length as usize, Ordering::Relaxed);
    if start + length as usize > 4096 { -1 } else { (&raw const ARENA) as i32 + start as i32 }
}

fn header(name: &str) -> Option<String> {
    let packed = unsafe { get_header(name.as_ptr(), name.len() as i32) };
    let (start, length) = ((packed >> 32) as usize, (packed & 0xffff_ffff) as usize);
    let bytes = unsafe { std::slice::from_raw_parts(start as *const u8, length) };
    (packed != 0).then(|| String::from_utf8_lossy(bytes).into_owned())
}

fn set(name: &str, value: &str) {
    unsafe { set_header(name.as_ptr(), name.len() as i32, value.as_ptr(), value.len() as i32) }
}

fn filled(fill: impl FnOnce(*mut u8, i32) -> i32) -> String {
    let mut buffer = vec![0; 1024];
    let length = fill(buffer.as_mut_ptr(), 1024);
    String::from_utf8_lossy(&buffer[..length as usize]).into_owned()
}

fn body() -> String {
    filled(|out, length| unsafe { get_body(out, length) })
}

#[unsafe(no_mangle)]
pub extern "C" fn on_request() -> i32 {
    let line = "looking for a key";
    unsafe { log(0, line.as_ptr(), line.len() as i32) };
    TAKEN.store(0, Ordering::Relaxed);
    if let Some((name, value)) = header("x-set").as_deref().and_then(|text| text.split_once('=')) {
        set(name, &value.replace("CRLF", "\r\n"));
    }
    if header("X-Api-Key").is_none() {
        set("x-auth-result", "denied");
        return header("x-verdict").map_or(401, |verdict| verdict.parse().unwrap());
    }
    set("x-auth-result", "allowed");
    set("x-headers", &filled(|out, length| unsafe { get_all_headers(out, length) }).replace('\0', " "));
    if body().contains("forbidden") { 422 } else { 0 }
}

#[unsafe(no_mangle)]
pub extern "C" fn on_response() -> i32 {
    TAKEN.store(0, Ordering::Relaxed);
    set("x-response-body", &body());
    if header("x-refuse").is_some() { 503 } else { 0 }
}

#[unsafe(no_mangle)]
pub extern "C" fn on_stream_chunk() -> i32 {
    i32::from(body().contains("secret"))
}
