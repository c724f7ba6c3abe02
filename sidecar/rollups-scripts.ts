import { EXACT, NOW, PERIODS } from "../src/accounts/account-scripts.ts";
import type { RedisScript } from "../src/store/redis-connection.ts";
import { NEWEST_READABLE } from "../src/store/stored-formats.ts";
import { GROWTH, LIMITS, WATCH_MS } from "./anomaly-rules.ts";

/**
 * Scripts of rollups, under the rules of `store/redis-scripts.ts`. All run on the keys of one account. A failover that
 * forgets one forgets the rollups and what says that rows are done together, so that none waits for a replica.
 */

/** Consumer group of the ledger's stream. */
export const ROLLUP_GROUP = "rollups";

/**
 * Beginnings of names, behind the account's prefix, with the version of what is in their hashes: tokens and calls of users and
 * sessions; calls without a price of a month; the answer to a consumer's last batch. A release with another format of one has
 * another name for it.
 */
export const ROLLUP_KEYS = { watch: "watch:1:", unpriced: "rollup-unpriced:1:", batch: "rollup-batch:1:" } as const;

/** Version of a suspicion, its first element. */
export const SUSPICION_FORMAT = 1;

/** Of the last batch that a consumer applied is known so long what was new in it, in milliseconds: longer than it is repeated. */
const BATCH_MEMORY_MS = 3_600_000;

/** Numbers as \`halves\` divides them, as text: \`high * 1e10 + low\`. */
const JOIN = `
local function join(high, low)
  -- Nearly always: a double holds it exactly.
  if high == 0 and low > -9e15 and low < 9e15 then return text(low) end
  high = high + math.floor(low / 1e10)
  low = low % 1e10
  if high < 0 then
    if low > 0 then high, low = high + 1, 1e10 - low end
    if high == 0 then return '-' .. text(low) end
    return '-' .. text(-high) .. string.format('%010.0f', low)
  end
  if high == 0 then return text(low) end
  return text(high) .. string.format('%010.0f', low)
end
`;

/** What is remembered of users and sessions lives so long after its last change, in milliseconds: as long as it is history. */
const WATCH_LIFE_MS = WATCH_MS.history + 4 * WATCH_MS.offset;

/** Fields of a watched hash from which on it is swept: a third more than what is history. */
const WATCH_FIELDS = 100;

/** Turns of a user that are remembered at most. */
const WATCH_TURNS = 256;

/**
 * Notes what a row says of its user and session, and what is suspicious. Three hashes, by what their names go on with behind
 * \`watch:1:\`: \`user:\` and \`session:\`, start of a bucket (ms) to tokens, of sessions also \`growth\`: first prompt, last
 * prompt, calls; \`turns:\` of a user, turn to calls.
 */
const WATCH = `
local touched, suspicions = {}, {}
local function suspect(kind, scope, id, session, at, value)
  suspicions[kind .. ' ' .. scope .. ' ' .. id .. ' ' .. at] = cjson.encode({${SUSPICION_FORMAT}, kind, scope, id, session, at, text(value)})
end
local function bump(key, field, by)
  touched[key] = true
  return redis.call('HINCRBY', key, field, text(by))
end
local function watch(row)
  local bucket = row[12]
  if bucket < now - ${WATCH_LIFE_MS} then return end
  local user, session, turn, amounts = batch[4][row[9]], batch[5][row[10]], row[11], row[8]
  local prompt, completion = amounts[3] * 1e10 + amounts[4], amounts[7] * 1e10 + amounts[8]
  for scope, id in pairs({user = user, session = session}) do
    if id ~= '' then
      local tokens = bump(prefix .. '${ROLLUP_KEYS.watch}' .. scope .. ':' .. id, text(bucket), prompt + completion)
      if tokens >= ${LIMITS.token_burst.floor} then
        suspect('token_burst', scope, id, session, text(bucket), tokens)
      end
    end
  end
  local is_call = amounts[2] == 1
  if is_call and user ~= '' and turn ~= '' then
    local calls = bump(prefix .. '${ROLLUP_KEYS.watch}turns:' .. user, turn, 1)
    if calls >= ${LIMITS.call_loop.floor} then suspect('call_loop', 'user', user, session, turn, calls) end
  end
  if is_call and session ~= '' then
    local key = prefix .. '${ROLLUP_KEYS.watch}session:' .. session
    local first, last, calls = string.match(redis.call('HGET', key, 'growth') or '', '^(%d+) (%d+) (%d+)$')
    first, last, calls = tonumber(first), tonumber(last), tonumber(calls)
    if last and prompt > last and completion * ${GROWTH.replyShare} < prompt - last then
      calls = calls + 1
    else
      first, calls = prompt, 1
    end
    redis.call('HSET', key, 'growth', text(first) .. ' ' .. text(prompt) .. ' ' .. text(calls))
    if calls >= ${GROWTH.calls} and prompt >= first * ${GROWTH.factor} and prompt - first >= ${GROWTH.tokens} then
      suspect('prompt_growth', 'session', session, session, '', prompt)
    end
  end
end
local function sweep_watched()
  for key in pairs(touched) do
    local fields = redis.call('HLEN', key)
    if string.find(key, ':${ROLLUP_KEYS.watch}turns:', 1, true) then
      if fields > ${WATCH_TURNS} then redis.call('UNLINK', key) end
    elseif fields > ${WATCH_FIELDS} then
      for _, field in ipairs(redis.call('HKEYS', key)) do
        local start = tonumber(field)
        if start and start < now - ${WATCH_LIFE_MS} then redis.call('HDEL', key, field) end
      end
    end
    redis.call('PEXPIRE', key, ${WATCH_LIFE_MS})
  end
end
`;

export const ROLLUP_SCRIPTS = {
  /**
   * Gives out rows: those that others took long ago, then new ones.
   *
   * KEYS: ledger. ARGV: group, consumer, how long ago (ms), most. Result: the stream's entries.
   */
  parleyTakeRows: {
    numberOfKeys: 1,
    readOnly: true,
    lua: `
local ledger, group, consumer, most = KEYS[1], ARGV[1], ARGV[2], tonumber(ARGV[4])
if redis.call('EXISTS', ledger) == 0 then return {} end
local claimed = redis.pcall('XAUTOCLAIM', ledger, group, consumer, ARGV[3], '0-0', 'COUNT', most)
if claimed.err then
  if not string.find(claimed.err, 'NOGROUP', 1, true) then return claimed end
  redis.call('XGROUP', 'CREATE', ledger, group, '0')
  claimed = {'0-0', {}}
end
local entries = claimed[2]
if #entries < most then
  local fresh = redis.call('XREADGROUP', 'GROUP', group, consumer, 'COUNT', most - #entries, 'STREAMS', ledger, '>')
  if fresh then
    for _, entry in ipairs(fresh[1][2]) do entries[#entries + 1] = entry end
  end
end
return entries
`,
  },

  /**
   * Adds rows to rollups and acknowledges them: a row that is not to be acknowledged any more has been added before.
   *
   * A field of a rollup is \`1 <calls> <prompt> <cached> <completion> <reasoning> <cost> <unpriced>\`, 1 being the format.
   *
   * KEYS: ledger, batch of the consumer, suspicions. ARGV: 1 prefix of the account, 2 group, 3 token of the batch, 4 rows (JSON):
   * spans [[key, expiry]], groups, rows [[id, month's unpriced calls (key, expiry), call, price: 0 none, 1 of a row, 2 of
   * a correction, spans' numbers, group's number, amounts in halves (12 numbers), user's number, session's number, turn, start of its
   * bucket (ms)]], users, sessions.
   * Result: [for each row 1, or 0: it was added before; 1: there are suspicions, or 0]; or nil: a newer release has written a rollup that it belongs to.
   */
  parleyApplyRows: {
    numberOfKeys: 3,
    readOnly: true,
    lua: `${NOW}${EXACT}${JOIN}
local ledger, prefix, group = KEYS[1], ARGV[1], ARGV[2]
local before = redis.call('HMGET', KEYS[2], 'token', 'new', 'suspicious')
if before[1] == ARGV[3] then return {before[2], before[3]} end
local batch = cjson.decode(ARGV[4])
${WATCH}
local spans, groups = batch[1], batch[2]

-- Nothing is written before all that is to be changed can be read.
local stored = {}
local function read(key, field)
  local fields = stored[key]
  if not fields then
    fields = {}
    stored[key] = fields
  end
  local sum = fields[field]
  if sum then return sum end
  sum = {version = '1'}
  local value = redis.call('HGET', key, field)
  if value then
    local version, amounts = string.match(value, '^(%d+) (.*)$')
    if not version or tonumber(version) < 1 or tonumber(version) > ${NEWEST_READABLE} then return nil end
    -- What the next release has added at the end stays as it is.
    sum.version = version
    for amount in string.gmatch(amounts, '%S+') do
      local high, low = 0, nil
      if #amount <= 15 then low = tonumber(amount) else high, low = halves(amount) end
      sum[#sum + 1] = high
      sum[#sum + 1] = low
    end
  else
    for i = 1, 14 do sum[i] = 0 end
  end
  fields[field] = sum
  return sum
end
for _, row in ipairs(batch[3]) do
  for _, at in ipairs(row[6]) do
    if not read(spans[at][1], groups[row[7]]) or not read(spans[at][1], 'all') then return false end
  end
end

local changed = {}
local function add(row, field, from, amounts)
  for _, at in ipairs(row[6]) do
    local key = spans[at][1]
    local fields = changed[key] or {expire = spans[at][2]}
    changed[key] = fields
    for turn = 1, 2 do
      local name = turn == 1 and field or 'all'
      local sum = read(key, name)
      if sum then
        for i = 1, #amounts do
          if amounts[i] ~= 0 then sum[from + i] = sum[from + i] + amounts[i] end
        end
        fields[name] = true
      end
    end
  end
end
local function remember(row, value)
  redis.call('HSET', row[2], row[4], value)
  if redis.call('PTTL', row[2]) == -1 then redis.call('PEXPIREAT', row[2], text(row[3])) end
end
local function first_is_due(call)
  local rows = redis.call('HGET', prefix .. 'call:' .. call, 'rows')
  local first = rows and string.match(rows, '^%S+')
  return first and #redis.call('XPENDING', ledger, group, first, first, 1) > 0
end

local new = {}
for i, row in ipairs(batch[3]) do
  new[i] = redis.call('XACK', ledger, group, row[1])
  if new[i] == 1 then
    local name, amounts, price = groups[row[7]], row[8], row[5]
    add(row, name, 0, amounts)
    watch(row)
    if price ~= 1 then
      local known = redis.call('HGET', row[2], row[4])
      if price == 0 and known ~= 'priced' then
        -- Prompt and completion.
        local high, low = amounts[3] + amounts[7], amounts[4] + amounts[8]
        add(row, name, 12, {high, low})
        local old_high, old_low = 0, 0
        if known then old_high, old_low = halves(string.match(known, '^%S+')) end
        remember(row, join(high + old_high, low + old_low) .. ' ' .. name)
      elseif price == 2 and known and known ~= 'priced' then
        local tokens, field = string.match(known, '^(%S+) (.*)$')
        local high, low = halves(tokens)
        add(row, field, 12, {-high, -low})
        remember(row, 'priced')
      elseif price == 2 and not known and first_is_due(row[4]) then
        -- The correction came first: what it corrects is not to be counted as unpriced when it comes.
        remember(row, 'priced')
      end
    end
  end
end
for key, fields in pairs(changed) do
  local expire = fields.expire
  fields.expire = nil
  if expire > now then
    local values = {}
    for field in pairs(fields) do
      local sum = stored[key][field]
      local parts = {sum.version}
      for i = 1, #sum, 2 do parts[#parts + 1] = join(sum[i], sum[i + 1]) end
      values[#values + 1] = field
      values[#values + 1] = table.concat(parts, ' ')
      if #values >= 512 then
        redis.call('HSET', key, unpack(values))
        values = {}
      end
    end
    if #values > 0 then redis.call('HSET', key, unpack(values)) end
    if redis.call('PTTL', key) == -1 then redis.call('PEXPIREAT', key, text(expire)) end
  end
end
sweep_watched()
local suspicious = '0'
for name, suspicion in pairs(suspicions) do
  redis.call('HSET', KEYS[3], name, suspicion)
  suspicious = '1'
end
if suspicious == '1' then redis.call('PEXPIRE', KEYS[3], ${WATCH_LIFE_MS}) end
local answer = table.concat(new)
redis.call('HSET', KEYS[2], 'token', ARGV[3], 'new', answer, 'suspicious', suspicious)
redis.call('PEXPIRE', KEYS[2], ${BATCH_MEMORY_MS})
return {answer, suspicious}
`,
  },

  /** What is still to be done. KEYS: ledger. ARGV: group. Result: [rows, age of the oldest (ms)]. */
  parleyLedgerStanding: {
    numberOfKeys: 1,
    readOnly: true,
    lua: `${NOW}
if redis.call('EXISTS', KEYS[1]) == 0 then return {'0', '0'} end
local last, behind, due, oldest = '-', redis.call('XLEN', KEYS[1]), 0, nil
for _, facts in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local group = {}
  for i = 1, #facts, 2 do group[facts[i]] = facts[i + 1] end
  if group.name == ARGV[1] then
    last, behind, due = '(' .. group['last-delivered-id'], group.lag or 0, group.pending
    if due > 0 then oldest = redis.call('XPENDING', KEYS[1], ARGV[1])[2] end
  end
end
if not oldest then
  local next = redis.call('XRANGE', KEYS[1], last, '+', 'COUNT', 1)
  if next[1] then oldest = next[1][1] end
end
local age = 0
if oldest then age = math.max(0, now - tonumber(string.match(oldest, '^%d+'))) end
return {text(behind + due), text(age)}
`,
  },

  /** The running month's sum of all groups. KEYS: ledger. ARGV: prefix of months' rollups. Result: the field, or nil. */
  parleyRollupOfMonth: {
    numberOfKeys: 1,
    readOnly: true,
    lua: `${NOW}${PERIODS}
return redis.call('HGET', ARGV[1] .. text(periods(now)[3][2]), 'all')
`,
  },

  /**
   * Forgets a suspicion, unless there is more of it, and opens an anomaly for it, unless the same is open. KEYS: suspicions,
   * anomalies. ARGV: suspicion's name, its value, anomaly's name or "": it is none, how long one stays open (ms),
   * most. Result: 1, or 0: nothing was opened. An anomaly's field is \`<opened (ms)> <suspicion>\`.
   */
  parleyJudge: {
    numberOfKeys: 2,
    readOnly: true,
    lua: `${NOW}
local suspicion = redis.call('HGET', KEYS[1], ARGV[1])
if not suspicion or cjson.decode(suspicion)[7] ~= ARGV[2] then return 0 end
redis.call('HDEL', KEYS[1], ARGV[1])
if ARGV[3] == '' then return 0 end
local known = redis.call('HGET', KEYS[2], ARGV[3])
local opened = known and tonumber(string.match(known, '^%d+'))
if opened and opened > now - tonumber(ARGV[4]) then return 0 end
if not known and redis.call('HLEN', KEYS[2]) >= tonumber(ARGV[5]) then return 0 end
redis.call('HSET', KEYS[2], ARGV[3], text(now) .. ' ' .. suspicion)
redis.call('PEXPIRE', KEYS[2], ARGV[4])
return 1
`,
  },

  /** Anomalies that are open; forgets the others. KEYS: anomalies. ARGV: how long they stay open (ms). Result: fields' values. */
  parleyListAnomalies: {
    numberOfKeys: 1,
    readOnly: true,
    lua: `${NOW}
local all, open = redis.call('HGETALL', KEYS[1]), {}
for i = 1, #all, 2 do
  if tonumber(string.match(all[i + 1], '^%d+')) > now - tonumber(ARGV[1]) then
    open[#open + 1] = all[i + 1]
  else
    redis.call('HDEL', KEYS[1], all[i])
  end
end
return open
`,
  },

  /** Forgets consumers that have nothing to do. KEYS: ledger. ARGV: group, consumer to forget at once, idle time of others (ms). */
  parleyForgetConsumers: {
    numberOfKeys: 1,
    readOnly: true,
    lua: `
local consumers = redis.pcall('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])
if consumers.err then return 0 end
local gone = 0
for _, facts in ipairs(consumers) do
  local consumer = {}
  for i = 1, #facts, 2 do consumer[facts[i]] = facts[i + 1] end
  local idle = consumer.name == ARGV[2] or consumer.idle > tonumber(ARGV[3])
  if idle and consumer.pending == 0 then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], consumer.name)
    gone = gone + 1
  end
end
return gone
`,
  },
} as const satisfies Record<string, RedisScript>;
