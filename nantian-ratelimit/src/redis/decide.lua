-- Decides all limits of a policy for one key, by the server's clock.
--
-- A template: a line with `@` is written once for each limit, with the limit's number in its place, and what stands
-- between `{` and `}` once for each limit, with commas. `$terms`, `$state` and `$size` are formats of both and bytes of the
-- latter. Calls of the server and loops are what costs here; of arithmetic there is next to nothing.
--
-- KEYS[1]  the state: the signature of the limits, the time in microseconds, what is used of each limit
-- ARGV[1]  the signature, four bytes for each limit, then for each limit: items refilled in a microsecond, capacity, most
--          that can be owed, correction, cost
-- returns  the state, with the time below zero if the cost was not charged
local call, pack, unpack = redis.call, struct.pack, struct.unpack
local key = KEYS[1]
local time, state = call('TIME'), call('GET', key)
local now = time[1] * 1000000 + time[2]
local signature, {speed@, capacity@, ceiling@, correction@, cost@} = unpack('$terms', ARGV[1])
local level@ = 0
if state then
  local known, at
  if #state == $size then
    known, at, {level@} = unpack('$state', state)
  end
  if known ~= signature then
    -- Other limits than last time: each is known by its four bytes.
    level@ = 0
    local width = (#state - 8) / 3
    at = unpack('<d', state, width + 1)
    for other = 1, width, 4 do
      local name, level = string.sub(state, other, other + 3), unpack('<d', state, width + other * 2 + 7)
      if name == string.sub(signature, @ * 4 - 3, @ * 4) then level@ = level end
    end
  end
  local elapsed = now - at
  if elapsed > 0 then
    level@ = level@ - elapsed * speed@
    if level@ < 0 then level@ = 0 end
  end
end
local is_changed, fits = false, true
if correction@ > 0 then level@ = math.max(level@, math.min(level@ + correction@, ceiling@)) is_changed = true end
if correction@ < 0 then level@ = math.max(level@ + correction@, 0) is_changed = true end
-- A millionth of an item is what doubles round away.
if cost@ > 0 and level@ + cost@ > capacity@ + 0.000001 then fits = false end
if fits then
  if cost@ > 0 then level@ = level@ + cost@ is_changed = true end
end
if is_changed then
  local full = 0
  if level@ > full * speed@ then full = level@ / speed@ end
  state = pack('$state', signature, now, {level@})
  call('SET', key, state, 'PX', math.ceil(full / 1000) + 1000)
  if fits then return state end
end
return pack('$state', signature, fits and now or -now, {level@})
