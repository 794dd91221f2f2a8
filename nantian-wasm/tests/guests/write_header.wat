;; Writes one header as its configuration says. First byte, how: `a` adds, `r` replaces, `d` removes, `l` answers 200
;; with it, `s` replaces the whole map by it. Second byte: the map, `0` request headers or `2` response headers.
;; Third byte: the length of the name. Then the name and the value; for `l` and `s` a block of pairs instead.
(module
  (import "env" "proxy_get_buffer_bytes" (func $get_buffer (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_add_header_map_value" (func $add (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_replace_header_map_value" (func $replace (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_remove_header_map_value" (func $remove (param i32 i32 i32) (result i32)))
  (import "env" "proxy_set_header_map_pairs" (func $set_pairs (param i32 i32 i32) (result i32)))
  (import "env" "proxy_send_local_response"
    (func $send_local_response (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_get_header_map_pairs" (func $pairs (param i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (global $heap (mut i32) (i32.const 1024))
  (global $config (mut i32) (i32.const 0))
  (global $length (mut i32) (i32.const 0))

  (func (export "proxy_abi_version_0_2_1"))
  (func (export "proxy_on_memory_allocate") (param $size i32) (result i32)
    (local $pointer i32)
    (local.set $pointer (global.get $heap))
    (global.set $heap (i32.add (local.get $pointer) (local.get $size)))
    (local.get $pointer))

  (func (export "proxy_on_configure") (param $root i32) (param $length i32) (result i32)
    (drop (call $get_buffer (i32.const 7) (i32.const 0) (local.get $length) (i32.const 0) (i32.const 4)))
    (global.set $config (i32.load (i32.const 0)))
    (global.set $length (local.get $length))
    (i32.const 1))

  (func $write (param $map i32)
    (local $how i32) (local $name i32) (local $name_length i32) (local $value i32) (local $value_length i32)
    (if (i32.ne (i32.load8_u offset=1 (global.get $config)) (i32.add (local.get $map) (i32.const 48)))
      (then (return)))
    (local.set $how (i32.load8_u (global.get $config)))
    (local.set $name (i32.add (global.get $config) (i32.const 3)))
    (local.set $name_length (i32.load8_u offset=2 (global.get $config)))
    (local.set $value (i32.add (local.get $name) (local.get $name_length)))
    (local.set $value_length
      (i32.sub (i32.add (global.get $config) (global.get $length)) (local.get $value)))
    ;; A host that answers anything but 0 would make an SDK guest abort.
    (if (i32.eq (local.get $how) (i32.const 97))
      (then (if (call $add (local.get $map) (local.get $name) (local.get $name_length)
                           (local.get $value) (local.get $value_length)) (then unreachable))))
    (if (i32.eq (local.get $how) (i32.const 114))
      (then (if (call $replace (local.get $map) (local.get $name) (local.get $name_length)
                               (local.get $value) (local.get $value_length)) (then unreachable))))
    (if (i32.eq (local.get $how) (i32.const 100))
      (then (if (call $remove (local.get $map) (local.get $name) (local.get $name_length)) (then unreachable))))
    (if (i32.eq (local.get $how) (i32.const 115))
      (then (if (call $set_pairs (local.get $map) (local.get $value) (local.get $value_length)) (then unreachable))))
    (if (i32.eq (local.get $how) (i32.const 108))
      (then (if (call $send_local_response
        (i32.const 200) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
        (local.get $value) (local.get $value_length) (i32.const -1)) (then unreachable)))))

  ;; The count the host gives must be the one it gives when asked again.
  (func $check (param $map i32) (param $count i32)
    (if (call $pairs (local.get $map) (i32.const 0) (i32.const 4)) (then unreachable))
    (if (i32.ne (i32.load (i32.load (i32.const 0))) (local.get $count)) (then unreachable)))

  (func (export "proxy_on_request_headers") (param $context i32) (param $count i32) (param i32) (result i32)
    (call $check (i32.const 0) (local.get $count))
    (call $write (i32.const 0))
    (i32.const 0))
  (func (export "proxy_on_response_headers") (param $context i32) (param $count i32) (param i32) (result i32)
    (call $check (i32.const 2) (local.get $count))
    (call $write (i32.const 2))
    (i32.const 0)))
