;; Counts requests in shared data, one byte wide, and puts the count as a letter (`a` is the first) into the request
;; header `x-count`. A stale version number must be refused.
(module
  (import "env" "proxy_get_shared_data" (func $get_shared (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_set_shared_data" (func $set_shared (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_add_header_map_value" (func $add_header (param i32 i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 64) "count")
  (data (i32.const 80) "x-count")
  (data (i32.const 96) "a")

  (func (export "proxy_abi_version_0_2_1"))
  (func (export "proxy_on_memory_allocate") (param $size i32) (result i32) (i32.const 1024))

  (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
    (i32.store (i32.const 8) (i32.const 0))
    (if (i32.eqz (call $get_shared (i32.const 64) (i32.const 5) (i32.const 0) (i32.const 4) (i32.const 8)))
      (then (i32.store8 (i32.const 96) (i32.add (i32.load8_u (i32.load (i32.const 0))) (i32.const 1)))))
    (if (i32.load (i32.const 8))
      (then
        (if (i32.ne (i32.const 8)
              (call $set_shared (i32.const 64) (i32.const 5) (i32.const 96) (i32.const 1)
                                (i32.add (i32.load (i32.const 8)) (i32.const 1))))
          (then unreachable))))
    (if (call $set_shared (i32.const 64) (i32.const 5) (i32.const 96) (i32.const 1) (i32.load (i32.const 8)))
      (then unreachable))
    (drop (call $add_header (i32.const 0) (i32.const 80) (i32.const 7) (i32.const 96) (i32.const 1)))
    (i32.const 0)))
