;; Adds the request header `x-wasm-plugin: <plugin name>`, and answers `GET /wasm-teapot` by itself.
(module
  (import "env" "proxy_get_property" (func $get_property (param i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_get_header_map_value" (func $get_header (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_add_header_map_value" (func $add_header (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_send_local_response"
    (func $send_local_response (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))

  (memory (export "memory") 1)
  (data (i32.const 64) "plugin_name")
  (data (i32.const 80) "x-wasm-plugin")
  (data (i32.const 96) ":method")
  (data (i32.const 104) ":path")
  (data (i32.const 112) "GET")
  (data (i32.const 128) "/wasm-teapot")
  (data (i32.const 144) "teapot")
  (data (i32.const 160) "short and stout\n")

  ;; The host's answers are used at once, so the bump allocator starts over for every callback.
  (global $heap (mut i32) (i32.const 1024))

  (func (export "proxy_abi_version_0_2_1"))

  (func (export "proxy_on_memory_allocate") (param $size i32) (result i32)
    (local $pointer i32)
    (local.set $pointer (global.get $heap))
    (global.set $heap (i32.and (i32.add (i32.add (local.get $pointer) (local.get $size)) (i32.const 7)) (i32.const -8)))
    (if (i32.gt_u (global.get $heap) (i32.const 65536)) (then (return (i32.const 0))))
    (local.get $pointer))

  ;; Whether the request header at $name is the text at $expected. Out-pointers: address at 0, length at 4.
  (func $header_is (param $name i32) (param $name_length i32) (param $expected i32) (param $length i32) (result i32)
    (if (call $get_header (i32.const 0) (local.get $name) (local.get $name_length) (i32.const 0) (i32.const 4))
      (then (return (i32.const 0))))
    (if (i32.ne (i32.load (i32.const 4)) (local.get $length)) (then (return (i32.const 0))))
    (loop $next
      (if (i32.eqz (local.get $length)) (then (return (i32.const 1))))
      (local.set $length (i32.sub (local.get $length) (i32.const 1)))
      (br_if $next
        (i32.eq
          (i32.load8_u (i32.add (i32.load (i32.const 0)) (local.get $length)))
          (i32.load8_u (i32.add (local.get $expected) (local.get $length))))))
    (i32.const 0))

  (func (export "proxy_on_request_headers") (param $context i32) (param $count i32) (param $end i32) (result i32)
    (global.set $heap (i32.const 1024))
    (if (i32.and
          (call $header_is (i32.const 96) (i32.const 7) (i32.const 112) (i32.const 3))
          (call $header_is (i32.const 104) (i32.const 5) (i32.const 128) (i32.const 12)))
      (then
        (drop (call $send_local_response
          (i32.const 418) (i32.const 144) (i32.const 6) (i32.const 160) (i32.const 16) (i32.const 0) (i32.const 0)
          (i32.const -1)))
        (return (i32.const 1))))
    (if (i32.eqz (call $get_property (i32.const 64) (i32.const 11) (i32.const 0) (i32.const 4)))
      (then
        (drop (call $add_header
          (i32.const 0) (i32.const 80) (i32.const 13) (i32.load (i32.const 0)) (i32.load (i32.const 4))))))
    (i32.const 0)))
