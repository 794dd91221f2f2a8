-- Decides all limits of a policy for one key, by the server's clock.
--
-- KEYS[1]  the levels: the signature of the limits, the time in microseconds, what is used of each limit
-- ARGV[1]  the signature: four bytes for each limit
-- ARGV[2]  for each limit: items refilled in a microsecond, capacity, most that can be owed, correction, cost
-- returns  whether the cost was charged, then what is used of each limit
local signature, n = ARGV[1], #ARGV[1] / 4
local doubles = string.rep('d', n)
local terms = { struct.unpack('>' .. string.rep('d', 5 * n), ARGV[2]) }
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local state = redis.call('GET', KEYS[1])
local used, elapsed = {}, 0
for i = 1, n do used[i] = 0 end
if state then
  local m = (#state - 8) / 12
  local levels = { struct.unpack('>' .. string.rep('d', m + 1), state, 4 * m + 1) }
  elapsed = math.max(0, now - levels[1])
  if string.sub(state, 1, 4 * m) == signature then
    for i = 1, n do used[i] = levels[i + 1] end
  else
    for i = 1, n do
      local wanted = string.sub(signature, 4 * i - 3, 4 * i)
      for j = 1, m do
        if string.sub(state, 4 * j - 3, 4 * j) == wanted then used[i] = levels[j + 1] end
      end
    end
  end
end
local fits, corrected, charged = true, false, false
for i = 1, n do
  local at = 5 * i - 5
  local level = math.max(0, used[i] - elapsed * terms[at + 1])
  local correction, cost = terms[at + 4], terms[at + 5]
  if correction > 0 then
    level = math.max(level, math.min(level + correction, terms[at + 3]))
    corrected = true
  elseif correction < 0 then
    level = math.max(0, level + correction)
    corrected = true
  end
  used[i] = level
  if cost > 0 then
    charged = true
    -- A millionth of an item is what doubles round away.
    if level + cost > terms[at + 2] + 0.000001 then fits = false end
  end
end
if corrected or (fits and charged) then
  local full = 0
  for i = 1, n do
    if fits then used[i] = used[i] + terms[5 * i] end
    full = math.max(full, used[i] / terms[5 * i - 4])
  end
  state = signature .. struct.pack('>' .. 'd' .. doubles, now, unpack(used))
  redis.call('SET', KEYS[1], state, 'PX', string.format('%.0f', math.ceil(full / 1000) + 1000))
end
return struct.pack('>B' .. doubles, fits and 1 or 0, unpack(used))
