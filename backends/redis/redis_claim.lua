-- Claim events.  ARGV: prefix, group, worker, how many, now, the same as
-- text, number of the batch, milliseconds that a lease lasts, and '' or the
-- time, as text without an offset, after which they must not be created.
-- Returns pairs of an id and its hash as it was.
local worker, limit = ARGV[3], tonumber(ARGV[4])
local now, now_text, batch = tonumber(ARGV[5]), ARGV[6], ARGV[7]
local lease_ms, created_before = tonumber(ARGV[8]), ARGV[9]
local cursors = prefix .. ':sagaz:cursor'
local claimed = {}

local function is_uuid(id)
	return #id == 36 and string.match(id,
		'^%x%x%x%x%x%x%x%x%-%x%x%x%x%-%x%x%x%x%-%x%x%x%x%-%x%x%x%x%x%x%x%x%x%x%x%x$')
end

-- Both are UTC as sagaz and the library write it; other spellings are not
-- compared.
local function is_too_young(fields)
	local created = fields.created_at or ''
	return created_before ~= '' and string.sub(created, -6) == '+00:00' and
		string.sub(created, 1, -7) > created_before
end

local function is_over(fields)
	return next(fields) == nil or fields.status == 'sent' or
		fields.status == 'dead_letter'
end

local function take(id, fields, words, entry)
	local key = meta(id)
	if fields['sagaz:batch'] then
		redis.call('SREM', batch_key(fields['sagaz:batch']), id)
	end
	redis.call('HDEL', key, 'sagaz:lease', 'sagaz:next')
	redis.call('HSET', key, 'status', 'claimed', 'claimed_at', now_text,
		'worker_id', worker, 'sagaz:batch', batch, 'sagaz:entry', entry)
	redis.call('PERSIST', key)
	redis.call('SADD', batch_key(batch), id)
	redis.call('HSET', processing, id, entry)
	redis.call('ZREM', due, id)
	claimed[#claimed + 1] = {id, words}
end

-- In the order of the stream, so that many young events hide no old one.
local function let_age(id, entry)
	local ms, seq = string.match(entry or '', '^(%d+)%-(%d+)$')
	local since = ms and ms * 1000 + seq - 946684800000000 or now
	redis.call('ZADD', due, string.format('%.0f', math.min(since, now)), id)
end

-- An entry that was read just now, or whose lease is over.
local function consider(entry, id, is_new)
	local fields, words = load(id)
	if fields == nil then
		return
	end
	local lease, next_attempt = tonumber(fields['sagaz:lease']), tonumber(fields['sagaz:next'])
	if is_over(fields) or (fields['sagaz:entry'] and fields['sagaz:entry'] ~= entry) then
		drop_entry(entry)
	elseif fields['sagaz:batch'] and is_new then
		return
	elseif lease and lease > now then
		set_lease(fields.worker_id, entry, (lease - now) / 1000, lease_ms)
	elseif next_attempt and next_attempt > now then
		redis.call('HSET', meta(id), 'sagaz:entry', entry)
		redis.call('ZADD', due, string.format('%.0f', next_attempt), id)
	elseif not is_uuid(id) then
		return
	elseif is_too_young(fields) then
		redis.call('HSET', meta(id), 'sagaz:entry', entry)
		let_age(id, entry)
	else
		take(id, fields, words, entry)
	end
end

local function event_of(fields)
	for i = 1, #fields, 2 do
		if fields[i] == 'event_id' then
			return fields[i + 1]
		end
	end
end

local function consider_all(entries, is_new)
	for _, read in ipairs(entries) do
		local id = read and event_of(read[2])
		if id then
			consider(read[1], id, is_new)
		end
	end
end

-- Retries, and what was scheduled: without an entry it joins the queue.
local function take_due()
	local ids = redis.call('ZRANGEBYSCORE', due, '-inf', string.format('%.0f', now),
		'LIMIT', 0, limit)
	for _, id in ipairs(ids) do
		local fields, words = load(id)
		local entry = fields and fields['sagaz:entry']
		if fields == nil then
			redis.call('ZADD', due, string.format('%.0f', now + lease_ms * 1000), id)
		elseif is_over(fields) then
			redis.call('ZREM', due, id)
		elseif is_too_young(fields) then
			if redis.call('ZSCORE', due, id) == '0' then
				let_age(id, entry)
			end
		else
			redis.call('ZREM', due, id)
			if entry and is_pending(group, entry) and is_in_stream(entry) then
				if is_uuid(id) then
					redis.call('XCLAIM', stream, group, worker, 0, entry)
					take(id, fields, words, entry)
				end
			elseif not entry or not is_in_stream(entry) then
				redis.call('HSET', meta(id), 'sagaz:entry',
					add_entry(id, fields.saga_id or '', fields.event_type or ''))
			end
		end
	end
end

-- What a worker holds for too long; where the search stopped it goes on.
local function take_over()
	local reply = redis.call('XAUTOCLAIM', stream, group, worker,
		string.format('%.0f', lease_ms), redis.call('HGET', cursors, group) or '0-0',
		'COUNT', limit - #claimed)
	redis.call('HSET', cursors, group, reply[1])
	consider_all(reply[2], false)
end

local function take_new()
	while #claimed < limit do
		local reply = redis.call('XREADGROUP', 'GROUP', group, worker, 'COUNT',
			limit - #claimed, 'STREAMS', stream, '>')
		if not reply or #reply[1][2] == 0 then
			return
		end
		consider_all(reply[1][2], true)
	end
end

look_at_keys(batch)
redis.call('HLEN', cursors)
redis.pcall('XGROUP', 'CREATE', stream, group, '0', 'MKSTREAM')
take_due()
if #claimed < limit then
	take_over()
end
take_new()
return claimed
