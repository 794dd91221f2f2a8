-- Decides all limits of a policy for one key, by the server's clock.
--
-- A template: a line with `@` is written once for each limit, with the limit's number in its place, and what stands
-- between `{` and `}` once for each limit, with commas. `$terms`, `$most`, `$corrections` and `$state` are formats, `$rest`
-- is where the second begins, `$size` bytes of the last. Calls of the server are what costs here, then numbers that become
-- text, then strings; of arithmetic there is next to nothing.
--
-- KEYS[1]  the state: the signature of the limits, the milliseconds that it had left when it was written, what was used of
--          each limit. What it has left now tells the time that is between, for less than TIME costs.
-- ARGV[1]  the signature, four bytes for each limit, then for each limit: items refilled in a millisecond, the level above
--          which there is no room for the cost or, if it costs nothing, the most that can be in use, the cost; then for
--          each the most that can be in use, and how many milliseconds ago that began to hold for what was used before
-- ARGV[2]  may be absent; for each limit: correction, most that can be owed
-- returns  the state, with what it has left below zero if the cost was not charged
local call, pack, unpack = redis.call, struct.pack, struct.unpack
local key, corrections = KEYS[1], ARGV[2]
local state = call('GET', key)
local left = state and call('PTTL', key) or -2
local fits, stale, lasts, elapsed = true, false, false, 0
local signature, {speed@, room@, cost@} = unpack('$terms', ARGV[1])
local level@ = 0
if state then
  local known, at
  if #state == $size then
    known, at, {level@} = unpack('$state', state)
  end
  lasts = known == signature
  if not lasts then
    -- Other limits than last time: each is known by its four bytes.
    level@ = 0
    local width = (#state - 8) / 3
    at = unpack('<d', state, width + 1)
    for other = 1, width, 4 do
      local name, level = string.sub(state, other, other + 3), unpack('<d', state, width + other * 2 + 7)
      if name == string.sub(signature, @ * 4 - 3, @ * 4) then level@ = level end
    end
  end
  elapsed = at - left
  -- Nothing tells the time of a state that does not end.
  if left < 0 then elapsed = -1 end
  if elapsed > 0 then
    level@ = level@ - elapsed * speed@
    if level@ < 0 then level@ = 0 end
  end
  -- The clock was set back, or the end taken away: from now on it refills.
  stale = elapsed < 0
end
if corrections then
  local {correction@, ceiling@} = unpack('$corrections', corrections)
  if correction@ > 0 then level@ = math.max(level@, math.min(level@ + correction@, ceiling@)) end
  if correction@ < 0 then level@ = math.max(level@ + correction@, 0) end
end
if level@ > room@ then fits = false end
if not fits then
  -- More may have been used than an amount that was lowered can owe. What was written since then may be of a replica that
  -- has not heard of it, and would have room for the rest again.
  local {most@}, age = unpack('$most', ARGV[1], $rest)
  fits = true
  if level@ > most@ and elapsed >= age then level@, stale = most@, true end
  if level@ > room@ and cost@ > 0 then fits = false end
end
if fits then
  level@ = level@ + cost@
end
if fits or corrections or stale then
  if level@ > left * speed@ then lasts = false end
  if lasts then
    -- Written in place: the server's note of when it ends stays as it is.
    state = pack('$state', signature, left, {level@})
    call('SETRANGE', key, '0', state)
  else
    local full = 0
    if level@ > full * speed@ then full = level@ / speed@ end
    -- Twice as long as it takes to refill, so that few decisions of a busy key come here; and a second. Thirty
    -- thousand years at most: a number that is much larger is written with an exponent, which SET does not take.
    left = math.floor(math.min(full * 2, 1e15)) + 1000
    state = pack('$state', signature, left, {level@})
    call('SET', key, state, 'PX', left)
  end
  if fits then return state end
end
return pack('$state', signature, -1, {level@})
