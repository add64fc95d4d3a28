-- What the scripts on the outbox share.  The stream <prefix>:events is the
-- queue, the hashes <prefix>:meta:<event_id> are the truth.  Beside the
-- library's fields a hash has: sagaz:entry, its entry in the stream;
-- sagaz:batch and sagaz:lease, while it is claimed; sagaz:next, not to be
-- handed out before; sagaz:dead, its entry in the stream of dead letters.
-- Times of sagaz are microseconds since 2000.
--
-- An event that is to be handed out is in one of two places: in the stream
-- beyond what the group has read; or, if its time has yet to come or its
-- entry was read already, in the sorted set <prefix>:sagaz:due.  One that is
-- claimed is there, too, with the end of its lease, as others may take its
-- entry from the stream meanwhile.
local prefix, group = ARGV[1], ARGV[2]
local stream, dead_letters = prefix .. ':events', prefix .. ':dlq'
local processing, due = prefix .. ':processing', prefix .. ':sagaz:due'

local function meta(id)
	return prefix .. ':meta:' .. id
end

local function batch_key(batch)
	return prefix .. ':sagaz:batch:' .. batch
end

local function comes_after(a, b)
	local a_ms, a_seq = string.match(a, '^(%d+)%-(%d+)$')
	local b_ms, b_seq = string.match(b, '^(%d+)%-(%d+)$')
	if a_ms ~= b_ms then
		return tonumber(a_ms) > tonumber(b_ms)
	end
	return tonumber(a_seq) > tonumber(b_seq)
end

-- The groups of the stream by name, as they were when first asked for.
local groups
local function all_groups()
	if groups == nil then
		groups = {}
		if redis.call('EXISTS', stream) == 1 then
			for _, fields in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
				local known = {}
				for i = 1, #fields, 2 do
					known[fields[i]] = fields[i + 1]
				end
				groups[known.name] = known
			end
		end
	end
	return groups
end

-- The hash of an event: its fields by name, and as they came.  {} if there is
-- certainly none, nothing if the key is another program's; what cannot be read
-- ends the script.
local function load(id)
	local words, fields = redis.pcall('HGETALL', meta(id)), {}
	if words.err then
		if string.sub(words.err, 1, 9) == 'WRONGTYPE' then
			return nil
		end
		redis.call('HGETALL', meta(id))
	end
	for i = 1, #words, 2 do
		fields[words[i]] = words[i + 1]
	end
	return fields, words
end

-- Before anything is written: a key that is another program's, or that may not
-- be read, ends the script here and not half way.
local function look_at_keys(batch)
	redis.call('XLEN', stream)
	redis.call('XLEN', dead_letters)
	redis.call('HLEN', processing)
	redis.call('ZCARD', due)
	if batch then
		redis.call('SCARD', batch_key(batch))
	end
	load('')
	all_groups()
end

local function is_pending(name, entry)
	return #redis.call('XPENDING', stream, name, entry, entry, 1) > 0
end

local function is_in_stream(entry)
	return #redis.call('XRANGE', stream, entry, entry) > 0
end

-- This group is done with the entry; the last one takes it out.
local function drop_entry(entry)
	if not entry then
		return
	end
	redis.call('XACK', stream, group, entry)
	for name, other in pairs(all_groups()) do
		if name ~= group and (comes_after(entry, other['last-delivered-id']) or
				is_pending(name, entry)) then
			return
		end
	end
	redis.call('XDEL', stream, entry)
end

local function add_entry(id, saga_id, event_type)
	return redis.call('XADD', stream, '*', 'event_id', id, 'saga_id', saga_id,
		'event_type', event_type)
end

-- Keep the entry from XAUTOCLAIM until the lease is over.
local function set_lease(worker, entry, left_ms, lease_ms)
	redis.call('XCLAIM', stream, group, worker, 0, entry, 'IDLE',
		string.format('%.0f', math.max(0, lease_ms - left_ms)), 'JUSTID')
end
