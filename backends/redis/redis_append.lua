-- Append to the broker's stream, if its end is still this one.  ARGV: stream,
-- its end, the length it is cut to (0: it is not); then for each entry: id,
-- the number of words of its fields, these.  Returns 1, or 0 if the end is
-- another.
local stream, max_length = ARGV[1], ARGV[3]
local stream_end, at = '0-0', 4

if redis.call('EXISTS', stream) == 1 then
	local info = redis.call('XINFO', 'STREAM', stream)
	for i = 1, #info, 2 do
		if info[i] == 'last-generated-id' then
			stream_end = info[i + 1]
		end
	end
end
if stream_end ~= ARGV[2] then
	return 0
end
while at <= #ARGV do
	local last = at + 1 + tonumber(ARGV[at + 1])
	if max_length == '0' then
		redis.call('XADD', stream, ARGV[at], unpack(ARGV, at + 2, last))
	else
		redis.call('XADD', stream, 'MAXLEN', '~', max_length, ARGV[at],
			unpack(ARGV, at + 2, last))
	end
	at = last + 1
end
return 1
