-- Events that wait and that nothing leads to.  Another program cuts the stream
-- (the library with each insert), Redis evicts it, somebody deletes it: then
-- the hash says that the event is to be delivered, and no claim would find it.
-- They are looked for among the hashes, which are the truth, a few at a time.
local function is_uuid(id)
	return #id == 36 and string.match(id,
		'^[%da-f]+%-[%da-f]+%-[%da-f]+%-[%da-f]+%-[%da-f]+$') and
		string.match(id, '^' .. string.rep('.', 8) .. '%-....%-....%-....%-')
end

-- Both are UTC as sagaz and the library write it, the limit without its
-- offset; other spellings are not compared.
local function is_after(time, limit)
	return limit ~= '' and string.sub(time, -6) == '+00:00' and
		string.sub(time, 1, -7) > limit
end

-- What is wrong with an event: 'lost'; 'unled', if it may be on its way, as its
-- entry is not known; 'ahead', if it was claimed before the clock was set back;
-- 'unnamed', if its id is none that can be handed out; or nothing.  Claims before
-- the one time have run out, those after the other are from the future.  all_read:
-- the group has read all of the stream.
local function fault_of(id, now, claimed_before, claimed_ahead, all_read)
	local fields = redis.call('HMGET', meta(id), 'status', 'saga_id', 'sagaz:entry',
		'sagaz:lease', 'claimed_at', 'created_at')
	local status, entry = fields[1], fields[3]
	if not fields[2] or status == 'sent' or status == 'dead_letter' then
		return nil
	elseif not is_uuid(id) then
		return 'unnamed'
	elseif status == 'claimed' and (tonumber(fields[4] or '') or 0) > now then
		return nil
	elseif status == 'claimed' and is_after(fields[5] or '', claimed_ahead) then
		return (tonumber(redis.call('ZSCORE', due, id) or '') or now + 1) > now and 'ahead' or nil
	elseif status == 'claimed' and is_after(fields[5] or '', claimed_before) then
		return nil
	elseif status ~= 'claimed' and redis.call('ZSCORE', due, id) then
		return nil
	end
	entry = entry or redis.call('HGET', processing, id)
	if not entry then
		return all_read and not is_after(fields[6] or '', claimed_before) and 'unled' or nil
	elseif not is_in_stream(entry) then
		return 'lost'
	end
	local known = all_groups()[group]
	if known == nil or is_pending(group, entry) or
			(not all_read and comes_after(entry, known['last-delivered-id'])) then
		return nil
	end
	return 'lost'
end

-- Events from where a cursor stands, and the cursor behind them; nothing if
-- that may not be asked.
local function scan_events(cursor)
	local pattern = string.gsub(prefix, '[%*%?%[%]\\%^]', '\\%0') .. ':meta:*'
	local reply = redis.pcall('SCAN', cursor, 'MATCH', pattern, 'COUNT', 1000,
		'TYPE', 'hash')
	if reply.err then
		return nil
	end
	for i, key in ipairs(reply[2]) do
		reply[2][i] = string.sub(key, #meta('') + 1)
	end
	return reply[2], reply[1]
end
