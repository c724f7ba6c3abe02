import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { parse } from "yaml";
import { renderAlertRules } from "../../sidecar/alert-rules.ts";
import { loadAlertSettings } from "../../sidecar/alert-settings.ts";
import { ConfigError } from "../../src/platform/environment.ts";
import { type RedisServer, startRedisServer } from "../support/redis-server.ts";
import { startServiceProcess } from "../support/service-process.ts";

let redis: RedisServer;
beforeAll(async () => {
  redis = await startRedisServer();
});
afterAll(() => redis?.stop());

/** The page of a sidecar's process that has some variables. */
async function rulesPage(variables: Record<string, string> = {}): Promise<{ type: string | null; text: string }> {
  const env = { REDIS_URL: redis.url, ...variables };
  const sidecar = await startServiceProcess({ entry: "sidecar/main.ts", env, awaitReady: false });
  try {
    const response = await fetch(`${sidecar.opsUrl}/rules`);
    expect(response.status).toBe(200);
    return { type: response.headers.get("content-type"), text: await response.text() };
  } finally {
    await sidecar.stop();
  }
}

test("the sidecar serves the rules as a file for Prometheus, the same that promtool tests", async () => {
  const { type, text } = await rulesPage();
  expect(type).toBe("application/yaml; charset=utf-8");
  expect(text).toBe(renderAlertRules(loadAlertSettings({})));
});

test("the rules have the targets, the bounds and the runbooks of the live configuration", async () => {
  const { text } = await rulesPage({
    SLO_REQUEST_SUCCESS_PERCENT: "99.5",
    SLO_FIRST_TOKEN_SECONDS: "1.5",
    ALERT_MIN_EVENTS: "7",
    ALERT_LEDGER_LAG_SECONDS: "60",
    ALERT_COST_DRIFT_PERCENT: "5",
    ALERT_RUNBOOK_URL: "https://runbooks.example.com/parley/",
  });
  const { groups } = parse(text) as {
    groups: { rules: { alert?: string; expr: string; annotations?: { runbook_url: string } }[] }[];
  };
  const rules = groups.flatMap((group) => group.rules);
  const exprOf = (name: string) => rules.filter(({ alert }) => alert === name).map(({ expr }) => expr);
  expect(exprOf("ParleyRequestErrorBudgetBurn")[0]).toContain("> 14.4 * 0.005");
  expect(exprOf("ParleyRequestErrorBudgetBurn")[0]).toContain(">= 7");
  expect(exprOf("ParleyLedgerLag")).toEqual(["max by (namespace) (parley_ledger_lag_seconds) > 60"]);
  expect(exprOf("ParleyCostDrift")[0]).toContain("> 0.05");
  expect(text).toContain('parley_time_to_first_token_seconds_bucket{le="1.5"}');
  const links = rules.flatMap(({ annotations }) => annotations?.runbook_url ?? []);
  expect(links).toContain("https://runbooks.example.com/parley/ParleyLedgerLag.md");
});

describe("what the variables must be", () => {
  test.each([
    ["SLO_REQUEST_SUCCESS_PERCENT", "100", "must be a number from 94 to 99.999"],
    // 14.4 times the budget would be more than all requests.
    ["SLO_TURN_SUCCESS_PERCENT", "93", "must be a number from 94 to 99.999"],
    ["SLO_REQUEST_LATENCY_SECONDS", "0.7", "must be one of 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5"],
    ["ALERT_COST_DRIFT_PERCENT", "two", "must be a number from 0.1 to 50"],
    ["ALERT_NAMESPACE", "n".repeat(254), "must be at most 253 characters"],
    ["ALERT_RUNBOOK_URL", "runbooks", "must be an http:// or https:// URL"],
  ])("%s=%s is refused", (name, value, rule) => {
    expect(() => loadAlertSettings({ [name]: value })).toThrow(ConfigError);
    expect(() => loadAlertSettings({ [name]: value })).toThrow(`${name}: ${rule}`);
  });

  test("an empty one counts as not set", () => {
    expect(loadAlertSettings({ ALERT_RUNBOOK_URL: "", ALERT_MIN_EVENTS: "" })).toEqual(loadAlertSettings({}));
  });
});
