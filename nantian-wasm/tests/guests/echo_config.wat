;; Refuses an empty configuration; copies any other into the request header `x-config`.
(module
  (import "env" "proxy_get_buffer_bytes" (func $get_buffer (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_add_header_map_value" (func $add_header (param i32 i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 64) "x-config")
  (global $heap (mut i32) (i32.const 1024))
  (global $config (mut i32) (i32.const 0))
  (global $length (mut i32) (i32.const 0))

  (func (export "proxy_abi_version_0_2_0"))
  (func (export "malloc") (param $size i32) (result i32)
    (local $pointer i32)
    (local.set $pointer (global.get $heap))
    (global.set $heap (i32.add (local.get $pointer) (local.get $size)))
    (local.get $pointer))

  (func (export "proxy_on_configure") (param $root i32) (param $length i32) (result i32)
    (if (i32.eqz (local.get $length)) (then (return (i32.const 0))))
    (if (call $get_buffer (i32.const 7) (i32.const 0) (local.get $length) (i32.const 0) (i32.const 4))
      (then (return (i32.const 0))))
    (global.set $config (i32.load (i32.const 0)))
    (global.set $length (i32.load (i32.const 4)))
    (i32.eq (global.get $length) (local.get $length)))

  (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
    (drop (call $add_header (i32.const 0) (i32.const 64) (i32.const 8) (global.get $config) (global.get $length)))
    (i32.const 0)))
