import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { parse, stringify } from "yaml";
import { loadAlertSettings } from "../../sidecar/alert-settings.ts";
import { businessDashboard } from "../../sidecar/dashboards/business-dashboard.ts";
import { operationsDashboard } from "../../sidecar/dashboards/operations-dashboard.ts";
import { type SimulatedModel, startSimulatedModel } from "../../src/providers/simulated-model.ts";
import { freePorts, type RedisServer, startRedisServer } from "../support/redis-server.ts";
import { type ServiceProcess, startServiceProcess } from "../support/service-process.ts";
import { type MonitoringStack, SECRETS, startMonitoring } from "./monitoring-stack.ts";

// Production entries, a real Prometheus and a real Alertmanager on the rules that the sidecar serves, their waits made short.

/** A model that no price list knows. */
const UNPRICED_MODEL = "house-made-7b";

/** An alert goes through a scrape, an evaluation, its wait and Alertmanager's, each a second; on a slow machine longer. */
const ARRIVES_MS = 60_000;

let redis: RedisServer;
let model: SimulatedModel;
let service: ServiceProcess;
let sidecar: ServiceProcess;
let monitoring: MonitoringStack;
let sidecarEnv: Record<string, string>;

beforeAll(async () => {
  redis = await startRedisServer();
  model = await startSimulatedModel();
  const env = { REDIS_URL: redis.url, MODEL: UNPRICED_MODEL, OPENAI_BASE_URL: model.baseUrl, OPENAI_API_KEY: "none" };
  const [opsPort] = await freePorts(1);
  sidecarEnv = { ...env, USAGE_OPS_PORT: String(opsPort) };
  [service, sidecar] = await Promise.all([
    startServiceProcess({ env }),
    startServiceProcess({ entry: "sidecar/main.ts", env: sidecarEnv }),
  ]);
  monitoring = await startMonitoring({
    rules: impatient(await (await fetch(`${sidecar.opsUrl}/rules`)).text()),
    targets: [service.opsUrl, sidecar.opsUrl].map((url) => new URL(url).host),
  });
});

afterAll(async () => {
  await monitoring?.stop();
  await Promise.all([service?.stop(), sidecar?.stop()]);
  await model?.close();
  await redis?.stop();
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
  const answer = await fetch(`${service.url}/parley.chat.v1.ChatService/Chat`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ message: "hello", userId: "ann" }),
  });
  expect(answer.status).toBe(200);
  const { body } = await arrival("/slack", "ParleyUnpricedTokens");
  expect(body).toContain(`${UNPRICED_MODEL} has no price`);
  expect(body).toContain("docs/runbooks/ParleyUnpricedTokens.md");
  expect(arrived("/pagerduty", "ParleyUnpricedTokens")).toEqual([]);
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
