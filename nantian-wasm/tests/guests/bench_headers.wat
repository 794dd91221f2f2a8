;; A header-only plugin with every callback of a stream. The configuration's first byte is the number of times the
;; request callback makes its three host calls: read a header, read a property, replace a header.
(module
  (import "env" "proxy_get_buffer_bytes" (func $get_buffer (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_get_property" (func $get_property (param i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_get_header_map_value" (func $get_header (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_replace_header_map_value" (func $replace_header (param i32 i32 i32 i32 i32) (result i32)))

  (memory (export "memory") 1)
  (data (i32.const 64) "request\00path")
  (data (i32.const 80) "user-agent")
  (data (i32.const 96) "x-plugin")
  (global $heap (mut i32) (i32.const 1024))
  (global $rounds (mut i32) (i32.const 0))

  (func (export "proxy_abi_version_0_2_1"))
  (func (export "proxy_on_memory_allocate") (param $size i32) (result i32)
    (local $pointer i32)
    (local.set $pointer (global.get $heap))
    (global.set $heap (i32.add (local.get $pointer) (local.get $size)))
    (local.get $pointer))

  (func (export "proxy_on_configure") (param $root i32) (param $length i32) (result i32)
    (drop (call $get_buffer (i32.const 7) (i32.const 0) (i32.const 1) (i32.const 0) (i32.const 4)))
    (global.set $rounds (i32.load8_u (i32.load (i32.const 0))))
    (i32.const 1))
  (func (export "proxy_on_context_create") (param i32 i32))

  (func (export "proxy_on_request_headers") (param $context i32) (param $count i32) (param $end i32) (result i32)
    (local $left i32)
    (local.set $left (global.get $rounds))
    (global.set $heap (i32.const 1024))
    (block $done
      (loop $next
        (br_if $done (i32.eqz (local.get $left)))
        (local.set $left (i32.sub (local.get $left) (i32.const 1)))
        (drop (call $get_header (i32.const 0) (i32.const 80) (i32.const 10) (i32.const 0) (i32.const 4)))
        (drop (call $get_property (i32.const 64) (i32.const 12) (i32.const 0) (i32.const 4)))
        (drop (call $replace_header
          (i32.const 0) (i32.const 96) (i32.const 8) (i32.load (i32.const 0)) (i32.load (i32.const 4))))
        (br $next)))
    (i32.const 0))

  (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32) (i32.const 0))
  (func (export "proxy_on_log") (param i32))
  (func (export "proxy_on_done") (param i32) (result i32) (i32.const 1))
  (func (export "proxy_on_delete") (param i32)))
