;; Works on bodies of both directions as the first byte of its configuration says: `a` appends `!` to every part it is
;; shown, `A` too but without removing the content-length, `h` holds everything back until the end, `p` holds back at the end as well, `d` discards every part, `r`
;; replaces every part by `replaced`, `e` answers 403 when the body ends, `u` shows each part as it is.
;; Each callback counts: metrics `request-parts` and `response-parts`, and `-ends` of both; trailers count as `trailers`.
(module
  (import "env" "proxy_get_buffer_bytes" (func $get_buffer (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_set_buffer_bytes" (func $set_buffer (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_define_metric" (func $define_metric (param i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_increment_metric" (func $increment (param i32 i64) (result i32)))
  (import "env" "proxy_add_header_map_value" (func $add_header (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_remove_header_map_value" (func $remove_header (param i32 i32 i32) (result i32)))
  (import "env" "proxy_send_local_response"
    (func $send_local_response (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 32)
  (data (i32.const 64) "!")
  (data (i32.const 72) "replaced")
  (data (i32.const 96) "request-parts")
  (data (i32.const 112) "response-parts")
  (data (i32.const 128) "request-ends")
  (data (i32.const 144) "response-ends")
  (data (i32.const 160) "trailers")
  (data (i32.const 176) "x-guest")
  (data (i32.const 192) "content-length")
  (global $heap (mut i32) (i32.const 1024))
  (global $how (mut i32) (i32.const 0))

  (func (export "proxy_abi_version_0_2_1"))
  (func (export "proxy_on_memory_allocate") (param $size i32) (result i32)
    (local $pointer i32)
    (local.set $pointer (global.get $heap))
    (global.set $heap (i32.add (local.get $pointer) (local.get $size)))
    (local.get $pointer))

  (func (export "proxy_on_configure") (param i32 i32) (result i32)
    (drop (call $get_buffer (i32.const 7) (i32.const 0) (i32.const 1) (i32.const 0) (i32.const 4)))
    (global.set $how (i32.load8_u (i32.load (i32.const 0))))
    (drop (call $define_metric (i32.const 0) (i32.const 96) (i32.const 13) (i32.const 0)))
    (drop (call $define_metric (i32.const 0) (i32.const 112) (i32.const 14) (i32.const 0)))
    (drop (call $define_metric (i32.const 0) (i32.const 128) (i32.const 12) (i32.const 0)))
    (drop (call $define_metric (i32.const 0) (i32.const 144) (i32.const 13) (i32.const 0)))
    (drop (call $define_metric (i32.const 0) (i32.const 160) (i32.const 8) (i32.const 0)))
    (i32.const 1))

  ;; Lengths change, so they are not announced; `u` and `A` leave them as they are.
  (func $forget_length (param $map i32) (result i32)
    (if (i32.and (i32.ne (global.get $how) (i32.const 117)) (i32.ne (global.get $how) (i32.const 65)))
      (then (drop (call $remove_header (local.get $map) (i32.const 192) (i32.const 14)))))
    (i32.const 0))
  (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (call $forget_length (i32.const 0)))
  (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32) (call $forget_length (i32.const 2)))

  ;; Direction 0 is the request, 1 the response: buffer types and, in steps of four, metric ids follow from it.
  (func $part (param $direction i32) (param $length i32) (param $end i32) (result i32)
    (global.set $heap (i32.const 1024))
    (drop (call $increment
      (i32.mul (i32.add (local.get $direction) (i32.const 1)) (i32.const 4)) (i64.const 1)))
    (if (local.get $end)
      (then (drop (call $increment
        (i32.mul (i32.add (local.get $direction) (i32.const 3)) (i32.const 4)) (i64.const 1)))))
    (if (i32.eq (i32.or (global.get $how) (i32.const 32)) (i32.const 97))
      (then (drop (call $set_buffer
        (local.get $direction) (local.get $length) (i32.const 0) (i32.const 64) (i32.const 1)))))
    (if (i32.eq (global.get $how) (i32.const 114))
      (then (if (local.get $length) (then (drop (call $set_buffer
        (local.get $direction) (i32.const 0) (local.get $length) (i32.const 72) (i32.const 8)))))))
    (if (i32.eq (global.get $how) (i32.const 104)) (then (return (i32.eqz (local.get $end)))))
    (if (i32.eq (global.get $how) (i32.const 112)) (then (return (i32.const 1))))
    (if (i32.eq (global.get $how) (i32.const 100)) (then (return (i32.const 3))))
    (if (i32.and (i32.eq (global.get $how) (i32.const 101)) (local.get $end))
      (then (drop (call $send_local_response
        (i32.const 403) (i32.const 0) (i32.const 0) (i32.const 72) (i32.const 8) (i32.const 0) (i32.const 0)
        (i32.const -1)))))
    (i32.const 0))

  (func (export "proxy_on_request_body") (param $context i32) (param $length i32) (param $end i32) (result i32)
    (call $part (i32.const 0) (local.get $length) (local.get $end)))
  (func (export "proxy_on_response_body") (param $context i32) (param $length i32) (param $end i32) (result i32)
    (call $part (i32.const 1) (local.get $length) (local.get $end)))
  (func (export "proxy_on_response_trailers") (param $context i32) (param $count i32) (result i32)
    (drop (call $increment (i32.const 20) (i64.const 1)))
    (drop (call $add_header (i32.const 3) (i32.const 176) (i32.const 7) (i32.const 64) (i32.const 1)))
    (i32.const 0)))
