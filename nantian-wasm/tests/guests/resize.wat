;; Replaces bodies of both directions by what stands behind the first two bytes of its configuration. First byte, when:
;; `p` every part, `e` the part that ends the body, `w` the whole body, held until its end, `n` never. Second byte:
;; `s` sets the content-length of both messages to 2, `k` leaves them as they are.
(module
  (import "env" "proxy_get_buffer_bytes" (func $get_buffer (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_set_buffer_bytes" (func $set_buffer (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_replace_header_map_value" (func $replace (param i32 i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 16) "content-length")
  (data (i32.const 32) "2")
  (global $length (mut i32) (i32.const 0))

  (func (export "proxy_abi_version_0_2_1"))
  (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 1024))
  (func (export "proxy_on_configure") (param $root i32) (param $length i32) (result i32)
    (global.set $length (i32.sub (local.get $length) (i32.const 2)))
    (drop (call $get_buffer (i32.const 7) (i32.const 0) (local.get $length) (i32.const 0) (i32.const 4)))
    (i32.const 1))

  (func $headers (param $map i32) (result i32)
    (if (i32.eq (i32.load8_u (i32.const 1025)) (i32.const 115))
      (then (drop (call $replace
        (local.get $map) (i32.const 16) (i32.const 14) (i32.const 32) (i32.const 1)))))
    (i32.const 0))
  (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (call $headers (i32.const 0)))
  (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32) (call $headers (i32.const 2)))

  (func $body (param $buffer i32) (param $length i32) (param $end i32) (result i32)
    (local $when i32)
    (local.set $when (i32.load8_u (i32.const 1024)))
    (if (i32.eq (local.get $when) (i32.const 110)) (then (return (i32.const 0))))
    (if (i32.eq (local.get $when) (i32.const 112))
      (then (if (i32.eqz (local.get $length)) (then (return (i32.const 0)))))
      (else (if (i32.eqz (local.get $end))
        (then (return (i32.eq (local.get $when) (i32.const 119)))))))
    (drop (call $set_buffer
      (local.get $buffer) (i32.const 0) (local.get $length) (i32.const 1026) (global.get $length)))
    (i32.const 0))
  (func (export "proxy_on_request_body") (param i32 i32 i32) (result i32)
    (call $body (i32.const 0) (local.get 1) (local.get 2)))
  (func (export "proxy_on_response_body") (param i32 i32 i32) (result i32)
    (call $body (i32.const 1) (local.get 1) (local.get 2))))
