-- A batch is sent.  ARGV: prefix, group, worker, number of the batch, now as
-- text, seconds that sent events stay.  Returns how many events, or -1 if
-- another worker has them.
local worker, batch, now_text, ttl = ARGV[3], ARGV[4], ARGV[5], tonumber(ARGV[6])
local entries, ids = {}, {}

look_at_keys(batch)
for _, id in ipairs(redis.call('SMEMBERS', batch_key(batch))) do
	local was = redis.call('HMGET', meta(id), 'status', 'sagaz:batch', 'worker_id',
		'sagaz:entry')
	if was[1] == 'claimed' and was[2] == batch then
		if was[3] ~= worker then
			return -1
		end
		ids[#ids + 1] = id
		entries[#ids] = was[4]
	end
end
for i, id in ipairs(ids) do
	local key = meta(id)
	redis.call('HDEL', key, 'sagaz:batch', 'sagaz:lease', 'sagaz:next', 'sagaz:entry')
	redis.call('HSET', key, 'status', 'sent', 'sent_at', now_text)
	redis.call('HDEL', processing, id)
	redis.call('ZREM', due, id)
	drop_entry(entries[i])
	if ttl > 0 then
		redis.call('EXPIRE', key, ttl)
	end
end
redis.call('DEL', batch_key(batch))
return #ids
