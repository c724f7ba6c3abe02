import fc from "fast-check";
import { Redis } from "ioredis";
import { afterAll, beforeAll, expect, test } from "vitest";
import { ACCOUNT_SCRIPTS } from "../../src/accounts/account-scripts.ts";
import { periodsOf } from "../../src/accounts/budget-periods.ts";
import { type RedisServer, startRedisServer } from "../support/redis-server.ts";

let server: RedisServer;
let redis: Redis;
beforeAll(async () => {
  server = await startRedisServer();
  redis = new Redis(server.url);
});
afterAll(async () => {
  redis.disconnect();
  await server.stop();
});

test.each([
  [
    "2026-11-24T22:46:48.123Z",
    "2026-11-24T22:00:00Z",
    "2026-11-24T00:00:00Z",
    "2026-11-01T00:00:00Z",
    "2026-12-01T00:00:00Z",
  ],
  [
    "2026-12-31T23:59:59.999Z",
    "2026-12-31T23:00:00Z",
    "2026-12-31T00:00:00Z",
    "2026-12-01T00:00:00Z",
    "2027-01-01T00:00:00Z",
  ],
  [
    "2028-02-29T00:00:00.000Z",
    "2028-02-29T00:00:00Z",
    "2028-02-29T00:00:00Z",
    "2028-02-01T00:00:00Z",
    "2028-03-01T00:00:00Z",
  ],
])("at %s the hour, day and month are those of UTC", (time, hour, day, month, nextMonth) => {
  const spans = periodsOf(Date.parse(time));
  expect(spans.map(({ name }) => name)).toEqual(["hour", "day", "month"]);
  expect(spans.map(({ startMs }) => startMs)).toEqual([hour, day, month].map((text) => Date.parse(text)));
  expect(spans[2]?.endMs).toBe(Date.parse(nextMonth));
});

test("Redis's scripts have the same periods as the process, on any day of four centuries", async () => {
  const [, periods] = /(local HOUR, DAY[\s\S]*?)local function count/.exec(ACCOUNT_SCRIPTS.parleyHold.lua) ?? [];
  const script = `${periods}
    local spans = {}
    for _, span in ipairs(periods(tonumber(ARGV[1]))) do
      spans[#spans + 1] = {span[1], string.format('%.0f', span[2]), string.format('%.0f', span[3])}
    end
    return spans`;
  const time = fc.integer({ min: Date.parse("1990-01-01"), max: Date.parse("2390-01-01") });
  const edge = fc.tuple(
    fc.integer({ min: 1990, max: 2390 }),
    fc.integer({ min: 0, max: 11 }),
    fc.integer({ min: -1, max: 1 }),
  );
  const timeMs = fc.oneof(
    time,
    edge.map(([year, month, byMs]) => Date.UTC(year, month) + byMs),
  );
  await fc.assert(
    fc.asyncProperty(timeMs, async (ms) => {
      const expected = periodsOf(ms).map(({ name, startMs, endMs }) => [name, String(startMs), String(endMs)]);
      expect(await redis.eval(script, 0, ms)).toEqual(expected);
    }),
    { numRuns: 1_000 },
  );
});
