import { APPEND, CREATE, NOW, PUBLISH, REFUSED, SLIDE, TAKE } from "./script-parts.ts";

/** Scripts on a session's turns: their begin, their log and journal, their lease. */
export const TURN_SCRIPTS = {
  /**
   * Begins a turn: makes the session where asked, prolongs its life, and takes the lease or a place in the queue.
   *
   * KEYS: session, messages, turns, queue, tickets, turn, log. ARGV: 1 turn, 2 user, 3 nonce, 4 lease ms, 5 ticket ms,
   * 6 places in the queue, 7 messages of the window, 8 end of life, 9 ttl ms, 10 and 11 prefixes of turns and logs, 12 turn's
   * record, 13 log entry 1, 14 record of a session to make or "", 15 its creation time, 16 entries that a log keeps, 17 what to
   * do with a running turn: "" (wait), "reject", or the finish reason that it is to end with, 18 version of the release, then
   * messages of a session to make.
   * Result: ["begun", epoch, window, version of the release that began the session or ""] | ["queued", position, lapsed] | ["preempted", running turn, what TAKE returns, nonce of
   * the owner it had] | ["busy", running turn, last sequence, lapsed] | ["full"] | ["missing"] (no such session, or another
   * user's) | ["exists"] (the turn was begun before, by another) | ["late"] (the end of life is over). Lapsed: the running turn,
   * if its lease has run out.
   */
  parleyBeginTurn: {
    numberOfKeys: 7,
    lua: `${NOW}${SLIDE}${CREATE}${TAKE}
local turn = ARGV[1]
local session_keys = {KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]}
local expire, ttl = tonumber(ARGV[8]), tonumber(ARGV[9])
if expire <= now then return {'late'} end
local held = redis.call('HMGET', KEYS[1], 'owner', 'turn', 'nonce', 'until', 'version')
if not held[1] then
  if ARGV[14] == '' then return {'missing'} end
  create(session_keys, ARGV[10], ARGV[11], {record = ARGV[14], owner = ARGV[2], created = ARGV[15], expire = ARGV[8], version = ARGV[18]})
  held[5] = ARGV[18]
  for i = 19, #ARGV do redis.call('RPUSH', KEYS[2], ARGV[i]) end
  if #ARGV >= 19 then
    redis.call('PEXPIREAT', KEYS[2], ARGV[8])
    redis.call('HSET', KEYS[1], 'messages', #ARGV - 18)
  end
elseif held[1] ~= ARGV[2] then
  return {'missing'}
end
expire = slide(session_keys, ARGV[10], ARGV[11], expire, ttl)

local window = function()
  if ARGV[7] == '0' then return {} end
  return redis.call('LRANGE', KEYS[2], -ARGV[7], -1)
end
if held[2] == turn and held[3] == ARGV[3] then
  redis.call('HSET', KEYS[1], 'until', now + ARGV[4])
  return {'begun', tonumber(redis.call('HGET', KEYS[1], 'epoch')), window(), held[5] or ''}
end
if redis.call('EXISTS', KEYS[6]) == 1 then return {'exists'} end

-- Nearly always nobody waits.
local waiting = redis.call('EXISTS', KEYS[4], KEYS[5]) > 0
if waiting then
  for _, lapsed in ipairs(redis.call('ZRANGE', KEYS[5], '-inf', now, 'BYSCORE')) do
    redis.call('ZREM', KEYS[4], lapsed)
    redis.call('ZREM', KEYS[5], lapsed)
  end
  redis.call('ZADD', KEYS[5], 'XX', now + ARGV[5], turn)
end
local busy = held[2] and held[2] ~= ''
local lapsed = busy and tonumber(held[4]) <= now and held[2] or ''
local head = waiting and redis.call('ZRANGE', KEYS[4], 0, 0, 'WITHSCORES') or {}
if ARGV[17] == 'reject' and (busy or (head[1] and head[1] ~= turn)) then
  redis.call('ZREM', KEYS[4], turn)
  redis.call('ZREM', KEYS[5], turn)
  local other = busy and held[2] or ''
  return {'busy', other, busy and redis.call('HGET', ARGV[10] .. other, 'last') or '0', lapsed}
end
if busy or (head[1] and head[1] ~= turn) then
  if not redis.call('ZSCORE', KEYS[4], turn) then
    if redis.call('ZCARD', KEYS[4]) >= tonumber(ARGV[6]) then return {'full'} end
    local ends_running = ARGV[17] ~= '' and ARGV[17] ~= 'reject'
    local place = ends_running and (head[2] and head[2] - 1 or 0) or redis.call('HINCRBY', KEYS[1], 'ticket', 1)
    redis.call('ZADD', KEYS[4], place, turn)
    redis.call('ZADD', KEYS[5], now + ARGV[5], turn)
    redis.call('PEXPIREAT', KEYS[4], expire)
    redis.call('PEXPIREAT', KEYS[5], expire)
    if ends_running and busy and redis.call('HSETNX', ARGV[10] .. held[2], 'stop', ARGV[17]) == 1 then
      return {'preempted', held[2], take(KEYS[1], KEYS[2], ARGV[10] .. held[2], ARGV[3], now + ARGV[4]), held[3]}
    end
  end
  if busy and held[3] == ARGV[3] then
    -- The answer that said so was lost.
    return {'preempted', held[2], take(KEYS[1], KEYS[2], ARGV[10] .. held[2], ARGV[3], now + ARGV[4]), ''}
  end
  return {'queued', redis.call('ZRANK', KEYS[4], turn) + (busy and 1 or 0), lapsed}
end

if waiting then
  redis.call('ZREM', KEYS[4], turn)
  redis.call('ZREM', KEYS[5], turn)
end
local epoch = redis.call('HINCRBY', KEYS[1], 'epoch', 1)
redis.call('HSET', KEYS[1], 'turn', turn, 'nonce', ARGV[3], 'until', now + ARGV[4])
redis.call('HSET', KEYS[6], 'record', ARGV[12], 'epoch', epoch, 'nonce', ARGV[3], 'last', 1, 'finish', 0,
  'prompt', 0, 'completion', 0, 'cost', 0, 'window', ARGV[7])
redis.call('XADD', KEYS[7], 'MAXLEN', '=', ARGV[16], '1-0', 'e', ARGV[13])
redis.call('ZADD', KEYS[3], expire + ttl, turn)
redis.call('PEXPIREAT', KEYS[3], expire + ttl)
redis.call('PEXPIREAT', KEYS[6], expire + ttl)
redis.call('PEXPIREAT', KEYS[7], expire + ttl)
return {'begun', epoch, window(), held[5] or ''}
`,
  },

  /** Gives up a place in the queue. KEYS: queue, tickets. ARGV: turn. Result: 1. */
  parleyLeaveQueue: {
    numberOfKeys: 2,
    lua: `
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('ZREM', KEYS[2], ARGV[1])
return 1
`,
  },

  /**
   * Appends to the log and the journal of the turn that holds the lease, and prolongs the lease: a sign of life. Writes
   * nothing when the turn is to be stopped, unless it was all written before.
   *
   * KEYS: session, turn, log. ARGV: 1 turn, 2 epoch, 3 nonce, 4 lease ms, 5 sequence of the first entry, 6 to 8 tokens and cost
   * that the entries record (prompt, completion, micro USD), 9 entries that a log keeps, 10 channel of live readers, 11 number
   * of entries, 12 journal lines before these, then entries, then journal lines.
   * Result: the number appended; -1: the lease is lost; -2: the entries don't follow the log; -3: the session was deleted;
   * -100 less the finish reason that the turn is to end with.
   */
  parleyAppend: {
    numberOfKeys: 3,
    lua: `${NOW}${REFUSED}${APPEND}${PUBLISH}
local refusal = refused(KEYS[1], KEYS[2], ARGV[1], ARGV[2], ARGV[3])
if refusal then return refusal end
local first, last_entry = tonumber(ARGV[5]), 12 + ARGV[11]
local turn = redis.call('HMGET', KEYS[2], 'last', 'steps', 'stop')
local steps = ARGV[12] + #ARGV - last_entry
local has_all = first + ARGV[11] - 1 <= tonumber(turn[1]) and steps <= tonumber(turn[2] or 0)
if turn[3] and not has_all then return -100 - turn[3] end
local appended = append(KEYS[2], KEYS[3], first, ARGV[9], 13, last_entry)
if not appended then return -2 end
if appended > 0 and (ARGV[6] ~= '0' or ARGV[7] ~= '0' or ARGV[8] ~= '0') then
  redis.call('HINCRBY', KEYS[2], 'prompt', ARGV[6])
  redis.call('HINCRBY', KEYS[2], 'completion', ARGV[7])
  redis.call('HINCRBY', KEYS[2], 'cost', ARGV[8])
end
if not has_all and #ARGV > last_entry then
  for i = last_entry + 1, #ARGV do redis.call('HSET', KEYS[2], 's' .. ARGV[12] + i - last_entry, ARGV[i]) end
  redis.call('HSET', KEYS[2], 'steps', steps)
end
redis.call('HSET', KEYS[1], 'until', now + ARGV[4])
publish(ARGV[10], 13, last_entry)
return appended
`,
  },

  /**
   * Ends a turn: appends the last entries, adds messages and usage to the session, gives the lease back.
   *
   * KEYS: session, messages, turn, log. ARGV: turn, epoch, nonce, sequence of the first entry, finish reason, tokens and cost
   * of the whole turn (prompt, completion, micro USD), entries that a log keeps, number of entries, channel of live readers,
   * entries, messages.
   * Result: 1; 0: it was done before; -1: the lease is lost; -2: the entries don't follow the log; -3: the session was deleted.
   */
  parleyCommitTurn: {
    numberOfKeys: 4,
    lua: `${NOW}${REFUSED}${APPEND}${PUBLISH}
local turn = redis.call('HMGET', KEYS[3], 'epoch', 'nonce', 'finish', 'steps')
if turn[1] == ARGV[2] and turn[2] == ARGV[3] and turn[3] ~= '0' and redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
local refusal = refused(KEYS[1], KEYS[3], ARGV[1], ARGV[2], ARGV[3])
if refusal then return refusal end
local last_entry = 11 + ARGV[10]
if not append(KEYS[3], KEYS[4], tonumber(ARGV[4]), ARGV[9], 12, last_entry) then return -2 end
redis.call('HSET', KEYS[3], 'finish', ARGV[5], 'prompt', ARGV[6], 'completion', ARGV[7], 'cost', ARGV[8])
-- The journal has served its end.
for i = 1, tonumber(turn[4] or 0) do redis.call('HDEL', KEYS[3], 's' .. i) end
local added, messages = #ARGV - last_entry, 0
for i = last_entry + 1, #ARGV do messages = redis.call('RPUSH', KEYS[2], ARGV[i]) end
-- A list that was there before lives as long as the session already.
if messages == added and added > 0 then redis.call('PEXPIREAT', KEYS[2], redis.call('HGET', KEYS[1], 'expire')) end
redis.call('HINCRBY', KEYS[1], 'messages', added)
redis.call('HINCRBY', KEYS[1], 'prompt', ARGV[6])
redis.call('HINCRBY', KEYS[1], 'completion', ARGV[7])
redis.call('HINCRBY', KEYS[1], 'cost', ARGV[8])
redis.call('HSET', KEYS[1], 'turn', '', 'nonce', '', 'until', 0, 'updated', now)
publish(ARGV[11], 12, last_entry)
return 1
`,
  },

  /**
   * Prolongs a lease. KEYS: session, turn. ARGV: turn, epoch, nonce, lease ms.
   * Result: [owner, creation time, life that is left (ms), finish reason that the turn is to end with or ""]; -1: the lease is lost; -3: the session was deleted.
   */
  parleyRenewLease: {
    numberOfKeys: 2,
    lua: `${NOW}${REFUSED}
local refusal = refused(KEYS[1], KEYS[2], ARGV[1], ARGV[2], ARGV[3])
if refusal then return refusal end
redis.call('HSET', KEYS[1], 'until', now + ARGV[4])
local session = redis.call('HMGET', KEYS[1], 'owner', 'created', 'expire')
return {session[1], session[2], tonumber(session[3]) - now, redis.call('HGET', KEYS[2], 'stop') or ''}
`,
  },

  /**
   * Gives a lease up amid the turn. That is no loss of its owner: the takeover that follows is not counted as one.
   * KEYS: session, turn. ARGV: turn, epoch, nonce. Result: 1; -1, -3 as above.
   */
  parleyReleaseLease: {
    numberOfKeys: 2,
    lua: `${REFUSED}
local refusal = refused(KEYS[1], KEYS[2], ARGV[1], ARGV[2], ARGV[3])
if refusal then return refusal end
if redis.call('HGET', KEYS[1], 'until') ~= '0' then redis.call('HINCRBY', KEYS[2], 'takeovers', -1) end
redis.call('HSET', KEYS[1], 'until', 0)
return 1
`,
  },

  /**
   * Takes the lease of a turn whose owner is lost, or is this very claimer, whose answer was lost.
   *
   * KEYS: session, messages, turn. ARGV: turn, nonce, lease ms.
   * Result: [when the lease runs out, what TAKE returns], [when the lease runs out]: it is held, or nil: the turn does not run.
   */
  parleyClaimTurn: {
    numberOfKeys: 3,
    lua: `${NOW}${TAKE}
local held = redis.call('HMGET', KEYS[1], 'turn', 'until', 'nonce')
if held[1] ~= ARGV[1] then return false end
if tonumber(held[2]) > now and held[3] ~= ARGV[2] then return {tonumber(held[2])} end
return {now + ARGV[3], take(KEYS[1], KEYS[2], KEYS[3], ARGV[2], now + ARGV[3])}
`,
  },

  /**
   * Asks for a turn's end; of several reasons the first counts. KEYS: session, turn. ARGV: turn, finish reason.
   * Result: [nonce of the owner, or ""], or nil: no such turn.
   */
  parleyStopTurn: {
    numberOfKeys: 2,
    lua: `
local held = redis.call('HMGET', KEYS[1], 'turn', 'nonce', 'owner')
local finish = redis.call('HGET', KEYS[2], 'finish')
if not held[3] or not finish then return false end
if finish ~= '0' then return {''} end
redis.call('HSETNX', KEYS[2], 'stop', ARGV[2])
return {held[1] == ARGV[1] and held[2] or ''}
`,
  },

  /** Where a turn stands. KEYS: session, turn. Result: [record, finish, last, prompt, completion, cost], or nil: no such turn. */
  parleyGetTurn: {
    numberOfKeys: 2,
    readOnly: true,
    lua: `
if redis.call('EXISTS', KEYS[1]) == 0 or redis.call('EXISTS', KEYS[2]) == 0 then return false end
return redis.call('HMGET', KEYS[2], 'record', 'finish', 'last', 'prompt', 'completion', 'cost')
`,
  },

  /**
   * Entries of a log. KEYS: session, turn, log. ARGV: first sequence, most.
   * Result: [sequence of the newest entry, entries that XRANGE finds], or nil: no such turn.
   */
  parleyReadLog: {
    numberOfKeys: 3,
    readOnly: true,
    lua: `
local last = redis.call('EXISTS', KEYS[1]) == 1 and redis.call('HGET', KEYS[2], 'last')
if not last then return false end
return {last, redis.call('XRANGE', KEYS[3], ARGV[1] .. '-0', '+', 'COUNT', ARGV[2])}
`,
  },
} as const;
