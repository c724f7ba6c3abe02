import { once } from "node:events";
import * as http2 from "node:http2";
import { promisify } from "node:util";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { beforeEach, describe, expect, it } from "vitest";
import { UsageDimension, UsageInterval } from "../../gen/parley/usage/v1/usage_service_pb.js";
import { createMemoryRollups } from "../../sidecar/rollups-memory.ts";
import { periodsFor } from "../../sidecar/rollups-query.ts";
import type { AccountStore } from "../../src/accounts/account-store.ts";
import { periodOf } from "../../src/accounts/budget-periods.ts";
import { createMemoryAccountStore } from "../../src/accounts/memory-account-store.ts";
import { dimensionOf, rowsOf, sumUsage, type UsageFilters } from "../../src/accounts/usage-query.ts";
import { makeApiKey } from "../../src/identity/api-keys.ts";
import { call, settled } from "../accounts/calls.ts";
import { eventually } from "../support/eventually.ts";
import { useRedis } from "../support/redis-of-file.ts";
import { bothRollups } from "./opened-rollups.ts";
import { startTestSidecar } from "./started-sidecar.ts";

const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;
const tenant = "default";

const shared = useRedis();

describe("the periods that answer a question", () => {
  const nowMs = Date.parse("2026-11-25T10:20:00Z");
  const question = (
    start: string,
    end: string,
    interval = UsageInterval.UNSPECIFIED,
    groupBy: UsageDimension[] = [],
    filters: UsageFilters = new Map(),
  ) =>
    periodsFor({ tenant, groupBy, interval, filters, startMs: Date.parse(start), endMs: Date.parse(end) }, nowMs)?.map(
      ({ period, startMs }) => `${period} ${new Date(startMs).toISOString().slice(0, 13)}`,
    );

  it("are the longest that fit the range", () => {
    expect(question("2026-09-30T22:00:00Z", "2026-11-02T01:00:00Z")).toEqual([
      "hour 2026-09-30T22",
      "hour 2026-09-30T23",
      "month 2026-10-01T00",
      "day 2026-11-01T00",
      "hour 2026-11-02T00",
    ]);
  });

  it("are never longer than the interval", () => {
    expect(question("2026-10-01T00:00:00Z", "2026-11-01T00:00:00Z", UsageInterval.DAY)).toHaveLength(31);
    expect(question("2026-11-01T00:00:00Z", "2026-11-02T00:00:00Z", UsageInterval.HOUR)).toHaveLength(24);
  });

  it("end with the running one where the range goes on", () => {
    expect(question("2026-11-01T00:00:00Z", "2027-01-01T00:00:00Z")).toEqual(["month 2026-11-01T00"]);
    expect(question("2026-11-25T09:00:00Z", "2026-11-25T23:59:59Z")).toEqual([
      "hour 2026-11-25T09",
      "hour 2026-11-25T10",
    ]);
    expect(question("2027-01-01T00:00:00Z", "2027-02-01T00:00:00Z")).toEqual([]);
  });

  it("are none for sessions, for parts of hours, and for more hours than are worth it: the ledger answers", () => {
    expect(
      question("2026-11-01T00:00:00Z", "2026-11-02T00:00:00Z", UsageInterval.DAY, [UsageDimension.SESSION]),
    ).toBeUndefined();
    const [start, end] = ["2026-11-01T00:00:00Z", "2026-11-02T00:00:00Z"];
    const ofSession = new Map([[UsageDimension.SESSION, new Set(["s1"])]]);
    expect(question(start, end, UsageInterval.DAY, [], ofSession)).toBeUndefined();
    expect(question(start, end, UsageInterval.DAY, [], new Map([[UsageDimension.TEAM, new Set([""])]]))).toBeDefined();
    expect(question("2026-11-01T00:00:01Z", "2026-11-02T00:00:00Z")).toBeUndefined();
    expect(question("2026-11-01T00:00:00Z", "2026-11-02T00:30:00Z")).toBeUndefined();
    expect(question("2026-01-01T00:00:00Z", "2026-11-02T00:00:00Z", UsageInterval.HOUR)).toBeUndefined();
  });
});

describe.each(bothRollups(shared))("usage %s", (_, open) => {
  let accounts: AccountStore;
  let started: Awaited<ReturnType<typeof startTestSidecar>>;
  beforeEach(async () => {
    const opened = await open();
    ({ accounts } = opened);
    started = await startTestSidecar(opened);
    return () => started.sidecar.close();
  });

  /** Rows of the last three days, corrected here and there; two groups of each kind. */
  const fill = async (): Promise<void> => {
    await accounts.hold(call("first", { tenant }));
    await accounts.release({ tenant, callId: "first" }, "");
    for (let index = 0; index < 60; index += 1) {
      const row = settled(`c${index}`, {
        tenant,
        team: index % 2 ? "red" : "blue",
        userId: `u${index % 3}`,
        useCase: index % 5 ? "help" : "",
        agent: index % 7 ? "writer" : "critic",
        model: index % 2 ? "gpt-4" : "odd",
        version: index % 4 ? "0.4.0" : "0.3.0",
        costMicroUsd: BigInt(1_000 + index),
        promptTokens: BigInt(index),
        priceVersion: index % 6 ? "v" : "",
        holdTime: timestampFromMs(Date.now() - (index % 20) * HOUR_MS),
      });
      await accounts.settle(row);
      if (index % 9 === 0) await accounts.correct({ ...row, costMicroUsd: row.costMicroUsd - 500n, priceVersion: "w" });
    }
  };

  it("by rollups is what it is by the ledger, for every grouping and interval, and a reader sees what it wrote", async () => {
    await fill();
    const hourMs = periodOf("hour", Date.now()).startMs;
    const ranges = [
      [periodOf("day", Date.now() - 3 * DAY_MS).startMs, periodOf("day", Date.now() + DAY_MS).startMs],
      [hourMs - 13 * HOUR_MS, hourMs - 2 * HOUR_MS],
      [periodOf("month", Date.now() - 3 * DAY_MS).startMs, periodOf("month", Date.now()).endMs],
    ] as const;
    const groupings = [
      [],
      [UsageDimension.TENANT],
      [UsageDimension.TEAM],
      [UsageDimension.USER, UsageDimension.MODEL],
      [UsageDimension.USE_CASE, UsageDimension.AGENT],
      [UsageDimension.VERSION],
    ];
    for (const [startMs, endMs] of ranges) {
      for (const interval of [UsageInterval.UNSPECIFIED, UsageInterval.HOUR, UsageInterval.DAY, UsageInterval.MONTH]) {
        for (const groupBy of groupings) {
          const question = { tenant, groupBy, interval, filters: new Map(), startMs, endMs };
          expect(periodsFor(question, Date.now())).toBeDefined();
          const expected = await sumUsage(rowsOf(accounts, question), question);
          expect(expected.length).toBeGreaterThan(0);
          const times = { startTime: timestampFromMs(startMs), endTime: timestampFromMs(endMs) };
          const { groups } = await started.usage().queryUsage({ ...times, groupBy, interval });
          expect(groups).toEqual(expected);
        }
      }
    }
  });

  it("by session, and of parts of hours, is answered by the ledger", async () => {
    await fill();
    const times = { startTime: timestampFromMs(Date.now() - 5 * DAY_MS), endTime: timestampFromMs(Date.now() + 1_000) };
    const { groups } = await started.usage().queryUsage({ ...times, groupBy: [UsageDimension.SESSION] });
    expect(groups).toMatchObject([{ values: ["s1"], calls: 60n }]);
  });

  const FILTERS: readonly (readonly [name: string, filters: { dimension: UsageDimension; values: string[] }[]])[] = [
    ["a tenant, the own one", [{ dimension: UsageDimension.TENANT, values: [tenant] }]],
    ["a team", [{ dimension: UsageDimension.TEAM, values: ["red"] }]],
    ["two users", [{ dimension: UsageDimension.USER, values: ["u0", "u2"] }]],
    ["no use case", [{ dimension: UsageDimension.USE_CASE, values: [""] }]],
    ["an agent", [{ dimension: UsageDimension.AGENT, values: ["critic"] }]],
    ["a model", [{ dimension: UsageDimension.MODEL, values: ["odd"] }]],
    ["a version", [{ dimension: UsageDimension.VERSION, values: ["0.3.0"] }]],
    ["a session", [{ dimension: UsageDimension.SESSION, values: ["s1"] }]],
    [
      "a team and a user",
      [
        { dimension: UsageDimension.TEAM, values: ["blue"] },
        { dimension: UsageDimension.USER, values: ["u1"] },
      ],
    ],
  ];

  it.each(FILTERS)(
    "of %s is what the ledger has of it: by rollups, by the ledger, as rows and as CSV",
    async (_, filters) => {
      await fill();
      await accounts.settle(
        settled("elsewhere", { tenant, sessionId: "s2", holdTime: timestampFromMs(Date.now()), costMicroUsd: 77n }),
      );
      const hourMs = periodOf("hour", Date.now()).startMs;
      const [startMs, endMs] = [hourMs - 30 * HOUR_MS, hourMs + HOUR_MS];
      const expected = (await Array.fromAsync(rowsOf(accounts, { tenant, startMs, endMs }))).filter((row) =>
        filters.every(({ dimension, values }) => values.includes(dimensionOf(row, dimension))),
      );
      const costMicroUsd = expected.reduce((sum, row) => sum + row.costMicroUsd, 0n);
      expect(expected.length).toBeGreaterThan(0);
      const wholeHours = { startTime: timestampFromMs(startMs), endTime: timestampFromMs(endMs) };
      for (const times of [wholeHours, { ...wholeHours, startTime: timestampFromMs(startMs + 1) }]) {
        const { groups } = await started.usage().queryUsage({ ...times, filters });
        expect(groups.map((group) => group.costMicroUsd)).toEqual([costMicroUsd]);
      }
      const rows = await Array.fromAsync(started.usage().exportUsage({ ...wholeHours, filters }));
      expect(rows.map(({ record }) => record?.recordId)).toEqual(expected.map(({ recordId }) => recordId));
      const query = new URLSearchParams([
        ["start_time", new Date(startMs).toISOString()],
        ["end_time", new Date(endMs).toISOString()],
        ...filters.flatMap(({ dimension, values }) => values.map((value) => [CSV_NAMES[dimension] ?? "", value])),
      ]);
      const lines = (await (await csvOf(`?${query}`)).text()).trimEnd().split("\r\n").slice(1);
      expect(lines.map((line) => line.split(",")[0])).toEqual(expected.map(({ recordId }) => recordId));
    },
  );

  const CSV_NAMES: Readonly<Partial<Record<UsageDimension, string>>> = {
    [UsageDimension.TENANT]: "tenant",
    [UsageDimension.TEAM]: "team",
    [UsageDimension.USER]: "user_id",
    [UsageDimension.USE_CASE]: "use_case",
    [UsageDimension.AGENT]: "agent",
    [UsageDimension.MODEL]: "model",
    [UsageDimension.VERSION]: "version",
    [UsageDimension.SESSION]: "session_id",
  };

  it("as CSV is refused by filters that are none: a mistyped one does not give everybody's rows", async () => {
    const range = "?start_time=2026-01-01T00:00:00Z&end_time=2026-02-01T00:00:00Z";
    for (const wrong of ["&teem=red", "&tenant=other", `&team=${"x".repeat(257)}`]) {
      const answer = await csvOf(range + wrong);
      expect([wrong.slice(0, 9), answer.status]).toEqual([wrong.slice(0, 9), 400]);
      expect(await answer.text()).toContain("session_id");
    }
    expect((await csvOf(`${range}&team=red&team=`)).status).toBe(200);
  });

  const csvOf = (query: string, headers: Record<string, string> = {}, method = "GET") =>
    fetch(`${started.sidecar.url}/usage.csv${query}`, { headers, method });

  it("comes as CSV, a line for each row, whose sum is the rollup's", async () => {
    await fill();
    await accounts.settle(
      settled("=cmd|' /C calc'!A0", {
        tenant,
        userId: 'a "b", c\n',
        costMicroUsd: 1n,
        holdTime: timestampFromMs(Date.now()),
      }),
    );
    const start = periodOf("month", Date.now() - 3 * DAY_MS).startMs;
    const end = periodOf("month", Date.now()).endMs;
    const range = `?start_time=${new Date(start).toISOString()}&end_time=${new Date(end).toISOString()}`;
    const answer = await csvOf(range);
    expect(answer.status).toBe(200);
    expect(answer.headers.get("content-type")).toBe("text/csv; charset=utf-8; header=present");
    const text = await answer.text();
    const [header = "", ...lines] = text.trimEnd().split("\r\n");
    expect(header).toMatch(/^record_id,corrects_record_id,hold_time,tenant,team,user_id,.*,cost_micro_usd,cost_usd,/);
    expect(lines.at(-1)).toMatch(/^'=cmd\|' \/C calc'!A0,,20\d\d-.*,default,red,"a ""b"", c\n",help,s1,/);
    // The cost stands fifth from the end, where no cell has a comma.
    const costs = lines.map((line) => line.split(",").at(-5) ?? "");
    const sum = costs.reduce((all, cost) => all + BigInt(cost), 0n);
    const dollars = lines.reduce((all, line) => all + Math.round(Number(line.split(",").at(-4)) * 1e6), 0);
    expect(dollars).toBe(Number(sum));
    const { groups } = await started
      .usage()
      .queryUsage({ startTime: timestampFromMs(start), endTime: timestampFromMs(end) });
    expect(groups).toMatchObject([{ costMicroUsd: sum }]);
    expect(lines).toHaveLength(68);
  });

  it("as CSV is the same for HEAD without rows, empty without usage, and refused without a range", async () => {
    const range = "?start_time=2026-01-01T00:00:00Z&end_time=2026-02-01T00:00:00%2B01:00";
    expect(await (await csvOf(range)).text()).toMatch(/^record_id,[a-z_,]+\r\n$/);
    expect(await (await csvOf(range, {}, "HEAD")).text()).toBe("");
    for (const wrong of ["", "?start_time=yesterday&end_time=2026-01-01T00:00:00Z", range.replace("02-01", "01-01")]) {
      const answer = await csvOf(wrong);
      expect([wrong, answer.status]).toEqual([wrong, 400]);
    }
    expect((await csvOf(range, {}, "POST")).status).toBe(405);
    const counted = 'parley_usage_requests_total{rpc="usage.csv",code="invalid_argument",';
    expect(await started.metrics()).toContain(counted);
  });
});

describe("the CSV of a client that goes away", () => {
  it("over HTTP/2, while the ledger is read, is let go", async () => {
    const accounts = createMemoryAccountStore();
    const now = { tenant: "default", holdTime: timestampFromMs(Date.now()) };
    for (let row = 0; row < 2_500; row++) await accounts.settle(settled(`row-${row}`, now));
    const gone = Promise.withResolvers<void>();
    let pages = 0;
    const slow: AccountStore = {
      ...accounts,
      async ledger(query) {
        if (++pages > 1) await gone.promise;
        return accounts.ledger(query);
      },
    };
    const { sidecar, metrics } = await startTestSidecar({ accounts: slow, rollups: createMemoryRollups({ accounts }) });
    const session = http2.connect(sidecar.url);
    const path = "/usage.csv?start_time=2020-01-01T00:00:00Z&end_time=2100-01-01T00:00:00Z";
    const stream = session.request({ ":path": path });
    stream.on("error", () => undefined).resume();
    await once(stream, "response");
    await eventually(() => expect(pages).toBe(2));
    stream.close(http2.constants.NGHTTP2_CANCEL);
    await once(stream, "close");
    // What is sent on one connection arrives in order: the reset was there before the ping.
    await promisify(session.ping.bind(session) as (done: () => void) => boolean)();
    gone.resolve();
    await eventually(async () =>
      expect(await metrics()).toContain('parley_usage_requests_total{rpc="usage.csv",code="canceled",'),
    );
    session.close();
    await sidecar.close();
  });
});

describe("the CSV with credentials", () => {
  it("is of the caller's tenant only, for those who may read usage", async () => {
    const accounts = createMemoryAccountStore();
    const { sidecar, apiKeys } = await startTestSidecar({
      accounts,
      rollups: createMemoryRollups({ accounts }),
      env: { AUTH_MODE: "api_key" },
    });
    const keyOf = async (of: string, roles: string[]): Promise<string> => {
      const claims = { tenant: of, team: "", userId: "", useCases: [], roles, note: "" };
      return (await makeApiKey(apiKeys, claims)).key;
    };
    const now = { holdTime: timestampFromMs(Date.now()) };
    await accounts.settle(settled("mine", { tenant: "acme", ...now }));
    await accounts.settle(settled("theirs", { tenant: "other", ...now }));
    const url = `${sidecar.url}/usage.csv?start_time=2020-01-01T00:00:00Z&end_time=2100-01-01T00:00:00Z`;
    const ask = async (key?: string): Promise<[number, string]> => {
      const headers = key === undefined ? {} : { authorization: `Bearer ${key}` };
      const answer = await fetch(url, { headers });
      return [answer.status, await answer.text()];
    };
    const [status, text] = await ask(await keyOf("acme", ["usage:read"]));
    expect([status, text.includes("mine"), text.includes("theirs")]).toEqual([200, true, false]);
    expect((await ask())[0]).toBe(401);
    expect((await ask("pk_nobody"))[0]).toBe(401);
    expect((await ask(await keyOf("acme", ["chat:on_behalf"])))[0]).toBe(403);
    await sidecar.close();
  });
});
