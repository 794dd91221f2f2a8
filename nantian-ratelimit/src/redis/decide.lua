-- Decides all limits of a policy for one key, by the server's clock.
--
-- KEYS[1]  the levels: the signature of the limits, the time in microseconds, what is used of each limit
-- ARGV[1]  the signature: four bytes for each limit
-- ARGV[2]  for each limit: items refilled in a microsecond, capacity, most that can be owed, correction, cost
-- returns  whether the cost was charged, then what is used of each limit
local call, unpack_number = redis.call, struct.unpack
local key, signature, terms = KEYS[1], ARGV[1], ARGV[2]
local width = #signature
local time = call('TIME')
local now = time[1] * 1000000 + time[2]
local state = call('GET', key)
local elapsed, known, is_same = 0, 0, false
if state then
  known = (#state - 8) / 3
  is_same = known == width and string.sub(state, 1, width) == signature
  elapsed = now - unpack_number('<d', state, known + 1)
  if elapsed < 0 then elapsed = 0 end
end
local levels, charged = {}, {}
local fits, full, full_charged, is_corrected, is_charged = true, 0, 0, false, false
local n = 0
for at = 1, width, 4 do
  n = n + 1
  local speed, capacity, ceiling, correction, cost = unpack_number('<ddddd', terms, at * 10 - 9)
  local level = 0
  if is_same then
    level = unpack_number('<d', state, width + n * 8 + 1)
  elseif state then
    local wanted = string.sub(signature, at, at + 3)
    for other = 1, known, 4 do
      if string.sub(state, other, other + 3) == wanted then
        level = unpack_number('<d', state, known + other * 2 + 7)
      end
    end
  end
  level = level - elapsed * speed
  if level < 0 then level = 0 end
  if correction ~= 0 then
    is_corrected = true
    local corrected = level + correction
    if corrected < 0 then
      level = 0
    elseif correction < 0 or corrected <= ceiling then
      level = corrected
    elseif level < ceiling then
      level = ceiling
    end
  end
  levels[n] = level
  local wait = level / speed
  if wait > full then full = wait end
  if cost > 0 then
    is_charged = true
    level = level + cost
    -- A millionth of an item is what doubles round away.
    if level > capacity + 0.000001 then fits = false end
    wait = level / speed
  end
  charged[n] = level
  if wait > full_charged then full_charged = wait end
end
local verdict = '\0'
if fits then
  verdict, levels, full = '\1', charged, full_charged
end
levels = struct.pack('<' .. string.rep('d', n), unpack(levels))
if is_corrected or (fits and is_charged) then
  call('SET', key, signature .. struct.pack('<d', now) .. levels, 'PX', math.ceil(full / 1000) + 1000)
end
return verdict .. levels
