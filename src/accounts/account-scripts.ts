import type { RedisScript } from "../store/redis-connection.ts";
import { NEWEST_READABLE } from "../store/stored-formats.ts";
import { CALL_MEMORY_MS, COUNTER_SLACK_MS, LEDGER_MS, UNSTARTED_HOLD_MS } from "./account-store.ts";

/**
 * Scripts of accounts, under the same rules as `store/redis-scripts.ts`. All run on the keys of one account, take its
 * prefix as ARGV[1], and name `use:…` and `call:…` keys by it themselves.
 *
 * Redis counts in 64-bit integers, Lua in doubles: amounts are added by HINCRBY, passed as text, and compared in two
 * halves.
 */

/** Redis's time, and texts of numbers. */
export const NOW = `
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local function text(number) return string.format('%.0f', number) end
`;

/** Lets a key live until a time at least. */
const KEEP = `
local function keep(key, at)
  if redis.call('PEXPIREAT', key, text(at), 'GT') == 0 and redis.call('PTTL', key) == -1 then
    redis.call('PEXPIREAT', key, text(at))
  end
end
`;

/** The hour, day and month of a time, in UTC, as \`periodsOf\` has them (civil-from-days: howardhinnant.github.io/date_algorithms.html). */
export const PERIODS = `
local HOUR, DAY = 3600000, 86400000
local function month_start(days)
  local z = days + 719468
  local era = math.floor(z / 146097)
  local doe = z - era * 146097
  local yoe = math.floor((doe - math.floor(doe / 1460) + math.floor(doe / 36524) - math.floor(doe / 146096)) / 365)
  local doy = doe - (365 * yoe + math.floor(yoe / 4) - math.floor(yoe / 100))
  local mp = math.floor((5 * doy + 2) / 153)
  return days - (doy - math.floor((153 * mp + 2) / 5))
end
local function periods(ms)
  local hour, day = math.floor(ms / HOUR) * HOUR, math.floor(ms / DAY)
  local month = month_start(day)
  return {
    {'hour', hour, hour + HOUR},
    {'day', day * DAY, (day + 1) * DAY},
    {'month', month * DAY, month_start(month + 31) * DAY},
  }
end
`;

/** Changes counters of all of a call's scopes and periods. A counter whose time is over is gone, and not made again. */
const COUNT = `
${PERIODS}
local function count(prefix, scopes, hold, changes)
  for _, period in ipairs(periods(hold)) do
    local expire = period[3] + ${COUNTER_SLACK_MS}
    if expire > now then
      local begin = prefix .. 'use:' .. period[1] .. ':' .. text(period[2]) .. ':'
      for _, scope in ipairs(scopes) do
        local key = begin .. scope
        local made = false
        for field, by in pairs(changes) do
          if by ~= '0' and by ~= '-0' and redis.call('HINCRBY', key, field, by) == tonumber(by) then made = true end
        end
        if made and redis.call('PTTL', key) == -1 then
          redis.call('HSET', key, 'v', 1)
          redis.call('PEXPIREAT', key, text(expire))
        end
      end
    end
  end
end
local function negative(amount)
  if string.sub(amount, 1, 1) == '-' then return string.sub(amount, 2) end
  return '-' .. amount
end
local function release_amounts(prefix, call)
  count(prefix, cjson.decode(call.scopes), tonumber(call.hold),
    {held_cost = negative(call.cost), held_tokens = negative(call.tokens)})
end
`;

/** Reads fields of a call. */
const CALL = `
local function read_call(key)
  local got = redis.call('HMGET', key, 'state', 'hold', 'until', 'life', 'owner', 'cost', 'tokens', 'scopes', 'rows', 'v')
  if not got[1] then return nil end
  return {state = got[1], hold = got[2], ['until'] = got[3], life = got[4], owner = got[5], cost = got[6],
    tokens = got[7], scopes = got[8], rows = got[9] or '', v = got[10]}
end
`;

/** Holds that expired without a start give their amounts back; at most \`most\` of them. True: there may be more. */
const SWEEP = `
local function sweep(prefix, unstarted, most)
  local dead = redis.call('ZRANGE', unstarted, '-inf', text(now), 'BYSCORE', 'LIMIT', 0, most)
  for _, id in ipairs(dead) do
    local key = prefix .. 'call:' .. id
    local call = read_call(key)
    if call and call.state == 'unstarted' then
      release_amounts(prefix, call)
      redis.call('UNLINK', key)
    end
    redis.call('ZREM', unstarted, id)
  end
  return #dead == most
end
`;

/** Exact sums and comparisons: a number is high * 1e10 + low. */
export const EXACT = `
local function halves(amount)
  local sign, digits = 1, amount
  if string.sub(amount, 1, 1) == '-' then sign, digits = -1, string.sub(amount, 2) end
  return sign * (tonumber(string.sub(digits, 1, -11)) or 0), sign * tonumber(string.sub(digits, -10))
end
local function is_over(limit, a, b, c)
  local ah, al = halves(a)
  local bh, bl = halves(b)
  local ch, cl = halves(c)
  local lh, ll = halves(limit)
  local low = al + bl + cl - ll
  local high = ah + bh + ch - lh + math.floor(low / 1e10)
  low = low % 1e10
  return high > 0 or (high == 0 and low > 0)
end
`;

/** Reads what is used of a budget: {spent money, spent tokens, held money, held tokens, would have refused}. */
const USE = `
local function read_use(prefix, period, scope)
  local use = redis.call('HMGET', prefix .. 'use:' .. period[1] .. ':' .. text(period[2]) .. ':' .. scope,
    'spent_cost', 'spent_tokens', 'held_cost', 'held_tokens', 'would_refuse')
  for i = 1, 5 do use[i] = use[i] or '0' end
  return use
end
local function parse_budget(value)
  local version, money, tokens, dry = string.match(value, '^(%d+) (%S+) (%S+) ([01])')
  if not version or tonumber(version) < 1 or tonumber(version) > ${NEWEST_READABLE} then return nil end
  return {money ~= '-' and money or nil, tokens ~= '-' and tokens or nil, dry = dry == '1'}
end
`;

/** Appends a row to the ledger and returns its id. */
const APPEND_ROW = `
local function append_row(ledger, hold, bytes)
  local id
  -- After a step back of the clock a hold may lie ahead of it: a row's id is never before its hold.
  if hold > now then
    local ahead = redis.pcall('XADD', ledger, text(hold) .. '-*', 'v', 1, 'r', bytes)
    if type(ahead) == 'string' then id = ahead end
  end
  id = id or redis.call('XADD', ledger, 'MINID', '~', text(now - ${LEDGER_MS}) .. '-0', '*', 'v', 1, 'r', bytes)
  keep(ledger, math.max(now, hold) + ${LEDGER_MS})
  return id
end
`;

/** Rows by their ids, in a text with blanks between them. */
const READ_ROWS = `
local function read_rows(ledger, ids)
  local rows = {}
  for id in string.gmatch(ids, '%S+') do
    local found = redis.call('XRANGE', ledger, id, id)
    if found[1] then rows[#rows + 1] = found[1][2][4] end
  end
  return rows
end
`;

/** Holds that one script gives back at most, so that none runs long. */
const SWEEP_MOST = 128;

/** By name, as the client's commands are called. */
export const ACCOUNT_SCRIPTS = {
  /**
   * Holds a call on all its scopes or on none, or says whether it would.
   *
   * KEYS: budgets, unstarted, started, call. ARGV: 1 prefix, 2 call id, 3 and 4 cost and tokens, 5 the call at its largest,
   * 6 life once started (ms), 7 and 8 the price's span (ms), 9 scopes (JSON), 10 for each scope: its budgets' names for
   * each period, those of each one of its kind, and the configured ones (JSON: [[scope, each, [hour, day, month]]]),
   * 11 how long a hold's record is kept (ms), 12 mode: \`hold\` or \`preview\`.
   * Result: [state, now, hold time, again, hits, would-be hits, budgets].
   * A hit: scope, period, unit, limit, spent, held, reset. A budget: scope, period, limits, dry, use, reset.
   */
  parleyHold: {
    numberOfKeys: 4,
    lua: `${NOW}${KEEP}${COUNT}${CALL}${SWEEP}${EXACT}${USE}
local prefix, id, mode = ARGV[1], ARGV[2], ARGV[12]
if mode == 'hold' then
  local known = read_call(KEYS[4])
  if known and known.state == 'unstarted' and tonumber(known['until']) <= now then
    release_amounts(prefix, known)
    redis.call('UNLINK', KEYS[4])
    redis.call('ZREM', KEYS[2], id)
    known = nil
  end
  if known then return {known.state, text(now), known.hold, 0} end
  if now < tonumber(ARGV[7]) or now >= tonumber(ARGV[8]) then return {'price_changed', text(now), text(now), 0} end
end
local more = sweep(prefix, KEYS[2], ${SWEEP_MOST})
local spans = periods(now)
local wanted, units = {ARGV[3], ARGV[4]}, {'micro_usd', 'tokens'}
local hits, would, budgets, dry_keys = {}, {}, {}, {}
local scopes = cjson.decode(ARGV[10])
local fields = {}
for _, scope in ipairs(scopes) do
  for _, span in ipairs(spans) do
    fields[#fields + 1] = span[1] .. ':' .. scope[1]
    fields[#fields + 1] = span[1] .. ':' .. scope[2]
  end
end
local set = redis.call('HMGET', KEYS[1], unpack(fields))
for i, scope in ipairs(scopes) do
  for j, span in ipairs(spans) do
    local at = ((i - 1) * 3 + j - 1) * 2
    local own, each = set[at + 1], set[at + 2]
    local value = own or (scope[3][j][1] ~= '' and scope[3][j][1]) or each or (scope[3][j][2] ~= '' and scope[3][j][2])
    local budget = value and parse_budget(value)
    if budget then
      local use = read_use(prefix, span, scope[1])
      budgets[#budgets + 1] = {scope[1], span[1], budget[1] or '-', budget[2] or '-', use[1], use[2], use[3], use[4], text(span[3])}
      for unit = 1, 2 do
        if budget[unit] and is_over(budget[unit], use[unit], use[unit + 2], wanted[unit]) then
          local hit = {scope[1], span[1], units[unit], budget[unit], use[unit], use[unit + 2], text(span[3])}
          if budget.dry then would[#would + 1] = hit else hits[#hits + 1] = hit end
          if budget.dry then dry_keys[span[1] .. ':' .. scope[1]] = {span, scope[1]} end
        end
      end
    elseif value then
      return {'unknown_format', text(now), text(now), 0}
    end
  end
end
if mode ~= 'hold' or #hits > 0 then return {'refused', text(now), text(now), more and 1 or 0, hits, would, budgets} end
count(prefix, cjson.decode(ARGV[9]), now, {held_cost = ARGV[3], held_tokens = ARGV[4]})
for _, dry in pairs(dry_keys) do
  local key = prefix .. 'use:' .. dry[1][1] .. ':' .. text(dry[1][2]) .. ':' .. dry[2]
  redis.call('HSET', key, 'v', 1)
  redis.call('HINCRBY', key, 'would_refuse', 1)
  keep(key, dry[1][3] + ${COUNTER_SLACK_MS})
end
local expire = now + ${UNSTARTED_HOLD_MS}
redis.call('HSET', KEYS[4], 'v', 1, 'state', 'unstarted', 'hold', text(now), 'until', text(expire), 'life', ARGV[6],
  'owner', '', 'max', ARGV[5], 'cost', ARGV[3], 'tokens', ARGV[4], 'scopes', ARGV[9])
redis.call('PEXPIREAT', KEYS[4], text(now + ARGV[11]))
redis.call('ZADD', KEYS[2], text(expire), id)
keep(KEYS[2], now + ARGV[11])
return {'held', text(now), text(now), 0, {}, would}
`,
  },

  /**
   * Marks a call as started.
   *
   * KEYS: unstarted, started, call. ARGV: prefix, call id, owner, how long a hold's record is kept (ms).
   * Result: started | started_by_other | not_held | ended.
   */
  parleyStart: {
    numberOfKeys: 3,
    lua: `${NOW}${KEEP}${COUNT}${CALL}
local call = read_call(KEYS[3])
if not call then return 'not_held' end
if call.state == 'started' then return call.owner == ARGV[3] and 'started' or 'started_by_other' end
if call.state ~= 'unstarted' then return 'ended' end
redis.call('ZREM', KEYS[1], ARGV[2])
if tonumber(call['until']) <= now then
  release_amounts(ARGV[1], call)
  redis.call('UNLINK', KEYS[3])
  return 'not_held'
end
local lost = now + call.life
redis.call('HSET', KEYS[3], 'state', 'started', 'owner', ARGV[3], 'until', text(lost))
redis.call('ZADD', KEYS[2], text(lost), ARGV[2])
keep(KEYS[2], lost + ARGV[4])
keep(KEYS[3], lost + ARGV[4])
return 'started'
`,
  },

  /**
   * Ends a call: hold, counters and row in one. What stands already stands.
   *
   * KEYS: unstarted, started, call, ledger. ARGV: 1 prefix, 2 call id, 3 and 4 cost and tokens, 5 row, 6 scopes (JSON),
   * 7 hold time that the row has (ms; 0: none), 8 mode: \`settle\`, \`lose\` (only a started call) or \`expire\` (only a
   * started call past its time).
   * Result: ["settled"] | ["stands", state, row ids, hold time, rows] | ["hold_time", what the row must have]
   * | ["not_started"] | ["forgotten"].
   */
  parleySettle: {
    numberOfKeys: 4,
    lua: `${NOW}${KEEP}${COUNT}${CALL}${APPEND_ROW}${READ_ROWS}
local prefix, id, mode = ARGV[1], ARGV[2], ARGV[8]
local call = read_call(KEYS[3])
if call and (call.state == 'settled' or call.state == 'charged') then
  return {'stands', call.state, call.rows, call.hold, read_rows(KEYS[4], call.rows)}
end
local held = call and (call.state == 'unstarted' or call.state == 'started')
if mode ~= 'settle' then
  if not call or call.state ~= 'started' then return {'not_started'} end
  if mode == 'expire' and tonumber(call['until']) > now then return {'not_started'} end
end
local hold = call and call.hold or ARGV[7]
if not call then
  if hold == '0' then return {'hold_time', text(now)} end
  if tonumber(hold) <= now - ${CALL_MEMORY_MS} then return {'forgotten'} end
end
if hold ~= ARGV[7] then return {'hold_time', hold} end
local changes = {spent_cost = ARGV[3], spent_tokens = ARGV[4]}
if held then
  changes.held_cost, changes.held_tokens = negative(call.cost), negative(call.tokens)
  redis.call('ZREM', call.state == 'started' and KEYS[2] or KEYS[1], id)
end
count(prefix, cjson.decode(held and call.scopes or ARGV[6]), tonumber(hold), changes)
local row = append_row(KEYS[4], tonumber(hold), ARGV[5])
redis.call('UNLINK', KEYS[3])
redis.call('HSET', KEYS[3], 'v', 1, 'state', mode == 'settle' and 'settled' or 'charged', 'hold', hold, 'rows', row)
redis.call('PEXPIREAT', KEYS[3], text(now + ${CALL_MEMORY_MS}))
return {'settled'}
`,
  },

  /**
   * Appends a correction to a call that has its rows, if those are still the ones that the difference was taken from.
   *
   * KEYS: call, ledger. ARGV: 1 prefix, 2 row ids, 3 and 4 differences of cost and tokens, 5 row, 6 scopes (JSON), 7 hold
   * time (ms).
   * Result: ["corrected"] | ["stands", state, row ids, hold time, rows] | ["forgotten"].
   */
  parleyCorrect: {
    numberOfKeys: 2,
    lua: `${NOW}${KEEP}${COUNT}${CALL}${APPEND_ROW}${READ_ROWS}
local call = read_call(KEYS[1])
if not call or call.rows == '' then return {'forgotten'} end
if call.rows ~= ARGV[2] or call.hold ~= ARGV[7] then
  return {'stands', call.state, call.rows, call.hold, read_rows(KEYS[2], call.rows)}
end
count(ARGV[1], cjson.decode(ARGV[6]), tonumber(ARGV[7]), {spent_cost = ARGV[3], spent_tokens = ARGV[4]})
local row = append_row(KEYS[2], tonumber(ARGV[7]), ARGV[5])
redis.call('HSET', KEYS[1], 'state', 'settled', 'rows', call.rows .. ' ' .. row)
redis.call('PEXPIREAT', KEYS[1], text(now + ${CALL_MEMORY_MS}))
return {'corrected'}
`,
  },

  /**
   * Appends corrections of rows, each once.
   *
   * KEYS: ledger. ARGV: 1 prefix, then for each: id of the correction, id of the corrected call, cost, tokens, row,
   * scopes (JSON), hold time (ms). Result: how many were new.
   */
  parleyAmend: {
    numberOfKeys: 1,
    lua: `${NOW}${KEEP}${COUNT}${CALL}${APPEND_ROW}
local prefix, new = ARGV[1], 0
for i = 2, #ARGV, 7 do
  local done = prefix .. 'call:' .. ARGV[i]
  if redis.call('EXISTS', done) == 0 then
    new = new + 1
    local hold = tonumber(ARGV[i + 6])
    count(prefix, cjson.decode(ARGV[i + 5]), hold, {spent_cost = ARGV[i + 2], spent_tokens = ARGV[i + 3]})
    local row = append_row(KEYS[1], hold, ARGV[i + 4])
    redis.call('HSET', done, 'v', 1, 'state', 'settled', 'hold', ARGV[i + 6], 'rows', row)
    redis.call('PEXPIREAT', done, text(now + ${CALL_MEMORY_MS}))
    local corrected = prefix .. 'call:' .. ARGV[i + 1]
    local call = read_call(corrected)
    if call and call.rows ~= '' then redis.call('HSET', corrected, 'rows', call.rows .. ' ' .. row) end
  end
end
return new
`,
  },

  /**
   * Gives a hold back. KEYS: unstarted, started, call. ARGV: prefix, call id, owner. Result: 1, or 0: it is not held, or
   * another's.
   */
  parleyRelease: {
    numberOfKeys: 3,
    lua: `${NOW}${KEEP}${COUNT}${CALL}
local call = read_call(KEYS[3])
if not call or (call.state ~= 'unstarted' and call.state ~= 'started') then return 0 end
if call.state == 'started' and call.owner ~= ARGV[3] then return 0 end
release_amounts(ARGV[1], call)
redis.call('ZREM', KEYS[1], ARGV[2])
redis.call('ZREM', KEYS[2], ARGV[2])
redis.call('UNLINK', KEYS[3])
redis.call('HSET', KEYS[3], 'v', 1, 'state', 'released', 'hold', call.hold)
redis.call('PEXPIREAT', KEYS[3], text(now + ${CALL_MEMORY_MS}))
return 1
`,
  },

  /** What is known of a call. KEYS: call, ledger. Result: [state, hold time, the call at its largest or "", rows], or nil. */
  parleyFindCall: {
    numberOfKeys: 2,
    lua: `${NOW}${CALL}${READ_ROWS}
local call = read_call(KEYS[1])
if not call then return false end
if call.state == 'unstarted' and tonumber(call['until']) <= now then return false end
return {call.state, call.hold, redis.call('HGET', KEYS[1], 'max') or '', read_rows(KEYS[2], call.rows)}
`,
  },

  /** Started calls past their time. KEYS: started. ARGV: prefix, most. Result: [call id, hold time, the call at its largest, ...]. */
  parleyListLost: {
    numberOfKeys: 1,
    lua: `${NOW}
local lost = {}
for _, id in ipairs(redis.call('ZRANGE', KEYS[1], '-inf', text(now), 'BYSCORE', 'LIMIT', 0, ARGV[2])) do
  local call = redis.call('HMGET', ARGV[1] .. 'call:' .. id, 'state', 'hold', 'max')
  if call[1] == 'started' then
    lost[#lost + 1] = id
    lost[#lost + 1] = call[2]
    lost[#lost + 1] = call[3]
  else
    redis.call('ZREM', KEYS[1], id)
  end
end
return lost
`,
  },

  /** Makes or replaces a budget. KEYS: budgets. ARGV: its name, its value or "": remove it. */
  parleySetBudget: {
    numberOfKeys: 1,
    lua: `
if ARGV[2] == '' then redis.call('HDEL', KEYS[1], ARGV[1]) else redis.call('HSET', KEYS[1], ARGV[1], ARGV[2]) end
`,
  },

  /**
   * All budgets with what is used. KEYS: budgets, unstarted. ARGV: prefix, configured budgets (JSON: [[name, value]]).
   * Result: [[name, value, spent money, spent tokens, held money, held tokens, would have refused, reset], ...].
   */
  parleyReadBudgets: {
    numberOfKeys: 2,
    lua: `${NOW}${KEEP}${COUNT}${CALL}${SWEEP}${USE}
sweep(ARGV[1], KEYS[2], ${SWEEP_MOST})
local spans = {}
for _, span in ipairs(periods(now)) do spans[span[1]] = span end
local all, seen = {}, {}
local function add(name, value)
  if seen[name] then return end
  seen[name] = true
  local period, scope = string.match(name, '^(%a+):(.*)$')
  local span = spans[period]
  if span then
    local use = read_use(ARGV[1], span, scope)
    all[#all + 1] = {name, value, use[1], use[2], use[3], use[4], use[5], text(span[3])}
  end
end
local set = redis.call('HGETALL', KEYS[1])
for i = 1, #set, 2 do add(set[i], set[i + 1]) end
for _, configured in ipairs(cjson.decode(ARGV[2])) do add(configured[1], configured[2]) end
return all
`,
  },

  /** What a scope has spent in the running month. KEYS: budgets. ARGV: prefix, scope. Result: [money, tokens]. */
  parleySpent: {
    numberOfKeys: 1,
    readOnly: true,
    lua: `${NOW}${PERIODS}${USE}
local use = read_use(ARGV[1], periods(now)[3], ARGV[2])
return {use[1], use[2]}
`,
  },

  /** Says that an account may have held calls for some time. KEYS: accounts. ARGV: tenant, how long (ms). Result: 1. */
  parleyRegisterAccount: {
    numberOfKeys: 1,
    lua: `${NOW}${KEEP}
local expire = now + tonumber(ARGV[2])
redis.call('ZADD', KEYS[1], 'GT', text(expire), ARGV[1])
keep(KEYS[1], expire)
return 1
`,
  },

  /** Accounts that may have held calls; drops the others. KEYS: accounts. Result: the tenants. */
  parleyListAccounts: {
    numberOfKeys: 1,
    lua: `${NOW}
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', text(now))
return redis.call('ZRANGE', KEYS[1], 0, -1)
`,
  },
} as const satisfies Record<string, RedisScript>;

export type AccountScriptName = keyof typeof ACCOUNT_SCRIPTS;
