;; Adds the response header `x-request-path` with the request's path, changes status 404 to 410, and answers 451 by
;; itself when the response has a header `x-secret`.
(module
  (import "env" "proxy_get_property" (func $get_property (param i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_get_header_map_value" (func $get_header (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_replace_header_map_value" (func $replace_header (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_send_local_response"
    (func $send_local_response (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 64) "request\00path")
  (data (i32.const 80) "x-request-path")
  (data (i32.const 96) "x-secret")
  (data (i32.const 112) ":status")
  (data (i32.const 120) "410")
  (data (i32.const 128) "withheld\n")
  (global $heap (mut i32) (i32.const 1024))

  (func (export "proxy_abi_version_0_2_1"))
  (func (export "proxy_on_memory_allocate") (param $size i32) (result i32)
    (local $pointer i32)
    (local.set $pointer (global.get $heap))
    (global.set $heap (i32.add (local.get $pointer) (local.get $size)))
    (local.get $pointer))

  (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
    (global.set $heap (i32.const 1024))
    (if (i32.eqz (call $get_header (i32.const 2) (i32.const 96) (i32.const 8) (i32.const 0) (i32.const 4)))
      (then
        (drop (call $send_local_response
          (i32.const 451) (i32.const 0) (i32.const 0) (i32.const 128) (i32.const 9) (i32.const 0) (i32.const 0)
          (i32.const -1)))
        (return (i32.const 0))))
    (drop (call $get_property (i32.const 64) (i32.const 12) (i32.const 0) (i32.const 4)))
    (drop (call $replace_header
      (i32.const 2) (i32.const 80) (i32.const 14) (i32.load (i32.const 0)) (i32.load (i32.const 4))))
    ;; Three digits of status: "404" as a little-endian number without its last byte.
    (drop (call $get_header (i32.const 2) (i32.const 112) (i32.const 7) (i32.const 0) (i32.const 4)))
    (if (i32.and
          (i32.eq (i32.load16_u (i32.load (i32.const 0))) (i32.const 0x3034))
          (i32.eq (i32.load8_u offset=2 (i32.load (i32.const 0))) (i32.const 0x34)))
      (then
        (drop (call $replace_header (i32.const 2) (i32.const 112) (i32.const 7) (i32.const 120) (i32.const 3)))))
    (i32.const 0)))
