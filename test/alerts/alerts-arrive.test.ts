import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Redis } from "ioredis";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { parse, stringify } from "yaml";
import { loadAlertSettings } from "../../sidecar/alert-settings.ts";
import { businessDashboard } from "../../sidecar/dashboards/business-dashboard.ts";
import { operationsDashboard } from "../../sidecar/dashboards/operations-dashboard.ts";
import { moneyKeys } from "../../src/accounts/account-keys.ts";
import { periodOf } from "../../src/accounts/budget-periods.ts";
import { type SimulatedModel, startSimulatedModel } from "../../src/providers/simulated-model.ts";
import { freePorts, type RedisServer, startRedisServer } from "../support/redis-server.ts";
import { type ServiceProcess, startServiceProcess } from "../support/service-process.ts";
import { type MonitoringStack, NAMESPACE, SECRETS, startMonitoring } from "./monitoring-stack.ts";

// Production entries, a real Prometheus and a real Alertmanager on the rules that the sidecar serves, their waits made short.

/** A model that no price list knows. */
const UNPRICED_MODEL = "house-made-7b";

/** A team whose agent calls its tools again and again, and bounds on it that are too high. */
const RUNAWAY_CALLS = 40;
const YAML = `
agents:
  assistant: {}
  runaway: { model: sim-tool-loop, tools: [current_time] }
teams:
  assistant: { agent: assistant }
  runaway: { agent: runaway, max_rounds: ${RUNAWAY_CALLS} }
models:
  ${UNPRICED_MODEL}: { endpoints: [{}] }
  sim-tool-loop: { context_window_tokens: 1000000, endpoints: [{}] }
`;
const MAX_TOKENS = "1000000";

/** An alert goes through a scrape, an evaluation, its wait and Alertmanager's, each a second; on a slow machine longer. */
const ARRIVES_MS = 60_000;

// A test waits for several of them.
vi.setConfig({ testTimeout: 3 * ARRIVES_MS });

let redis: RedisServer;
let model: SimulatedModel;
let service: ServiceProcess;
let sidecar: ServiceProcess;
let monitoring: MonitoringStack;
let sidecarEnv: Record<string, string>;
let folder: string;

beforeAll(async () => {
  redis = await startRedisServer();
  model = await startSimulatedModel();
  folder = await mkdtemp(join(tmpdir(), "parley-alerts-"));
  const configFile = join(folder, "parley.yaml");
  await writeFile(configFile, YAML);
  const env = {
    REDIS_URL: redis.url,
    MODEL: UNPRICED_MODEL,
    OPENAI_BASE_URL: model.baseUrl,
    OPENAI_API_KEY: "none",
    CONFIG_FILE: configFile,
    MAX_TOKENS,
  };
  const [opsPort, alertmanagerPort] = (await freePorts(2)) as [number, number];
  sidecarEnv = {
    ...env,
    USAGE_OPS_PORT: String(opsPort),
    ALERTMANAGER_URL: `http://127.0.0.1:${alertmanagerPort}`,
    ALERT_NAMESPACE: NAMESPACE,
  };
  [service, sidecar] = await Promise.all([
    startServiceProcess({ env }),
    startServiceProcess({ entry: "sidecar/main.ts", env: sidecarEnv }),
  ]);
  monitoring = await startMonitoring({
    rules: impatient(await (await fetch(`${sidecar.opsUrl}/rules`)).text()),
    targets: [service.opsUrl, sidecar.opsUrl].map((url) => new URL(url).host),
    alertmanagerPort,
  });
});

afterAll(async () => {
  await monitoring?.stop();
  await Promise.all([service?.stop(), sidecar?.stop()]);
  await model?.close();
  await redis?.stop();
  await rm(folder, { recursive: true, force: true });
});

test("the watchdog beats to the dead man's switch, with its token", async () => {
  const beat = await arrival("/dead-mans-switch", "ParleyWatchdog");
  expect(beat.authorization).toBe(`Bearer ${SECRETS.switchToken}`);
});

test("Prometheus scrapes service and sidecar, and evaluates every rule", async () => {
  await vi.waitFor(
    async () => {
      expect((await monitoring.query("parley_store_up")).map(({ value }) => value)).toEqual([1]);
      expect((await monitoring.query("parley_usage_up")).map(({ value }) => value)).toEqual([1]);
      const rules = await monitoring.rules();
      expect(rules.length).toBeGreaterThan(50);
      expect(rules.filter(({ health }) => health !== "ok")).toEqual([]);
    },
    { timeout: ARRIVES_MS, interval: 250 },
  );
});

test("Prometheus understands every panel of the dashboards", async () => {
  const dashboards = [operationsDashboard(loadAlertSettings({})), businessDashboard()];
  const queries = dashboards.flatMap(({ rows }) =>
    rows.flatMap(({ panels }) => panels.flatMap((panel) => panel.queries)),
  );
  for (const { expr } of queries) {
    const asked = expr.replaceAll("$__rate_interval", "5s").replaceAll("$__range", "1m").replaceAll(/\$\w+/g, ".*");
    await expect(monitoring.query(asked), asked).resolves.toBeDefined();
  }
});

test("tokens without a price are a message to Slack, and wake nobody", async () => {
  await chat({ userId: "ann" });
  const { body } = await arrival("/slack", "ParleyUnpricedTokens", `${UNPRICED_MODEL} has no price`);
  expect(body).toContain("docs/runbooks/ParleyUnpricedTokens.md");
  expect(arrived("/pagerduty", "ParleyUnpricedTokens")).toEqual([]);
});

test("a runaway agent is told of at Slack by the sidecar, with the session to look at, and beside the rule's alert; it wakes nobody", async () => {
  const { sessionId } = await chat({ userId: "eve", agentTeam: "runaway" });
  const { body } = await arrival("/slack", "ParleyCostAnomaly", `Session: ${sessionId}.`);
  expect(body).toContain("User eve of tenant default makes far more model calls in one turn");
  expect(body).toContain(` ${RUNAWAY_CALLS} model calls in one turn.`);
  expect(body).toContain("docs/runbooks/ParleyCostAnomaly.md");
  expect(body).toContain(`ParleyCostAnomaly in ${NAMESPACE}`);
  // Both are one group: one message.
  const both = await arrival("/slack", "ParleyCostAnomaly", "default: a session shows call_loop");
  expect(both.body).toContain(`Session: ${sessionId}.`);
  expect(arrived("/pagerduty", "ParleyCostAnomaly")).toEqual([]);
});

describe("money that is made to differ is drift at Slack", () => {
  const { prefix } = moneyKeys("default");
  /** Millionths of a dollar that nobody has spent. */
  const TOO_MUCH = 5_000_000;
  let client: Redis;
  let month: string;
  beforeAll(async () => {
    client = new Redis(redis.url);
    month = String(periodOf("month", Date.now()).startMs);
    await chat({ userId: "ann" });
    // Prometheus has seen the month as it is.
    await vi.waitFor(
      async () => {
        expect(await monitoring.query("count_over_time(parley_ledger_cost_usd[1m]) > 2")).toHaveLength(1);
        expect(await monitoring.query("sum(parley_cost_usd_total) > 0")).toHaveLength(1);
      },
      { timeout: ARRIVES_MS, interval: 250 },
    );
  });
  afterAll(() => void client.disconnect());

  /** Changes the cost of the month's sum of all rollups. */
  const addToRollup = async (microUsd: number): Promise<void> => {
    const key = `${prefix}rollup:month:${month}`;
    const sums = (await client.hget(key, "all"))?.split(" ") ?? [];
    expect(sums).toHaveLength(8);
    await client.hset(key, "all", sums.with(6, String(Number(sums[6]) + microUsd)).join(" "));
  };
  const addToSpendCounter = (microUsd: number) =>
    client.hincrby(`${prefix}use:month:${month}:tenant:default`, "spent_cost", microUsd);

  test("a rollup that says more than the spend counter, until it is mended", async () => {
    await addToRollup(TOO_MUCH);
    try {
      const { body } = await arrival("/slack", "ParleyCostDrift", "This month's rollups are off by");
      expect(body).toContain("default: the ledger and what is derived from it differ");
      expect(body).toContain("docs/runbooks/ParleyCostDrift.md");
    } finally {
      await addToRollup(-TOO_MUCH);
    }
    await arrival("/slack", "ParleyCostDrift", "[RESOLVED]");
    expect(arrived("/pagerduty", "ParleyCostDrift")).toEqual([]);
  });

  test("rollups and spend counters that rise without the sidecars' counters", async () => {
    await addToRollup(TOO_MUCH);
    await addToSpendCounter(TOO_MUCH);
    try {
      await arrival("/slack", "ParleyCostDrift", "The sidecars' counters of the last six hours are off by");
    } finally {
      await addToSpendCounter(-TOO_MUCH);
      await addToRollup(-TOO_MUCH);
    }
  });
});

test("a Redis that stands still pages as a lost session store, and is resolved when it goes on", async () => {
  redis.pause(true);
  try {
    const page = await arrival("/pagerduty", "ParleySessionStoreDown", '"event_action":"trigger"');
    expect(JSON.parse(page.body)).toMatchObject({ payload: { severity: "critical" } });
    expect(page.body).toContain("docs/runbooks/ParleySessionStoreDown.md");
  } finally {
    redis.pause(false);
  }
  await arrival("/pagerduty", "ParleySessionStoreDown", '"event_action":"resolve"');
  expect(arrived("/slack", "ParleySessionStoreDown")).toEqual([]);
});

test("a sidecar that is killed pages with the key of its file, and is resolved when it is back", async () => {
  await sidecar.kill();
  const page = await arrival("/pagerduty", "ParleySidecarDown", '"event_action":"trigger"');
  expect(JSON.parse(page.body)).toMatchObject({ routing_key: SECRETS.pagerDutyKey, payload: { severity: "critical" } });
  expect(page.body).toContain("docs/runbooks/ParleySidecarDown.md");
  expect(arrived("/slack", "ParleySidecarDown")).toEqual([]);
  sidecar = await startServiceProcess({ entry: "sidecar/main.ts", env: sidecarEnv });
  await arrival("/pagerduty", "ParleySidecarDown", '"event_action":"resolve"');
});

/** A turn of a new session. */
async function chat(request: { userId: string; agentTeam?: string }): Promise<{ readonly sessionId: string }> {
  const answer = await fetch(`${service.url}/parley.chat.v1.ChatService/Chat`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ message: "hello", ...request }),
  });
  expect(answer.status).toBe(200);
  return (await answer.json()) as { sessionId: string };
}

function arrived(path: string, alert: string, words = "") {
  return monitoring.received.filter((one) => one.path === path && one.body.includes(alert) && one.body.includes(words));
}

async function arrival(path: string, alert: string, words = "") {
  const found = await vi.waitFor(
    () => {
      const [first] = arrived(path, alert, words);
      if (first === undefined) throw new Error(`${alert} has not come to ${path}`);
      return first;
    },
    { timeout: ARRIVES_MS, interval: 100 },
  );
  return found;
}

/** The rules with waits of a second. */
function impatient(rules: string): string {
  const { groups } = parse(rules) as { groups: { rules: { alert?: string; for?: string }[] }[] };
  const hasten = (rule: { alert?: string; for?: string }) => (rule.alert === undefined ? rule : { ...rule, for: "1s" });
  return stringify({ groups: groups.map((group) => ({ ...group, rules: group.rules.map(hasten) })) }, { lineWidth: 0 });
}
