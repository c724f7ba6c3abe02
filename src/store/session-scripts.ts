import { CREATE, NOW, REMOVE, SLIDE } from "./script-parts.ts";

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

/** Scripts on a session's keys that have nothing to do with its turns. */
export const SESSION_SCRIPTS = {
  /**
   * Makes a session.
   *
   * KEYS: session, messages, turns, queue, tickets. ARGV: prefixes of turns and logs, record, owner, creation time, end of life,
   * version of the release.
   * Result: [1], or [0, owner]: the id is taken; or [-1]: its life is over.
   */
  parleyCreateSession: {
    numberOfKeys: 5,
    lua: `${NOW}${CREATE}
local owner = redis.call('HGET', KEYS[1], 'owner')
if owner then return {0, owner} end
if tonumber(ARGV[6]) <= now then return {-1} end
create(KEYS, ARGV[1], ARGV[2], {record = ARGV[3], owner = ARGV[4], created = ARGV[5], expire = ARGV[6], version = ARGV[7]})
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

  /** The history's newest messages. KEYS: session, messages. ARGV: most. Result: the records, or nil: no such session. */
  parleyReadWindow: {
    numberOfKeys: 2,
    readOnly: true,
    lua: `
if redis.call('EXISTS', KEYS[1]) == 0 then return false end
if ARGV[1] == '0' then return {} end
return redis.call('LRANGE', KEYS[2], -ARGV[1], -1)
`,
  },

  /** Messages of the history. KEYS: session, messages. ARGV: offset, most. Result: the records, or nil: no such session. */
  parleyListMessages: {
    numberOfKeys: 2,
    readOnly: true,
    lua: `
if redis.call('EXISTS', KEYS[1]) == 0 then return false end
if tonumber(ARGV[2]) < 1 then return {} end
return redis.call('LRANGE', KEYS[2], ARGV[1], ARGV[1] + ARGV[2] - 1)
`,
  },
} as const;
