-- Count what no claim would find, and change nothing.  ARGV: prefix, group, now,
-- the times before which a claim has run out and after which it is from the
-- future, a cursor.  Returns the cursor
-- behind what was looked at, how many are lost, and how many have an id that is
-- never handed out.
local now, claimed_before, lost, unnamed = tonumber(ARGV[3]), ARGV[4], 0, 0
local claimed_ahead = ARGV[5]

local function group_has_read_all()
	local known = all_groups()[group]
	local last = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
	return last == nil or (known ~= nil and
		not comes_after(last[1], known['last-delivered-id']))
end

look_at_keys()
local all_read = group_has_read_all()
local ids, cursor = scan_events(ARGV[6])
if not ids then
	return redis.call('SCAN', ARGV[6])
end
for _, id in ipairs(ids) do
	local fault = fault_of(id, now, claimed_before, claimed_ahead, all_read)
	if fault == 'unnamed' then
		unnamed = unnamed + 1
	elseif fault then
		lost = lost + 1
	end
end
return {cursor, lost, unnamed}
