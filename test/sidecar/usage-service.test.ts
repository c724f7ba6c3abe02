import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import { beforeEach, describe, expect, it } from "vitest";
import { BadRequestSchema, ErrorInfoSchema } from "../../gen/google/rpc/error_details_pb.js";
import { BudgetPeriod, type BudgetScope, BudgetScopeSchema } from "../../gen/parley/usage/v1/budget_pb.js";
import { UsageDimension, UsageInterval } from "../../gen/parley/usage/v1/usage_service_pb.js";
import { type Sidecar, startSidecar } from "../../sidecar/app.ts";
import { loadSidecarConfig } from "../../sidecar/config.ts";
import type { Rollups } from "../../sidecar/rollups.ts";
import { createMemoryRollups } from "../../sidecar/rollups-memory.ts";
import { createRedisRollups } from "../../sidecar/rollups-redis.ts";
import type { AccountStore } from "../../src/accounts/account-store.ts";
import { configuredBudgets } from "../../src/accounts/budget-lookup.ts";
import { createMemoryAccountStore } from "../../src/accounts/memory-account-store.ts";
import { createRedisAccountStore } from "../../src/accounts/redis-account-store.ts";
import { makeApiKey } from "../../src/identity/api-keys.ts";
import { createMemoryApiKeyStore } from "../../src/identity/memory-api-key-store.ts";
import { createLogger } from "../../src/platform/logger.ts";
import { call, checkAccount, settled, startedCall } from "../accounts/calls.ts";
import { ledgerOf } from "../support/ledger.ts";
import { useRedis } from "../support/redis-of-file.ts";
import { clientOf } from "./started-sidecar.ts";

const HOUR_MS = 3_600_000;
const range = () => ({
  startTime: timestampFromMs(Date.now() - HOUR_MS),
  endTime: timestampFromMs(Date.now() + HOUR_MS),
});
const YAML = `
prices:
  overrides:
    - { model: m, input_usd_per_million: 1, output_usd_per_million: 2 }
budgets:
  - { tenant: acme, scope: user, id: ann, period: day, limit_micro_usd: 1000 }
`;

const shared = useRedis();

async function start(
  accounts: AccountStore,
  env: Record<string, string> = {},
  rollups: Rollups = createMemoryRollups({ accounts }),
) {
  const config = loadSidecarConfig(
    { REDIS_URL: shared.server.url, USAGE_PORT: "0", USAGE_OPS_PORT: "0", CONFIG_FILE: "parley.yaml", ...env },
    { readFile: () => YAML, packageVersion: "0.0.0-test" },
  );
  const logger = createLogger({ level: "silent", version: "0.0.0-test", track: "stable" });
  const apiKeys = createMemoryApiKeyStore();
  const sidecar = await startSidecar({ config, accounts, rollups, apiKeys, ping: async () => {}, logger });
  return { sidecar, apiKeys };
}

function scope(of: BudgetScope["scope"]): BudgetScope {
  return create(BudgetScopeSchema, { scope: of });
}

async function errorOf(
  work: Promise<unknown>,
): Promise<{ code: string | undefined; reason: string | undefined; fields: string[] }> {
  const error = await work.then(
    () => undefined,
    (thrown: unknown) => ConnectError.from(thrown),
  );
  return {
    code: error && Code[error.code],
    reason: error?.findDetails(ErrorInfoSchema)[0]?.reason,
    fields:
      error
        ?.findDetails(BadRequestSchema)
        .flatMap(({ fieldViolations }) => fieldViolations.map(({ field }) => field)) ?? [],
  };
}

const budgets = configuredBudgets([
  { tenant: "default", scope: "user:ann", period: "day", limitMicroUsd: 1_000n, dryRun: false },
]);

describe.each([
  [
    "in process",
    async () => {
      const accounts = createMemoryAccountStore({ budgets });
      return { accounts, rollups: createMemoryRollups({ accounts }) };
    },
  ],
  [
    "on Redis",
    async () => {
      await shared.connection.use((client) => client.flushall());
      const accounts = createRedisAccountStore({ connection: shared.connection, budgets });
      return {
        accounts,
        rollups: createRedisRollups({ connection: shared.connection, accounts, consumer: crypto.randomUUID() }),
      };
    },
  ],
])("UsageService over accounts %s", (_, open) => {
  const tenant = "default";
  let accounts: AccountStore;
  let sidecar: Sidecar;
  let usage: ReturnType<typeof clientOf>;
  beforeEach(async () => {
    const opened = await open();
    ({ accounts } = opened);
    ({ sidecar } = await start(accounts, {}, opened.rollups));
    usage = clientOf(sidecar);
    return () => sidecar.close();
  });

  const settle = (recordId: string, init: Parameters<typeof settled>[1]) =>
    accounts.settle(settled(recordId, { tenant, holdTime: timestampFromMs(Date.now()), ...init }));

  it("lists the configured budgets and those that were set, with what is spent and held", async () => {
    await startedCall(accounts, call("c1", { tenant, costMicroUsd: 100n }));
    await settle("c1", { costMicroUsd: 60n });
    await startedCall(accounts, call("c2", { tenant, costMicroUsd: 30n }));
    const { budget } = await usage.setBudget({
      scope: scope({ case: "useCase", value: "help" }),
      period: BudgetPeriod.MONTH,
      limitTokens: 500n,
      dryRun: true,
    });
    expect(budget).toMatchObject({ limitTokens: 500n, dryRun: true, spentMicroUsd: 60n, heldMicroUsd: 30n });
    const listed = (await usage.listBudgets({})).budgets;
    expect(listed.map((one) => [one.scope?.scope.value, one.period, one.spentMicroUsd, one.heldMicroUsd])).toEqual([
      ["ann", BudgetPeriod.DAY, 60n, 30n],
      ["help", BudgetPeriod.MONTH, 60n, 30n],
    ]);
    expect(Number(listed[0]?.resetTime?.seconds) * 1_000).toBeGreaterThan(Date.now());
    await usage.setBudget({ scope: scope({ case: "useCase", value: "help" }), period: BudgetPeriod.MONTH });
    expect((await usage.listBudgets({})).budgets).toHaveLength(1);
  });

  it("sets budgets that bind from the next call on", async () => {
    await usage.setBudget({
      scope: scope({ case: "tenant", value: tenant }),
      period: BudgetPeriod.HOUR,
      limitMicroUsd: 5n,
    });
    await expect(accounts.hold(call("c1", { tenant, costMicroUsd: 6n }))).rejects.toMatchObject({
      reason: "CALL_EXCEEDS_BUDGET",
    });
  });

  it("refuses budgets of nobody, of other tenants, of no period and below nothing, each by its field", async () => {
    const wrong = usage.setBudget({ period: BudgetPeriod.UNSPECIFIED, limitMicroUsd: -1n, limitTokens: -1n });
    expect(await errorOf(wrong)).toEqual({
      code: "InvalidArgument",
      reason: "INVALID_FIELD",
      fields: ["scope", "period", "limit_micro_usd", "limit_tokens"],
    });
    const other = usage.setBudget({
      scope: scope({ case: "tenant", value: "other" }),
      period: BudgetPeriod.DAY,
      limitTokens: 1n,
    });
    expect((await errorOf(other)).fields).toEqual(["scope"]);
  });

  it("sums usage by groups and intervals, corrections included, by cost", async () => {
    await settle("c1", { userId: "ann", costMicroUsd: 10n, promptTokens: 5n, completionTokens: 1n, priceVersion: "v" });
    await settle("c2", { userId: "bob", costMicroUsd: 40n, promptTokens: 7n, completionTokens: 2n, priceVersion: "v" });
    await settle("c3", { userId: "ann", costMicroUsd: 20n, promptTokens: 1n, completionTokens: 1n, model: "odd" });
    await accounts.correct(
      settled("c2", {
        tenant,
        userId: "bob",
        costMicroUsd: 35n,
        promptTokens: 7n,
        completionTokens: 2n,
        priceVersion: "w",
      }),
    );
    await settle("elsewhere", { tenant: "other", costMicroUsd: 1_000n });
    const groupsOf = async (groupBy: UsageDimension[], interval = UsageInterval.UNSPECIFIED) =>
      (await usage.queryUsage({ ...range(), groupBy, interval })).groups.map(
        ({ values, calls, costMicroUsd, unpricedTokens }) => [
          ...values,
          Number(calls),
          Number(costMicroUsd),
          Number(unpricedTokens),
        ],
      );
    expect(await groupsOf([])).toEqual([[3, 65, 2]]);
    expect(await groupsOf([UsageDimension.USER])).toEqual([
      ["bob", 1, 35, 0],
      ["ann", 2, 30, 2],
    ]);
    expect(await groupsOf([UsageDimension.MODEL, UsageDimension.USER])).toEqual([
      ["gpt-4", "bob", 1, 35, 0],
      ["odd", "ann", 1, 20, 2],
      ["gpt-4", "ann", 1, 10, 0],
    ]);
    const byMonth = await usage.queryUsage({ ...range(), interval: UsageInterval.MONTH });
    expect(byMonth.groups.length).toBeGreaterThan(0);
    const before = { startTime: timestampFromMs(0), endTime: timestampFromMs(1_000) };
    expect((await usage.queryUsage(before)).groups).toEqual([]);
  });

  it("refuses ranges and groups that make no sense", async () => {
    const { startTime, endTime } = range();
    expect((await errorOf(usage.queryUsage({}))).fields).toEqual(["start_time", "end_time"]);
    expect((await errorOf(usage.queryUsage({ startTime: endTime, endTime: startTime }))).fields).toEqual(["end_time"]);
    // Times that a Timestamp cannot have (google/protobuf/timestamp.proto), though its fields can.
    const never = { startTime: { seconds: 10n ** 18n, nanos: 0 }, endTime: { seconds: 2n * 10n ** 18n, nanos: 0 } };
    const before = { startTime: { seconds: -(10n ** 18n), nanos: 0 }, endTime: { seconds: 0n, nanos: -1 } };
    for (const odd of [never, before]) {
      expect((await errorOf(usage.queryUsage(odd))).fields).toEqual(["start_time", "end_time"]);
      expect((await errorOf(usage.repriceUsage(odd))).fields).toEqual(["start_time", "end_time"]);
    }
    const groupBy = [UsageDimension.USER, UsageDimension.USER, UsageDimension.UNSPECIFIED];
    expect(
      (await errorOf(usage.queryUsage({ startTime, endTime, groupBy, interval: 99 as UsageInterval }))).fields,
    ).toEqual(["group_by", "group_by", "interval"]);
  });

  it("refuses filters that name nothing, name it twice, have no values or too many, or other tenants, each by its field", async () => {
    const [dimension, values] = [UsageDimension.TEAM, ["red"]];
    const wrong = [
      { dimension, values },
      { dimension, values },
      { dimension: UsageDimension.UNSPECIFIED, values },
      { dimension: 99 as UsageDimension, values },
      { dimension: UsageDimension.USER, values: [] },
      { dimension: UsageDimension.MODEL, values: Array.from({ length: 101 }, String) },
      { dimension: UsageDimension.AGENT, values: ["x".repeat(257)] },
      { dimension: UsageDimension.TENANT, values: [tenant, "other"] },
    ];
    const fields = [
      "filters[1].dimension",
      "filters[2].dimension",
      "filters[3].dimension",
      "filters[4].values",
      "filters[5].values",
      "filters[6].values",
      "filters[7].values",
    ];
    const refusal = { code: "InvalidArgument", reason: "INVALID_FIELD", fields };
    expect(await errorOf(usage.queryUsage({ ...range(), filters: wrong }))).toEqual(refusal);
    const rows = usage.exportUsage({ ...range(), filters: wrong });
    expect(await errorOf(Array.fromAsync(rows))).toEqual(refusal);
    const most = [{ dimension, values: Array.from({ length: 100 }, (_value, index) => `${index}`.padEnd(256, "x")) }];
    expect((await usage.queryUsage({ ...range(), filters: most })).groups).toEqual([]);
  });

  it("exports all rows, oldest first", async () => {
    for (let index = 0; index < 25; index += 1) await settle(`c${index}`, {});
    const ids: string[] = [];
    for await (const { record } of usage.exportUsage(range())) ids.push(record?.recordId ?? "");
    expect(ids).toEqual(Array.from({ length: 25 }, (_value, index) => `c${index}`));
  });

  it("lists the prices that hold, of one model or of all that are configured", async () => {
    const all = (await usage.listPrices({})).prices.map(({ model, priceVersion }) => [model, priceVersion]);
    expect(all).toEqual([
      ["gpt-4", "genai-prices 0.1.8 openai/gpt-4"],
      ["m", "config always 1000000/1000000/2000000"],
    ]);
    expect((await usage.listPrices({ model: "o3" })).prices).toHaveLength(2);
  });

  it("shows what pricing anew would change, commits what was looked at, and nothing else", async () => {
    await settle("c1", {
      model: "m",
      promptTokens: 100n,
      completionTokens: 10n,
      costMicroUsd: 9_000n,
      priceVersion: "",
    });
    await settle("c2", { model: "m", promptTokens: 100n, completionTokens: 0n, costMicroUsd: 100n, priceVersion: "v" });
    await settle("c3", { model: "gpt-4", promptTokens: 1n, completionTokens: 0n, costMicroUsd: 7n, priceVersion: "v" });
    const asked = { ...range(), model: "m" };
    const preview = await usage.repriceUsage(asked);
    expect(preview).toMatchObject({ records: 1n, differenceMicroUsd: -8_880n });
    expect(await ledgerOf(accounts, tenant)).toHaveLength(3);

    await settle("c4", { model: "m", promptTokens: 1n, completionTokens: 0n, costMicroUsd: 5n, priceVersion: "" });
    const { previewToken } = preview;
    expect(await errorOf(usage.repriceUsage({ ...asked, previewToken }))).toMatchObject({ reason: "PREVIEW_STALE" });
    const second = await usage.repriceUsage(asked);
    expect(second).toMatchObject({ records: 2n, differenceMicroUsd: -8_884n });
    const committed = await usage.repriceUsage({ ...asked, previewToken: second.previewToken });
    expect(committed).toMatchObject({ records: 2n, differenceMicroUsd: -8_884n, previewToken: "" });
    expect(await usage.repriceUsage(asked)).toMatchObject({ records: 0n, differenceMicroUsd: 0n });
    const rows = await ledgerOf(accounts, tenant);
    expect(rows.slice(4).map((row) => [row.correctsRecordId, row.costMicroUsd, row.promptTokens])).toEqual([
      ["c1", -8_880n, 0n],
      ["c4", -4n, 0n],
    ]);
    expect(rows[4]?.priceVersion).toBe("config always 1000000/1000000/2000000");
    const [group] = (await usage.queryUsage({ ...range(), groupBy: [UsageDimension.MODEL] })).groups.filter(
      ({ values }) => values[0] === "m",
    );
    expect(group).toMatchObject({ calls: 3n, costMicroUsd: 221n, unpricedTokens: 0n });
    await checkAccount(accounts, tenant);
  });
});

describe("UsageService with credentials", () => {
  it("knows the caller's tenant only, and what its roles allow", async () => {
    const accounts = createMemoryAccountStore();
    const { sidecar, apiKeys } = await start(accounts, { AUTH_MODE: "api_key" });
    try {
      const keyOf = async (tenant: string, roles: string[]) =>
        (await makeApiKey(apiKeys, { tenant, team: "", userId: "ann", useCases: [], roles, note: "" })).key;
      const holdTime = timestampFromMs(Date.now());
      await accounts.settle(settled("c1", { tenant: "acme", holdTime }));
      const mine = clientOf(sidecar, await keyOf("acme", ["usage:read"]));
      const others = clientOf(sidecar, await keyOf("other", ["admin"]));
      const chatter = clientOf(sidecar, await keyOf("acme", ["chat"]));
      expect((await mine.queryUsage(range())).groups).toHaveLength(1);
      expect((await others.queryUsage(range())).groups).toHaveLength(0);
      const ofAcme = { ...range(), filters: [{ dimension: UsageDimension.TENANT, values: ["acme"] }] };
      expect((await mine.queryUsage(ofAcme)).groups).toHaveLength(1);
      expect(await Array.fromAsync(mine.exportUsage(ofAcme))).toHaveLength(1);
      const refusal = { code: "InvalidArgument", reason: "INVALID_FIELD", fields: ["filters[0].values"] };
      expect(await errorOf(others.queryUsage(ofAcme))).toEqual(refusal);
      expect(await errorOf(Array.fromAsync(others.exportUsage(ofAcme)))).toEqual(refusal);
      expect(await errorOf(chatter.queryUsage(ofAcme))).toMatchObject({ reason: "ROLE_MISSING" });
      const budget = { scope: scope({ case: "user", value: "ann" }), period: BudgetPeriod.DAY, limitTokens: 1n };
      expect(await errorOf(mine.setBudget(budget))).toMatchObject({ code: "PermissionDenied", reason: "ROLE_MISSING" });
      expect(await errorOf(chatter.listBudgets({}))).toMatchObject({ reason: "ROLE_MISSING" });
      expect(await errorOf(clientOf(sidecar).listBudgets({}))).toMatchObject({ reason: "CREDENTIALS_MISSING" });
      await others.setBudget(budget);
      expect((await mine.listBudgets({})).budgets).toEqual([]);
      expect((await others.listBudgets({})).budgets).toHaveLength(1);
    } finally {
      await sidecar.close();
    }
  });
});
