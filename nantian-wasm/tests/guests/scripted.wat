;; Does in each callback of a stream what the next byte of its configuration says, and nothing when there is no more: bits
;; 0 and 1 are the action it returns; 0x10 answers 200, 0x20 continues the request, 0x40 the response, 0x80 traps at last.
;; The gauge `trace` is a digest of every callback so far: which, how long, whether the end.
(module
  (import "env" "proxy_get_buffer_bytes" (func $get_buffer (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_continue_stream" (func $continue (param i32) (result i32)))
  (import "env" "proxy_define_metric" (func $define (param i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_record_metric" (func $record (param i32 i64) (result i32)))
  (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
  ;; So that the host lets the guest act from one callback on what another one holds.
  (import "env" "proxy_set_effective_context" (func $become (param i32) (result i32)))
  (import "env" "proxy_send_local_response"
    (func $send_local_response (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 16) "trace")
  (global $next (mut i32) (i32.const 1024))
  (global $end (mut i32) (i32.const 1024))
  (global $trace (mut i64) (i64.const 0))

  (func (export "proxy_abi_version_0_2_1"))
  (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 1024))

  (func (export "proxy_on_configure") (param $root i32) (param $length i32) (result i32)
    (drop (call $define (i32.const 1) (i32.const 16) (i32.const 5) (i32.const 8)))
    (drop (call $get_buffer (i32.const 7) (i32.const 0) (local.get $length) (i32.const 0) (i32.const 4)))
    (global.set $end (i32.add (i32.const 1024) (local.get $length)))
    (i32.const 1))

  (func $act (param $callback i64) (param $length i32) (param $eos i32) (result i32)
    (local $what i32) (local $rounds i32)
    ;; Whoever listens to the log may let time pass.
    (loop $more
      (drop (call $log (i32.const 2) (i32.const 16) (i32.const 5)))
      (local.set $rounds (i32.add (local.get $rounds) (i32.const 1)))
      (br_if $more (i32.lt_u (local.get $rounds) (i32.const 2))))
    (global.set $trace
      (i64.add
        (i64.mul (global.get $trace) (i64.const 1000003))
        (i64.add
          (i64.shl (local.get $callback) (i64.const 40))
          (i64.add
            (i64.shl (i64.extend_i32_u (local.get $length)) (i64.const 1))
            (i64.extend_i32_u (local.get $eos))))))
    (drop (call $record (i32.load (i32.const 8)) (global.get $trace)))
    (if (i32.lt_u (global.get $next) (global.get $end))
      (then
        (local.set $what (i32.load8_u (global.get $next)))
        (global.set $next (i32.add (global.get $next) (i32.const 1)))))
    (if (i32.and (local.get $what) (i32.const 0x10))
      (then
        (drop (call $send_local_response
          (i32.const 200) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
          (i32.const -1)))))
    (if (i32.and (local.get $what) (i32.const 0x20)) (then (drop (call $continue (i32.const 0)))))
    (if (i32.and (local.get $what) (i32.const 0x40)) (then (drop (call $continue (i32.const 1)))))
    (if (i32.and (local.get $what) (i32.const 0x80)) (then (unreachable)))
    (i32.and (local.get $what) (i32.const 3)))

  (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
    (call $act (i64.const 1) (i32.const 0) (local.get 2)))
  (func (export "proxy_on_request_body") (param i32 i32 i32) (result i32)
    (call $act (i64.const 2) (local.get 1) (local.get 2)))
  (func (export "proxy_on_request_trailers") (param i32 i32) (result i32)
    (call $act (i64.const 3) (i32.const 0) (i32.const 0)))
  (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
    (call $act (i64.const 4) (i32.const 0) (local.get 2)))
  (func (export "proxy_on_response_body") (param i32 i32 i32) (result i32)
    (call $act (i64.const 5) (local.get 1) (local.get 2)))
  (func (export "proxy_on_response_trailers") (param i32 i32) (result i32)
    (call $act (i64.const 6) (i32.const 0) (i32.const 0))))
