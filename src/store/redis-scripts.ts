/**
 * All scripts. Each runs on keys of one slot (`redis-keys.ts`), takes its time from Redis, and may be repeated: where an
 * answer is lost, the second run changes nothing and answers the same. Times are milliseconds since the epoch.
 *
 * A session's scripts also write keys that they name themselves, `<prefix><turn id>`, which are in the slot of their
 * KEYS by the prefix's tag.
 */

/** Redis's time. */
const NOW = `
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
`;

/** Lets a key live until a time at least. */
const KEEP = `
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
const SLIDE = `
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
const REMOVE = `
local function remove(keys, turn_prefix, log_prefix)
  for _, turn in ipairs(redis.call('ZRANGE', keys[3], 0, -1)) do
    redis.call('UNLINK', turn_prefix .. turn, log_prefix .. turn)
  end
  redis.call('UNLINK', unpack(keys))
end
`;

/** Makes a session; removes first what an expired one of the same id left. `keys` as for SLIDE. */
const CREATE = `
${REMOVE}
local function create(keys, turn_prefix, log_prefix, session)
  remove(keys, turn_prefix, log_prefix)
  redis.call('HSET', keys[1], 'record', session.record, 'owner', session.owner, 'created', session.created,
    'updated', session.created, 'expire', session.expire, 'messages', 0, 'prompt', 0, 'completion', 0, 'cost', 0)
  redis.call('PEXPIREAT', keys[1], session.expire)
end
`;

/** Why a write under a lease is refused: -1: the lease is another's; -3: the turn is gone, and so its session is; nil: it is not. */
const REFUSED = `
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
const APPEND = `
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

/** Fields of a session that its view is made of, in the order in which scripts and HMGET return them. */
export const SESSION_FIELDS = [
  "record",
  "owner",
  "created",
  "updated",
  "expire",
  "messages",
  "prompt",
  "completion",
  "cost",
] as const;

const SESSION_FIELD_LIST = SESSION_FIELDS.map((field) => `'${field}'`).join(", ");

/** By name, as the client's commands are called. */
export const REDIS_SCRIPTS = {
  /**
   * Says before a session is made or used that it will live for one ttl from now, so that the account's count of
   * active sessions never misses one. Drops a few entries of expired sessions: more than it can add.
   *
   * KEYS: active, the user's sessions. ARGV: session, user, ttl ms, prefix of all users' sessions, mode: `use` (only if it
   * is known) or `create`, creation time (empty: now).
   * Result: nil (mode use: not known), or [now, end of life, its end before or ""].
   * The end of life rises with every call, which tells calls apart.
   */
  parleyTouchAccount: {
    numberOfKeys: 2,
    lua: `${NOW}${KEEP}
local session, ttl = ARGV[1], tonumber(ARGV[3])
for _, dead in ipairs(redis.call('ZRANGE', KEYS[1], '-inf', now, 'BYSCORE', 'LIMIT', 0, 16)) do
  local slash = string.find(dead, '/', 1, true)
  redis.call('ZREM', KEYS[1], dead)
  redis.call('ZREM', ARGV[4] .. string.sub(dead, slash + 1), string.sub(dead, 1, slash - 1))
end
local member = session .. '/' .. ARGV[2]
local before = tonumber(redis.call('ZSCORE', KEYS[1], member) or 0)
if before <= now then before = nil end
if ARGV[5] == 'use' and not before then return false end
local expire = now + ttl
if before and before >= expire then expire = before + 1 end
redis.call('ZADD', KEYS[1], expire, member)
keep(KEYS[1], expire)
if not before then redis.call('ZADD', KEYS[2], ARGV[6] == '' and now or ARGV[6], session) end
keep(KEYS[2], expire)
return {now, expire, before or ''}
`,
  },

  /**
   * Takes back a touch that came to nothing. A later touch stays.
   *
   * KEYS: active, the user's sessions. ARGV: session, user, the touch's end of life, the end before it or "". Result: 1.
   */
  parleyUntouchAccount: {
    numberOfKeys: 2,
    lua: `
local member = ARGV[1] .. '/' .. ARGV[2]
if tonumber(redis.call('ZSCORE', KEYS[1], member) or 0) == tonumber(ARGV[3]) then
  if ARGV[4] == '' then
    redis.call('ZREM', KEYS[1], member)
    redis.call('ZREM', KEYS[2], ARGV[1])
  else
    redis.call('ZADD', KEYS[1], ARGV[4], member)
  end
end
return 1
`,
  },

  /**
   * Forgets a session that is not there, unless it was touched again meanwhile.
   *
   * KEYS: active, the user's sessions. ARGV: session, user, its end of life, as last known. Result: 1.
   */
  parleyForgetSession: {
    numberOfKeys: 2,
    lua: `
local member = ARGV[1] .. '/' .. ARGV[2]
if tonumber(redis.call('ZSCORE', KEYS[1], member) or 0) <= tonumber(ARGV[3]) then
  redis.call('ZREM', KEYS[1], member)
  redis.call('ZREM', KEYS[2], ARGV[1])
end
return 1
`,
  },

  /**
   * The user's sessions that may be alive, newest first, those after a place, whether or not that one is still there.
   *
   * KEYS: active, the user's sessions. ARGV: user, most, creation time of the place or "", its session.
   * Result: [session, creation time, ...].
   */
  parleyListUserSessions: {
    numberOfKeys: 2,
    lua: `${NOW}
local most, after, session = tonumber(ARGV[2]), ARGV[3], ARGV[4]
local start = 0
if after ~= '' then
  local score = redis.call('ZSCORE', KEYS[2], session)
  if score and tonumber(score) == tonumber(after) then
    start = redis.call('ZREVRANK', KEYS[2], session) + 1
  else
    -- Stands there for a moment, so that the set says which come after it.
    redis.call('ZADD', KEYS[2], after, session)
    start = redis.call('ZREVRANK', KEYS[2], session)
    if not score then
      redis.call('ZREM', KEYS[2], session)
    else
      redis.call('ZADD', KEYS[2], score, session)
      if tonumber(score) > tonumber(after) then start = start + 1 end
    end
  end
end
local found = {}
while #found < 2 * most do
  local page = redis.call('ZRANGE', KEYS[2], start, start + most - 1, 'REV', 'WITHSCORES')
  if #page == 0 then break end
  for i = 1, #page, 2 do
    local expire = redis.call('ZSCORE', KEYS[1], page[i] .. '/' .. ARGV[1])
    if expire and tonumber(expire) > now and #found < 2 * most then
      found[#found + 1] = page[i]
      found[#found + 1] = page[i + 1]
    end
  end
  start = start + #page / 2
end
return found
`,
  },

  /** Sessions of an account that are alive. KEYS: active. Result: the number. */
  parleyCountActive: {
    numberOfKeys: 1,
    lua: `${NOW}return redis.call('ZCOUNT', KEYS[1], '(' .. string.format('%.0f', now), '+inf')`,
  },

  /** Says that a tenant may have sessions for some time. KEYS: tenants. ARGV: tenant, how long (ms). Result: 1. */
  parleyRegisterTenant: {
    numberOfKeys: 1,
    lua: `${NOW}${KEEP}
local expire = now + tonumber(ARGV[2])
redis.call('ZADD', KEYS[1], 'GT', expire, ARGV[1])
keep(KEYS[1], expire)
return 1
`,
  },

  /** Tenants that may have sessions; drops the others. KEYS: tenants. Result: the tenants. */
  parleyListTenants: {
    numberOfKeys: 1,
    lua: `${NOW}
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
return redis.call('ZRANGE', KEYS[1], 0, -1)
`,
  },

  /**
   * Makes a session.
   *
   * KEYS: session, messages, turns, queue, tickets. ARGV: prefixes of turns and logs, record, owner, creation time, end of life.
   * Result: [1], or [0, owner]: the id is taken; or [-1]: its life is over.
   */
  parleyCreateSession: {
    numberOfKeys: 5,
    lua: `${NOW}${CREATE}
local owner = redis.call('HGET', KEYS[1], 'owner')
if owner then return {0, owner} end
if tonumber(ARGV[6]) <= now then return {-1} end
create(KEYS, ARGV[1], ARGV[2], {record = ARGV[3], owner = ARGV[4], created = ARGV[5], expire = ARGV[6]})
return {1}
`,
  },

  /**
   * Replaces a session's record and prolongs its life.
   *
   * KEYS as above. ARGV: prefixes of turns and logs, end of life, ttl ms, record, creation time of the session that it is
   * meant for. Result: the fields of SESSION_FIELDS, or nil: that session is not there.
   */
  parleyUpdateSession: {
    numberOfKeys: 5,
    lua: `${NOW}${SLIDE}
if redis.call('HGET', KEYS[1], 'created') ~= ARGV[6] or tonumber(ARGV[3]) <= now then return false end
redis.call('HSET', KEYS[1], 'record', ARGV[5], 'updated', now)
slide(KEYS, ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]))
return redis.call('HMGET', KEYS[1], ${SESSION_FIELD_LIST})
`,
  },

  /** Prolongs a session's life. KEYS as above. ARGV: prefixes of turns and logs, end of life, ttl ms. Result: 1, or 0: not there. */
  parleySlideSession: {
    numberOfKeys: 5,
    lua: `${NOW}${SLIDE}
if redis.call('EXISTS', KEYS[1]) == 0 or tonumber(ARGV[3]) <= now then return 0 end
slide(KEYS, ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]))
return 1
`,
  },

  /** Removes a session and all that is its. KEYS as above. ARGV: prefixes of turns and logs. Result: [owner, end of life], or nil: not there. */
  parleyDeleteSession: {
    numberOfKeys: 5,
    lua: `${REMOVE}
local gone = redis.call('HMGET', KEYS[1], 'owner', 'expire')
if not gone[1] then return false end
remove(KEYS, ARGV[1], ARGV[2])
return gone
`,
  },

  /** Messages of the history. KEYS: session, messages. ARGV: offset, most. Result: the records, or nil: no such session. */
  parleyListMessages: {
    numberOfKeys: 2,
    lua: `
if redis.call('EXISTS', KEYS[1]) == 0 then return false end
if tonumber(ARGV[2]) < 1 then return {} end
return redis.call('LRANGE', KEYS[2], ARGV[1], ARGV[1] + ARGV[2] - 1)
`,
  },

  /**
   * Begins a turn: makes the session where asked, prolongs its life, and takes the lease or a place in the queue.
   *
   * KEYS: session, messages, turns, queue, tickets, turn, log. ARGV: 1 turn, 2 user, 3 nonce, 4 lease ms, 5 ticket ms,
   * 6 places in the queue, 7 messages of the window, 8 end of life, 9 ttl ms, 10 and 11 prefixes of turns and logs, 12 turn's
   * record, 13 log entry 1, 14 record of a session to make or "", 15 its creation time, 16 entries that a log keeps.
   * Result: ["begun", epoch, window] | ["queued", position] | ["abandoned", turn, last sequence] | ["full"] | ["missing"]
   * (no such session, or another user's) | ["lost"] (the turn was begun before, by another or to its end) | ["late"] (the
   * end of life is over).
   */
  parleyBeginTurn: {
    numberOfKeys: 7,
    lua: `${NOW}${SLIDE}${CREATE}
local turn = ARGV[1]
local session_keys = {KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]}
local expire, ttl = tonumber(ARGV[8]), tonumber(ARGV[9])
if expire <= now then return {'late'} end
local held = redis.call('HMGET', KEYS[1], 'owner', 'turn', 'nonce', 'until')
if not held[1] then
  if ARGV[14] == '' then return {'missing'} end
  create(session_keys, ARGV[10], ARGV[11], {record = ARGV[14], owner = ARGV[2], created = ARGV[15], expire = ARGV[8]})
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
  return {'begun', tonumber(redis.call('HGET', KEYS[1], 'epoch')), window()}
end
if redis.call('EXISTS', KEYS[6]) == 1 then return {'lost'} end

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
if busy and tonumber(held[4]) <= now then
  return {'abandoned', held[2], tonumber(redis.call('HGET', ARGV[10] .. held[2], 'last'))}
end
local head = waiting and redis.call('ZRANGE', KEYS[4], 0, 0)[1]
if busy or (head and head ~= turn) then
  if not redis.call('ZSCORE', KEYS[4], turn) then
    if redis.call('ZCARD', KEYS[4]) >= tonumber(ARGV[6]) then return {'full'} end
    redis.call('ZADD', KEYS[4], redis.call('HINCRBY', KEYS[1], 'ticket', 1), turn)
    redis.call('ZADD', KEYS[5], now + ARGV[5], turn)
    redis.call('PEXPIREAT', KEYS[4], expire)
    redis.call('PEXPIREAT', KEYS[5], expire)
  end
  return {'queued', redis.call('ZRANK', KEYS[4], turn) + (busy and 1 or 0)}
end

if waiting then
  redis.call('ZREM', KEYS[4], turn)
  redis.call('ZREM', KEYS[5], turn)
end
local epoch = redis.call('HINCRBY', KEYS[1], 'epoch', 1)
redis.call('HSET', KEYS[1], 'turn', turn, 'nonce', ARGV[3], 'until', now + ARGV[4])
redis.call('HSET', KEYS[6], 'record', ARGV[12], 'epoch', epoch, 'nonce', ARGV[3], 'last', 1, 'finish', 0,
  'prompt', 0, 'completion', 0, 'cost', 0)
redis.call('XADD', KEYS[7], 'MAXLEN', '=', ARGV[16], '1-0', 'e', ARGV[13])
redis.call('ZADD', KEYS[3], expire + ttl, turn)
redis.call('PEXPIREAT', KEYS[3], expire + ttl)
redis.call('PEXPIREAT', KEYS[6], expire + ttl)
redis.call('PEXPIREAT', KEYS[7], expire + ttl)
return {'begun', epoch, window()}
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
   * Ends a lost owner's turn, if its lease has run out and its log still ends where the caller saw it end. Its nonce goes:
   * the lost owner cannot take this end for its own.
   *
   * KEYS: session, turn, log. ARGV: turn, last sequence, finish reason, entries that a log keeps, entry. Result: 1, or 0:
   * it has moved on.
   */
  parleyCloseAbandoned: {
    numberOfKeys: 3,
    lua: `${NOW}${APPEND}
local held = redis.call('HMGET', KEYS[1], 'turn', 'until')
if held[1] ~= ARGV[1] or tonumber(held[2]) > now then return 0 end
if redis.call('HGET', KEYS[2], 'last') ~= ARGV[2] then return 0 end
append(KEYS[2], KEYS[3], tonumber(ARGV[2]) + 1, ARGV[4], 5, 5)
redis.call('HSET', KEYS[2], 'finish', ARGV[3], 'nonce', '')
local used = redis.call('HMGET', KEYS[2], 'prompt', 'completion', 'cost')
redis.call('HINCRBY', KEYS[1], 'prompt', used[1])
redis.call('HINCRBY', KEYS[1], 'completion', used[2])
redis.call('HINCRBY', KEYS[1], 'cost', used[3])
redis.call('HSET', KEYS[1], 'turn', '', 'nonce', '', 'until', 0, 'updated', now)
return 1
`,
  },

  /**
   * Appends to the log of the turn that holds the lease, and prolongs the lease: a sign of life.
   *
   * KEYS: session, turn, log. ARGV: turn, epoch, nonce, lease ms, sequence of the first entry, tokens and cost that the
   * entries record (prompt, completion, micro USD), entries that a log keeps, entries.
   * Result: the number appended; -1: the lease is lost; -2: the entries don't follow the log; -3: the session was deleted.
   */
  parleyAppend: {
    numberOfKeys: 3,
    lua: `${NOW}${REFUSED}${APPEND}
local refusal = refused(KEYS[1], KEYS[2], ARGV[1], ARGV[2], ARGV[3])
if refusal then return refusal end
local appended = append(KEYS[2], KEYS[3], tonumber(ARGV[5]), ARGV[9], 10, #ARGV)
if not appended then return -2 end
if appended > 0 and (ARGV[6] ~= '0' or ARGV[7] ~= '0' or ARGV[8] ~= '0') then
  redis.call('HINCRBY', KEYS[2], 'prompt', ARGV[6])
  redis.call('HINCRBY', KEYS[2], 'completion', ARGV[7])
  redis.call('HINCRBY', KEYS[2], 'cost', ARGV[8])
end
redis.call('HSET', KEYS[1], 'until', now + ARGV[4])
return appended
`,
  },

  /**
   * Ends a turn: appends the last entries, adds messages and usage to the session, gives the lease back.
   *
   * KEYS: session, messages, turn, log. ARGV: turn, epoch, nonce, sequence of the first entry, finish reason, tokens and cost
   * of the whole turn (prompt, completion, micro USD), entries that a log keeps, number of entries, entries, messages.
   * Result: 1; 0: it was done before; -1: the lease is lost; -2: the entries don't follow the log; -3: the session was deleted.
   */
  parleyCommitTurn: {
    numberOfKeys: 4,
    lua: `${NOW}${REFUSED}${APPEND}
local turn = redis.call('HMGET', KEYS[3], 'epoch', 'nonce', 'finish')
if turn[1] == ARGV[2] and turn[2] == ARGV[3] and turn[3] ~= '0' and redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
local refusal = refused(KEYS[1], KEYS[3], ARGV[1], ARGV[2], ARGV[3])
if refusal then return refusal end
local last_entry = 10 + ARGV[10]
if not append(KEYS[3], KEYS[4], tonumber(ARGV[4]), ARGV[9], 11, last_entry) then return -2 end
redis.call('HSET', KEYS[3], 'finish', ARGV[5], 'prompt', ARGV[6], 'completion', ARGV[7], 'cost', ARGV[8])
local added, messages = #ARGV - last_entry, 0
for i = last_entry + 1, #ARGV do messages = redis.call('RPUSH', KEYS[2], ARGV[i]) end
-- A list that was there before lives as long as the session already.
if messages == added and added > 0 then redis.call('PEXPIREAT', KEYS[2], redis.call('HGET', KEYS[1], 'expire')) end
redis.call('HINCRBY', KEYS[1], 'messages', added)
redis.call('HINCRBY', KEYS[1], 'prompt', ARGV[6])
redis.call('HINCRBY', KEYS[1], 'completion', ARGV[7])
redis.call('HINCRBY', KEYS[1], 'cost', ARGV[8])
redis.call('HSET', KEYS[1], 'turn', '', 'nonce', '', 'until', 0, 'updated', now)
return 1
`,
  },

  /**
   * Prolongs a lease. KEYS: session, turn. ARGV: turn, epoch, nonce, lease ms.
   * Result: [owner, creation time, life that is left (ms)]; -1: the lease is lost; -3: the session was deleted.
   */
  parleyRenewLease: {
    numberOfKeys: 2,
    lua: `${NOW}${REFUSED}
local refusal = refused(KEYS[1], KEYS[2], ARGV[1], ARGV[2], ARGV[3])
if refusal then return refusal end
redis.call('HSET', KEYS[1], 'until', now + ARGV[4])
local session = redis.call('HMGET', KEYS[1], 'owner', 'created', 'expire')
return {session[1], session[2], tonumber(session[3]) - now}
`,
  },

  /** Where a turn stands. KEYS: session, turn. Result: [record, finish, last, prompt, completion, cost], or nil: no such turn. */
  parleyGetTurn: {
    numberOfKeys: 2,
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
    lua: `
local last = redis.call('EXISTS', KEYS[1]) == 1 and redis.call('HGET', KEYS[2], 'last')
if not last then return false end
return {last, redis.call('XRANGE', KEYS[3], ARGV[1] .. '-0', '+', 'COUNT', ARGV[2])}
`,
  },
} as const satisfies Record<string, { readonly numberOfKeys: number; readonly lua: string }>;

export type RedisScriptName = keyof typeof REDIS_SCRIPTS;
