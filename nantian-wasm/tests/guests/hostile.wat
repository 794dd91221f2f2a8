;; Misbehaves where its configuration says. First byte, what: `l` loops for ever, `t` traps, `o` overflows the stack,
;; `x` exits, `g` grows memory until it is refused and then traps, `m` floods the host with headers, `s` with logs,
;; `q` answers 200 and traps, `p` pauses. Second byte, where: `c` on_configure, `n` context creation, `h` request headers, `r` response headers,
;; `b` request body, `B` response body, `a` the allocator, `g` on_log, `t` on_tick. Only streams whose request has a
;; header `x-attack` are hit, except in `c`, `n`, `a`, `g` and `t`.
(module
  (import "env" "proxy_get_buffer_bytes" (func $get_buffer (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_get_header_map_value" (func $get_header (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_add_header_map_value" (func $add_header (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
  (import "env" "proxy_set_tick_period_milliseconds" (func $set_tick (param i32) (result i32)))
  (import "env" "proxy_send_local_response"
    (func $send_local_response (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (data (i32.const 64) "x-attack")
  (data (i32.const 80) "x-flood")
  (global $heap (mut i32) (i32.const 1024))
  (global $what (mut i32) (i32.const 0))
  (global $where (mut i32) (i32.const 0))
  (global $marked (mut i32) (i32.const 0))

  (func (export "proxy_abi_version_0_2_1"))

  (func (export "proxy_on_memory_allocate") (param $size i32) (result i32)
    (local $pointer i32)
    (drop (call $attack (i32.const 97)))
    (local.set $pointer (global.get $heap))
    (global.set $heap (i32.add (local.get $pointer) (local.get $size)))
    (local.get $pointer))

  (func $deeper (param i64 i64 i64 i64) (result i64)
    (i64.add (local.get 0)
      (call $deeper (i64.add (local.get 0) (i64.const 1)) (local.get 0) (local.get 1) (local.get 2))))

  ;; Attacks if this is the place, and returns what the callback should: 1 pauses.
  (func $attack (param $where i32) (result i32)
    (if (i32.ne (local.get $where) (global.get $where)) (then (return (i32.const 0))))
    (if (i32.eq (global.get $what) (i32.const 108)) (then (loop $for_ever (br $for_ever))))
    (if (i32.eq (global.get $what) (i32.const 116)) (then (unreachable)))
    (if (i32.eq (global.get $what) (i32.const 113))
      (then
        (drop (call $send_local_response
          (i32.const 200) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
          (i32.const -1)))
        (unreachable)))
    (if (i32.eq (global.get $what) (i32.const 111))
      (then (drop (call $deeper (i64.const 0) (i64.const 0) (i64.const 0) (i64.const 0)))))
    (if (i32.eq (global.get $what) (i32.const 120)) (then (call $exit (i32.const 7))))
    (if (i32.eq (global.get $what) (i32.const 103))
      (then
        (loop $more (br_if $more (i32.ne (memory.grow (i32.const 16)) (i32.const -1))))
        (unreachable)))
    (if (i32.eq (global.get $what) (i32.const 109))
      (then
        (loop $for_ever
          (drop (call $add_header (i32.const 0) (i32.const 80) (i32.const 7) (i32.const 2048) (i32.const 1024)))
          (br $for_ever))))
    (if (i32.eq (global.get $what) (i32.const 115))
      (then
        (global.set $what (i32.const 1000))
        (loop $more
          (drop (call $log (i32.const 2) (i32.const 64) (i32.const 8)))
          (global.set $what (i32.sub (global.get $what) (i32.const 1)))
          (br_if $more (global.get $what)))
        (global.set $what (i32.const 115))))
    (i32.eq (global.get $what) (i32.const 112)))

  ;; The request's headers are the guest's in their own callback only: it remembers whether they had the mark.
  (func $look_for_mark
    (global.set $marked
      (i32.eqz (call $get_header (i32.const 0) (i32.const 64) (i32.const 8) (i32.const 0) (i32.const 4)))))
  (func $attack_marked (param $where i32) (result i32)
    (if (i32.eqz (global.get $marked)) (then (return (i32.const 0))))
    (call $attack (local.get $where)))

  (func (export "proxy_on_configure") (param $root i32) (param $length i32) (result i32)
    (drop (call $get_buffer (i32.const 7) (i32.const 0) (i32.const 2) (i32.const 0) (i32.const 4)))
    (global.set $what (i32.load8_u (i32.load (i32.const 0))))
    (global.set $where (i32.load8_u offset=1 (i32.load (i32.const 0))))
    (drop (call $set_tick (i32.const 10)))
    (drop (call $attack (i32.const 99)))
    (i32.const 1))
  (func (export "proxy_on_context_create") (param $context i32) (param $parent i32)
    (if (local.get $parent) (then (drop (call $attack (i32.const 110))))))
  (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
    (call $look_for_mark)
    (call $attack_marked (i32.const 104)))
  (func (export "proxy_on_request_body") (param i32 i32 i32) (result i32) (call $attack_marked (i32.const 98)))
  (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32) (call $attack_marked (i32.const 114)))
  (func (export "proxy_on_response_body") (param i32 i32 i32) (result i32) (call $attack_marked (i32.const 66)))
  (func (export "proxy_on_log") (param i32) (drop (call $attack (i32.const 103))))
  (func (export "proxy_on_tick") (param i32) (drop (call $attack (i32.const 116)))))
