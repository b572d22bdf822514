-- Summary      A client takes tokens from its bucket, as many as there are; the bucket fills as time passes.
-- KEYS[1]      bucket: string, the instant (server time in us) at which it is full again, none when it is; any slot
-- ARGV[1]      rate: tokens that the bucket gains in a second, 1..1000000
-- ARGV[2]      burst: tokens that a full bucket holds, 1..1000000
-- ARGV[3]      asked: tokens that the client asks for, 1..1000000
-- ARGV[4]      spare: tokens to give beyond those while the bucket is more than half full, 0..1000000
-- Returns      {"ok", tokens given, spare ones included, tokens left}
-- Errors       BADARG before anything is written
-- Complexity   O(1)
-- Effects      writes bucket, with a time to live: a bucket that is full again is none
-- Why atomic   two processes that both saw the last token would both give it

-- @include whole

local bucket_key = KEYS[1]
local rate, burst = whole(ARGV[1], 1, 1000000), whole(ARGV[2], 1, 1000000)
local asked, spare = whole(ARGV[3], 1, 1000000), whole(ARGV[4], 0, 1000000)

if #ARGV ~= 4 or not rate or not burst or not asked or not spare then
    return redis.error_reply("BADARG take takes a rate, a burst, and two numbers of tokens")
end

-- One instant tells the whole bucket: the generic cell rate algorithm, ITU-T I.371 annex A.
local clock = redis.call("TIME")
local now = tonumber(clock[1]) * 1000000 + tonumber(clock[2])
local token = 1000000 / rate
local kept = math.max(whole(redis.call("GET", bucket_key), 0, 10 ^ 16 - 1) or now, now)
-- No bucket is emptier than empty: an instant beyond that is of another clock, that of the master before a failover, or
-- this server's before it was set back. The client would be refused for as long as the two differ.
local is_strange = kept > now + burst * token + 1
local full_at = math.max(is_strange and now or kept, now)
local held = math.max(math.floor((now + burst * token - full_at) / token), 0)
local given = math.min(asked, held)
if (held - given) * 2 > burst then
    given = given + math.min(spare, held - given)
end
if given > 0 then
    -- Rounded up: never a token more than time has brought. %.0f, because Lua would write 1.7e15.
    full_at = math.ceil(full_at + given * token)
    redis.call("SET", bucket_key, string.format("%.0f", full_at), "PX", math.ceil((full_at - now) / 1000) + 1)
end
return { "ok", given, held - given }
