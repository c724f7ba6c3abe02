import { execFile } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { parse } from "yaml";
import { parseGateFile } from "../../gate/conditions.ts";
import { gateAlerts } from "../../gate/render.ts";
import { alertRules } from "../../sidecar/alert-rules.ts";
import { loadAlertSettings } from "../../sidecar/alert-settings.ts";
import { receiverOf, renderAlertmanagerConfig } from "../../sidecar/alertmanager-config.ts";

const gate = parseGateFile(await readFile(join(import.meta.dirname, "../../gate/gate.yaml"), "utf8"));
const alerts = [...alertRules(loadAlertSettings({})), ...gateAlerts(gate)];
const docs = await readFile(join(import.meta.dirname, "../../docs/alerts.md"), "utf8");

/** Rows of the documentation. */
const rows = docs
  .split("\n")
  .filter((line) => line.startsWith("| `"))
  .map((line) => line.split(" | "))
  .map(([alert = "", severity = "", receiver = "", wait = "", labels = "", ...summary]) => ({
    alert: alert.replaceAll(/[|` ]/g, ""),
    severity,
    receiver,
    for: wait,
    labels: Object.fromEntries([...labels.matchAll(/(\w+)="([^"]*)"/g)].map(([, name, value]) => [name, value])),
    summary: summary.join(" | ").replace(/ \|$/, ""),
  }));

let folder: string;
let file: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "parley-alertmanager-"));
  file = join(folder, "alertmanager.yml");
  await writeFile(file, renderAlertmanagerConfig());
});
afterAll(() => rm(folder, { recursive: true, force: true }));

const amtool = (...args: string[]) => promisify(execFile)("amtool", args);

test("amtool accepts the configuration", async () => {
  const { stdout } = await amtool("check-config", file);
  expect(stdout).toContain("SUCCESS");
  expect(stdout).toContain("3 receivers");
  expect(stdout).toContain("3 inhibit rules");
});

test("the docs have a row for each alert, and no row for any other", () => {
  expect(rows).toEqual(
    alerts.map((rule) => ({
      alert: rule.alert,
      severity: rule.severity,
      receiver: receiverOf(rule),
      for: rule.for,
      labels: rule.labels,
      summary: asText(rule.summary),
    })),
  );
});

describe("by amtool, an alert of the docs reaches", () => {
  test.each(rows)("$receiver: $alert $severity $labels", async ({ alert, severity, receiver, labels }) => {
    const all = { alertname: alert, severity, service: "parley", namespace: "p", ...labels };
    const args = Object.entries(all).map(([name, value]) => `${name}=${value}`);
    const test = ["config", "routes", "test", `--config.file=${file}`];
    await expect(amtool(...test, `--verify.receivers=${receiver}`, ...args)).resolves.toMatchObject({
      stdout: `${receiver}\n`,
    });
    const other = receiver === "slack" ? "pagerduty" : "slack";
    await expect(amtool(...test, `--verify.receivers=${other}`, ...args)).rejects.toMatchObject({ code: 1 });
  });

  test("Slack when nobody foresaw it", async () => {
    const { stdout } = await amtool("config", "routes", "test", `--config.file=${file}`, "alertname=Another");
    expect(stdout).toBe("slack\n");
  });
});

test("no secret is in the configuration, only the names of files", () => {
  const config = renderAlertmanagerConfig({ secretsFolder: "/secrets" });
  expect(config.match(/\/secrets\/[\w-]+/g)).toEqual([
    "/secrets/pagerduty-routing-key",
    "/secrets/slack-url",
    "/secrets/dead-mans-switch-token",
  ]);
  expect(config).not.toMatch(/^\s*(?:routing_key|service_key|api_url|credentials|bearer_token|password):/m);
});

describe("inhibition", () => {
  const { inhibit_rules: rules } = parse(renderAlertmanagerConfig()) as {
    inhibit_rules: { source_matchers: string[]; target_matchers: string[]; equal: string[] }[];
  };
  type Labels = Readonly<Record<string, string>>;
  /** As Alertmanager does it: labels that both miss are equal, and an alert does not inhibit itself. */
  const hushes = (source: Labels, target: Labels): boolean =>
    rules.some(
      ({ source_matchers, target_matchers, equal }) =>
        source_matchers.every((matcher) => matches(matcher, source)) &&
        target_matchers.every((matcher) => matches(matcher, target)) &&
        equal.every((name) => (source[name] ?? "") === (target[name] ?? "")),
    );
  const labelsOf = (alert: string, severity: string, more: Labels = {}): Labels => {
    const rule = alerts.find((row) => row.alert === alert && row.severity === severity);
    if (rule === undefined) throw new Error(`there is no ${alert}`);
    return { alertname: alert, severity, service: "parley", namespace: "p", ...rule.labels, ...more };
  };

  test("every alert has slo or kind, so that no two are equal for want of a label", () => {
    for (const { labels } of alerts)
      expect(Object.keys(labels).filter((name) => /^(slo|kind)$/.test(name))).toHaveLength(1);
  });

  test.each([
    [
      "a page",
      ["ParleyRequestErrorBudgetBurn", "critical"],
      "its own ticket",
      ["ParleyRequestErrorBudgetBurn", "warning"],
    ],
    [
      "a lost store",
      ["ParleySessionStoreDown", "critical"],
      "a target's page",
      ["ParleyTurnErrorBudgetBurn", "critical"],
    ],
    ["lost replicas", ["ParleyServiceDown", "critical"], "a target's page", ["ParleyFirstTokenBudgetBurn", "warning"]],
    ["a lost sidecar", ["ParleySidecarDown", "critical"], "the ledger's lag", ["ParleyLedgerLag", "warning"]],
  ] as const)("%s hushes %3$s", (_, [source, severity], __, [target, other]) => {
    expect(hushes(labelsOf(source, severity), labelsOf(target, other))).toBe(true);
    expect(hushes(labelsOf(source, severity, { namespace: "q" }), labelsOf(target, other))).toBe(false);
  });

  test("all endpoints of a model hush one endpoint of it, and none of another model", () => {
    const source = labelsOf("ParleyModelUnavailable", "critical", { model: "m" });
    expect(hushes(source, labelsOf("ParleyBreakerOpen", "warning", { model: "m", endpoint: "e" }))).toBe(true);
    expect(hushes(source, labelsOf("ParleyBreakerOpen", "warning", { model: "n", endpoint: "e" }))).toBe(false);
  });

  test("one target's page hushes no other target, no budget and no price", () => {
    const source = labelsOf("ParleyRequestErrorBudgetBurn", "critical");
    const others = alerts.filter(
      ({ alert, severity }) => alert !== "ParleyRequestErrorBudgetBurn" && severity !== "none",
    );
    expect(others.filter(({ alert, severity }) => hushes(source, labelsOf(alert, severity)))).toEqual([]);
  });

  test("a lost sidecar's page hushes what is of the ledger, and no budget, price or breaker", () => {
    const source = labelsOf("ParleySidecarDown", "critical");
    const hushed = alerts.filter(({ alert, severity }) => hushes(source, labelsOf(alert, severity)));
    expect([...new Set(hushed.map(({ alert }) => alert))]).toEqual(["ParleyLedgerLag", "ParleyCostDrift"]);
  });

  test("nothing hushes the watchdog", () => {
    const watchdog = labelsOf("ParleyWatchdog", "none");
    expect(alerts.filter(({ alert, severity }) => hushes(labelsOf(alert, severity), watchdog))).toEqual([]);
  });
});

/** Whether labels match a matcher such as `a="b"` or `a=~"b|c"`. */
function matches(matcher: string, labels: Readonly<Record<string, string>>): boolean {
  const [, name = "", operator, value = ""] = /^(\w+)(=~?)"(.*)"$/.exec(matcher) ?? [];
  const has = labels[name] ?? "";
  return operator === "=~" ? new RegExp(`^(?:${value})$`).test(has) : has === value;
}

/** A summary as a page shows it: labels by their names, what only some alerts have left out. */
function asText(template: string): string {
  return template.replaceAll(/{{ (?:with|if) .*?{{ end }}/g, "").replaceAll(/{{ \$labels\.(\w+) }}/g, "*$1*");
}
