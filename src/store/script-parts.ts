/** Pieces that the scripts share. Each defines a local function or variable of the same name. */

/** Redis's time. */
export const NOW = `
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
`;

/** Lets a key live until a time at least. */
export const KEEP = `
local function keep(key, at)
  if redis.call('PEXPIREAT', key, at, 'GT') == 0 and redis.call('PTTL', key) == -1 then
    redis.call('PEXPIREAT', key, at)
  end
end
`;

/**
 * Prolongs a session's life to `at` (never shortens it) and returns its end. The keys of its turns get one ttl more than
 * they need, so that each of them is prolonged once per ttl at most and a session's use costs the same at any age.
 * `keys`: session, messages, turns, queue, tickets.
 */
export const SLIDE = `
local function slide(keys, turn_prefix, log_prefix, at, ttl)
  local current = tonumber(redis.call('HGET', keys[1], 'expire') or 0)
  if at <= current then return current end
  redis.call('HSET', keys[1], 'expire', at)
  redis.call('PEXPIREAT', keys[1], at)
  redis.call('PEXPIREAT', keys[2], at)
  redis.call('PEXPIREAT', keys[4], at)
  redis.call('PEXPIREAT', keys[5], at)
  for _, turn in ipairs(redis.call('ZRANGE', keys[3], '-inf', at, 'BYSCORE')) do
    redis.call('PEXPIREAT', turn_prefix .. turn, at + ttl)
    redis.call('PEXPIREAT', log_prefix .. turn, at + ttl)
    redis.call('ZADD', keys[3], at + ttl, turn)
  end
  redis.call('PEXPIREAT', keys[3], at + ttl)
  return at
end
`;

/** Removes a session, or what an expired one of the same id left. `keys` as for SLIDE. */
export const REMOVE = `
local function remove(keys, turn_prefix, log_prefix)
  for _, turn in ipairs(redis.call('ZRANGE', keys[3], 0, -1)) do
    redis.call('UNLINK', turn_prefix .. turn, log_prefix .. turn)
  end
  redis.call('UNLINK', unpack(keys))
end
`;

/** Makes a session; removes first what an expired one of the same id left. `keys` as for SLIDE. */
export const CREATE = `
${REMOVE}
local function create(keys, turn_prefix, log_prefix, session)
  remove(keys, turn_prefix, log_prefix)
  redis.call('HSET', keys[1], 'record', session.record, 'owner', session.owner, 'created', session.created,
    'updated', session.created, 'expire', session.expire, 'version', session.version, 'messages', 0, 'prompt', 0, 'completion', 0, 'cost', 0)
  redis.call('PEXPIREAT', keys[1], session.expire)
end
`;

/** Why a write under a lease is refused: -1: the lease is another's; -3: the turn is gone, and so its session is; nil: it is not. */
export const REFUSED = `
local function refused(session, turn_key, turn, epoch, nonce)
  local held = redis.call('HMGET', session, 'turn', 'epoch', 'nonce')
  if held[1] == turn and held[2] == epoch and held[3] == nonce then return nil end
  return redis.call('EXISTS', session, turn_key) == 2 and -1 or -3
end
`;

/**
 * Appends to a log what it lacks of `ARGV[from]` to `ARGV[to]`, whose first has the sequence `first`. Returns the number
 * appended, or nil: they don't follow the log.
 */
export const APPEND = `
local function append(turn, log, first, limit, from, to)
  local last = tonumber(redis.call('HGET', turn, 'last'))
  if first > last + 1 then return nil end
  local start = from + last + 1 - first
  for i = start, to do
    redis.call('XADD', log, 'MAXLEN', '=', limit, string.format('%.0f-0', first + i - from), 'e', ARGV[i])
  end
  if start > to then return 0 end
  redis.call('HSET', turn, 'last', first + to - from)
  return to - start + 1
end
`;

/**
 * Tells live readers of other processes what was appended: `ARGV[from]` to `ARGV[to]`, each as `<bytes>:<entry>`. Nothing is
 * put together when nobody of this shard listens.
 */
export const PUBLISH = `
local function publish(channel, from, to)
  if from > to or redis.call('PUBSUB', 'SHARDNUMSUB', channel)[2] == 0 then return end
  local parts = {}
  for i = from, to do parts[#parts + 1] = #ARGV[i] .. ':' .. ARGV[i] end
  redis.call('SPUBLISH', channel, table.concat(parts))
end
`;

/**
 * Gives a running turn's lease to a new owner, once more to one that did not hear of it. Returns [epoch, takeovers, record, last sequence, prompt tokens, completion
 * tokens, cost, finish reason that the turn is to end with or "", window, journal].
 */
export const TAKE = `
local function take(session, messages, turn_key, nonce, until_ms)
  local again = redis.call('HGET', session, 'nonce') == nonce
  local epoch = redis.call('HINCRBY', session, 'epoch', 1)
  redis.call('HSET', session, 'nonce', nonce, 'until', until_ms)
  redis.call('HSET', turn_key, 'epoch', epoch, 'nonce', nonce)
  local takeovers = redis.call('HINCRBY', turn_key, 'takeovers', again and 0 or 1)
  local turn = redis.call('HMGET', turn_key, 'record', 'last', 'prompt', 'completion', 'cost', 'stop', 'steps', 'window')
  local steps, window = {}, {}
  for i = 1, tonumber(turn[7] or 0) do steps[i] = redis.call('HGET', turn_key, 's' .. i) end
  if tonumber(turn[8] or 0) > 0 then window = redis.call('LRANGE', messages, -turn[8], -1) end
  return {epoch, takeovers, turn[1], turn[2], turn[3], turn[4], turn[5], turn[6] or '', window, steps}
end
`;
