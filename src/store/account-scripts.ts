import { KEEP, NOW } from "./script-parts.ts";

/** Scripts on an account's keys, and on the list of all accounts. */
export const ACCOUNT_SCRIPTS = {
  /**
   * Says before a session is made or used that it will live for one ttl from now, so that the account's count of
   * active sessions never misses one. Drops a few entries of expired sessions: more than it can add.
   *
   * KEYS: active, the user's sessions, leases. ARGV: session, user, ttl ms, prefix of all users' sessions, mode: `use` (only
   * if it is known) or `create`, creation time (empty: now), turn that is about to take a lease (empty: none), lease ms.
   * Result: nil (mode use: not known), or [now, end of life, its end before or ""].
   * The end of life rises with every call, which tells calls apart.
   */
  parleyTouchAccount: {
    numberOfKeys: 3,
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
if ARGV[7] ~= '' then
  redis.call('ZADD', KEYS[3], now + ARGV[8], ARGV[7])
  keep(KEYS[3], expire)
end
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
    readOnly: true,
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
    readOnly: true,
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
    readOnly: true,
    lua: `${NOW}
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
return redis.call('ZRANGE', KEYS[1], 0, -1)
`,
  },

  /**
   * Turns whose lease may have run out, those that wait longest first. KEYS: leases. ARGV: most. Result: the turns.
   */
  parleyDueLeases: {
    numberOfKeys: 1,
    readOnly: true,
    lua: `${NOW}return redis.call('ZRANGE', KEYS[1], '-inf', now, 'BYSCORE', 'LIMIT', 0, ARGV[1])`,
  },

  /**
   * Says when turns are to be looked at again. KEYS: leases. ARGV: [turn, when (ms since the epoch; 0: now; empty: never) ...].
   * Result: 1.
   */
  parleySetLeases: {
    numberOfKeys: 1,
    lua: `${NOW}
for i = 1, #ARGV, 2 do
  if ARGV[i + 1] == '' then
    redis.call('ZREM', KEYS[1], ARGV[i])
  else
    redis.call('ZADD', KEYS[1], 'XX', ARGV[i + 1] == '0' and now or ARGV[i + 1], ARGV[i])
  end
end
return 1
`,
  },

  /**
   * Claims an idempotency key, or says whose it is.
   *
   * KEYS: key. ARGV: request's digest, turn, ttl ms. Result: [turn, digest, "new" | "claimed" | "admitted" | "begun"].
   */
  parleyClaimKey: {
    numberOfKeys: 1,
    lua: `
local claim = redis.call('HMGET', KEYS[1], 'turn', 'hash', 'state')
if claim[1] then return claim end
redis.call('HSET', KEYS[1], 'v', 1, 'turn', ARGV[2], 'hash', ARGV[1], 'state', 'claimed')
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return {ARGV[2], ARGV[1], 'new'}
`,
  },

  /** Says how far a claimed turn has come. KEYS: key. ARGV: turn, state. Result: 1, or 0: the claim is another's, or is further. */
  parleyMarkKey: {
    numberOfKeys: 1,
    lua: `
local claim = redis.call('HMGET', KEYS[1], 'turn', 'state')
if claim[1] ~= ARGV[1] or claim[2] == 'begun' then return 0 end
redis.call('HSET', KEYS[1], 'state', ARGV[2])
return 1
`,
  },

  /** Frees a key whose turn was refused. KEYS: key. ARGV: turn. Result: 1, or 0: the claim is another's, or has begun. */
  parleyReleaseKey: {
    numberOfKeys: 1,
    lua: `
local claim = redis.call('HMGET', KEYS[1], 'turn', 'state')
if claim[1] ~= ARGV[1] or claim[2] == 'begun' then return 0 end
return redis.call('DEL', KEYS[1])
`,
  },
} as const;
