-- Write events, all or none.  ARGV: prefix, group, the most entries that the
-- stream may have (0: any number), seconds that sent events stay (0: for
-- ever), now, milliseconds that a lease lasts; then for each event: mode, id,
-- stamp, when it is to be handed out ('' never), batch, lease and next ('' for
-- none of it), and the values of "names".
--
-- Modes: N new, M only if it is missing, A always; C change and R remove, if
-- its stamp is still this one.  Returns how many were written; or {'exists',
-- id}, {'changed'}, {'full', entries}, and then nothing is.
local max_entries, ttl, now = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local lease_ms = tonumber(ARGV[6])
local names = {'saga_id', 'aggregate_type', 'aggregate_id', 'event_type', 'payload',
	'headers', 'status', 'retry_count', 'created_at', 'claimed_at', 'sent_at',
	'last_error', 'worker_id', 'routing_key', 'partition_key'}
local words_before, words_each = 6, 7 + #names

local function stamp_of(id)
	local fields = redis.call('HMGET', meta(id), 'status', 'claimed_at',
		'sent_at', 'retry_count', 'worker_id', 'sagaz:batch', 'sagaz:lease',
		'sagaz:next')
	for i = 1, 8 do
		fields[i] = fields[i] or ''
	end
	return table.concat(fields, '\1')
end

local function read_writes()
	local writes = {}
	for at = words_before, #ARGV - words_each, words_each do
		writes[#writes + 1] = {at = at, mode = ARGV[at + 1], id = ARGV[at + 2],
			stamp = ARGV[at + 3], due = tonumber(ARGV[at + 4]), batch = ARGV[at + 5],
			saga_id = ARGV[at + 8], event_type = ARGV[at + 11], status = ARGV[at + 14],
			worker_id = ARGV[at + 20]}
	end
	return writes
end

-- The arguments of HSET for an event; those of the last one stay in the table.
local fields = {'event_id', ''}
for _, name in ipairs(names) do
	fields[#fields + 1] = name
	fields[#fields + 1] = ''
end
local fixed = #fields

-- Set its fields, and those that only some have.
local function set_fields(write, entry)
	local at, last = write.at + 7, fixed
	fields[2] = write.id
	for i = 1, #names do
		fields[2 * i + 2] = ARGV[at + i]
	end
	for i, name in ipairs({'sagaz:batch', 'sagaz:lease', 'sagaz:next'}) do
		local value = ARGV[at - 3 + i]
		if value ~= '' then
			fields[last + 1], fields[last + 2] = name, value
			last = last + 2
		end
	end
	if entry then
		fields[last + 1], fields[last + 2] = 'sagaz:entry', entry
		last = last + 2
	end
	redis.call('HSET', meta(write.id), unpack(fields, 1, last))
end

-- Events that wait to be delivered, exactly if that matters.  What is
-- scheduled has no entry; others in "due" are counted by theirs.
local function count_waiting(most)
	local count, set_aside = redis.call('XLEN', stream), redis.call('ZCARD', due)
	if count > most or count + set_aside <= most then
		return count + set_aside
	end
	for _, id in ipairs(redis.call('ZRANGE', due, 0, -1)) do
		count = count + 1 - redis.call('HEXISTS', meta(id), 'sagaz:entry')
	end
	return count
end

-- Is any of the events there?
local function any_exists(writes)
	local keys = {}
	for i, write in ipairs(writes) do
		keys[#keys + 1] = meta(write.id)
		if #keys == 1000 or i == #writes then
			if redis.call('EXISTS', unpack(keys)) > 0 then
				return true
			end
			keys = {}
		end
	end
	return false
end

-- Leave out what is not to be written; say why nothing can be.
local function check(writes)
	local kept, seen, entries = {}, {}, 0
	local look = any_exists(writes)
	for _, write in ipairs(writes) do
		local exists = seen[write.id] or
			(look and redis.call('EXISTS', meta(write.id)) == 1)
		if write.batch ~= '' then
			redis.call('SCARD', batch_key(write.batch))
		end
		if exists and write.mode == 'A' then
			redis.call('HLEN', meta(write.id))
		end
		if write.mode == 'N' and exists then
			return nil, {'exists', write.id}
		elseif (write.mode == 'C' or write.mode == 'R') and
				stamp_of(write.id) ~= write.stamp then
			return nil, {'changed'}
		elseif write.mode ~= 'M' or not exists then
			kept[#kept + 1] = write
			write.is_fresh = not exists and write.mode ~= 'R'
			if write.due and not exists then
				entries = entries + 1
			end
		end
		seen[write.id] = true
	end
	if max_entries > 0 and entries > 0 then
		local waiting = count_waiting(max_entries - entries)
		if waiting + entries > max_entries then
			return nil, {'full', tostring(waiting)}
		end
	end
	return kept
end

local function leave_dead_letters(id, letter)
	if letter then
		redis.call('XDEL', dead_letters, letter)
		redis.call('HDEL', meta(id), 'sagaz:dead')
	end
end

-- It is handed out no more.
local function retire(id, entry)
	drop_entry(entry)
	redis.call('HDEL', meta(id), 'sagaz:entry')
	redis.call('HDEL', processing, id)
	redis.call('ZREM', due, id)
end

-- See to it that a claim finds the event when its time has come.
local function make_claimable(write, entry)
	if entry and not is_in_stream(entry) then
		entry = nil
	end
	if write.due > now or (entry and is_pending(group, entry)) then
		redis.call('ZADD', due, string.format('%.0f', write.due), write.id)
	elseif not entry then
		entry = add_entry(write.id, write.saga_id, write.event_type)
		redis.call('ZREM', due, write.id)
	end
	if entry then
		redis.call('HSET', meta(write.id), 'sagaz:entry', entry)
	end
end

local function hold(write, entry)
	redis.call('ZADD', due, string.format('%.0f', write.due), write.id)
	if entry and is_pending(group, entry) then
		set_lease(write.worker_id, entry, (write.due - now) / 1000, lease_ms)
		redis.call('HSET', processing, write.id, entry)
	end
end

local function set_place(write, entry, letter)
	local id, status = write.id, write.status
	if status ~= 'dead_letter' then
		leave_dead_letters(id, letter)
	end
	if status == 'sent' or status == 'dead_letter' then
		retire(id, entry)
	end
	if status == 'sent' and ttl > 0 then
		redis.call('EXPIRE', meta(id), ttl)
	else
		redis.call('PERSIST', meta(id))
	end
	if status == 'dead_letter' and not letter then
		redis.call('HSET', meta(id), 'sagaz:dead',
			redis.call('XADD', dead_letters, '*', 'event_id', id, 'saga_id',
				write.saga_id, 'event_type', write.event_type))
	elseif status == 'claimed' then
		hold(write, entry)
	elseif status == 'pending' or status == 'failed' then
		redis.call('HDEL', processing, id)
		make_claimable(write, entry)
	end
end

-- What is left of events that were there once, in one go for many.
local function forget_places(writes)
	local ids = {}
	for i, write in ipairs(writes) do
		if write.is_fresh then
			ids[#ids + 1] = write.id
		end
		if #ids > 0 and (#ids == 1000 or i == #writes) then
			redis.call('HDEL', processing, unpack(ids))
			redis.call('ZREM', due, unpack(ids))
			ids = {}
		end
	end
end

-- Nothing has to be looked up of an event that was not there.  If it waits for
-- nothing but its turn, its entry is written with its fields.
local function apply_fresh(write)
	if write.batch ~= '' then
		redis.call('SADD', batch_key(write.batch), write.id)
	end
	if write.due and write.due <= now and write.status ~= 'claimed' then
		set_fields(write, add_entry(write.id, write.saga_id, write.event_type))
	else
		set_fields(write)
		set_place(write)
	end
end

local function apply(write)
	local key = meta(write.id)
	local was = redis.call('HMGET', key, 'sagaz:batch', 'sagaz:entry', 'sagaz:dead')
	local batch, entry, letter = was[1], was[2], was[3]
	if batch and batch ~= write.batch then
		redis.call('SREM', batch_key(batch), write.id)
	end
	if write.mode == 'R' then
		retire(write.id, entry)
		leave_dead_letters(write.id, letter)
		redis.call('DEL', key)
		return
	end
	redis.call('HDEL', key, 'sagaz:batch', 'sagaz:lease', 'sagaz:next')
	set_fields(write)
	if write.batch ~= '' then
		redis.call('SADD', batch_key(write.batch), write.id)
	end
	set_place(write, entry, letter)
end

look_at_keys()
local writes, refusal = check(read_writes())
if refusal then
	return refusal
end
-- The first thing written: on a full server it fails before anything is there.
-- What only changes events is let through, since that makes room.
local made = redis.pcall('XGROUP', 'CREATE', stream, group, '0', 'MKSTREAM')
if made.err and not string.find(made.err, 'BUSYGROUP', 1, true) then
	for _, write in ipairs(writes) do
		if write.mode ~= 'C' and write.mode ~= 'R' then
			return made
		end
	end
end
forget_places(writes)
for _, write in ipairs(writes) do
	if write.is_fresh then
		apply_fresh(write)
	else
		apply(write)
	end
end
return #writes
