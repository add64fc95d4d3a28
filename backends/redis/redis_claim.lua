-- Claim events.  ARGV: prefix, group, worker, how many, now, the same as
-- text, number of the batch, milliseconds that a lease lasts, '' or the time,
-- as text without an offset, after which they must not be created, that before
-- which a claim has run out, and that after which it is from the future.
-- Returns pairs of an id and its hash as it was.
local worker, limit = ARGV[3], tonumber(ARGV[4])
local now, now_text, batch = tonumber(ARGV[5]), ARGV[6], ARGV[7]
local lease_ms, created_before, claimed_before = tonumber(ARGV[8]), ARGV[9], ARGV[10]
local claimed_ahead = ARGV[11]
local cursors = prefix .. ':sagaz:cursor'
local claimed = {}
-- How long a claim that found something waits before it looks for lost events.
local pause_us = 1000000

-- Have a claim look at the event when so much time has passed.
local function come_back(id, ms)
	redis.call('ZADD', due, string.format('%.0f', now + ms * 1000), id)
end

local function is_too_young(fields)
	return is_after(fields.created_at or '', created_before)
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
	come_back(id, lease_ms)
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

-- Its entry is gone, or it had none: it joins the queue, and leaves its batch.
local function put_in_queue(id, fields)
	local key, entry, batch_id = meta(id), fields['sagaz:entry'], fields['sagaz:batch']
	if entry then
		redis.call('XACK', stream, group, entry)
	end
	if batch_id then
		redis.call('SREM', batch_key(batch_id), id)
	end
	redis.call('HDEL', key, 'sagaz:batch', 'sagaz:lease')
	redis.call('HDEL', processing, id)
	redis.call('ZREM', due, id)
	if fields.status == 'claimed' then
		redis.call('HSET', key, 'status', 'pending')
	end
	redis.call('HSET', key, 'sagaz:entry',
		add_entry(id, fields.saga_id or '', fields.event_type or ''))
end

local function is_held(fields)
	local lease = tonumber(fields['sagaz:lease'])
	return fields.status == 'claimed' and ((lease and lease > now) or
		(is_after(fields.claimed_at or '', claimed_before) and
			not is_after(fields.claimed_at, claimed_ahead)))
end

-- Retries, what was scheduled, and claims that ran out.
local function take_due()
	local ids = redis.call('ZRANGEBYSCORE', due, '-inf', string.format('%.0f', now),
		'LIMIT', 0, limit)
	for _, id in ipairs(ids) do
		local fields, words = load(id)
		local entry = fields and fields['sagaz:entry']
		if fields == nil then
			come_back(id, lease_ms)
		elseif is_over(fields) then
			redis.call('ZREM', due, id)
		elseif is_held(fields) then
			come_back(id, lease_ms)
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
				put_in_queue(id, fields)
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

-- Workers that come no more hold nothing: the group forgets them.
local function forget_workers()
	local consumers = redis.pcall('XINFO', 'CONSUMERS', stream, group)
	for _, fields in ipairs(consumers.err and {} or consumers) do
		local known = {}
		for i = 1, #fields, 2 do
			known[fields[i]] = fields[i + 1]
		end
		if known.name ~= worker and known.pending == 0 and known.idle > lease_ms then
			redis.call('XGROUP', 'DELCONSUMER', stream, group, known.name)
		end
	end
end

-- Go on looking where the last claim stopped.  Were any put into the queue?
-- All of the stream is read now.
local function look_for_lost()
	local state = redis.call('HMGET', cursors, group .. ':lost', group .. ':looked')
	if #claimed > 0 and now - (tonumber(state[2] or '') or 0) < pause_us then
		return false
	end
	local ids, cursor = scan_events(state[1] or '0')
	local found = false
	for _, id in ipairs(ids or {}) do
		local fault = fault_of(id, now, claimed_before, claimed_ahead, true)
		if fault == 'lost' then
			put_in_queue(id, load(id))
			found = true
		elseif fault == 'unled' then
			come_back(id, lease_ms)
		elseif fault == 'ahead' then
			come_back(id, 0)
		end
	end
	if ids then
		redis.call('HSET', cursors, group .. ':lost', cursor, group .. ':looked',
			string.format('%.0f', now))
	end
	if cursor == '0' then
		forget_workers()
	end
	return found
end

look_at_keys(batch)
redis.call('HLEN', cursors)
redis.pcall('XGROUP', 'CREATE', stream, group, '0', 'MKSTREAM')
take_due()
if #claimed < limit then
	take_over()
end
take_new()
if #claimed < limit and look_for_lost() then
	take_new()
end
return claimed
