import { execFile } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { stringify } from "yaml";
import { type AlertRule, alertRules, recordingRules, renderRules } from "../../sidecar/alert-rules.ts";
import { loadAlertSettings } from "../../sidecar/alert-settings.ts";
import { ALERT_CASES, type AlertCase, type ExpectedAlert, NEVER_SILENT } from "./alert-cases.ts";

const settings = loadAlertSettings({});
const alerts = alertRules(settings);
const recordings = recordingRules(settings);

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "parley-rules-"));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

test("promtool accepts the rules as they are rendered", async () => {
  const file = join(folder, "rules.yml");
  await writeFile(file, renderRules({ alerts, recordings, runbookUrl: settings.runbookUrl }));
  const { stdout } = await promtool("check", "rules", "--lint=all", "--lint-fatal", file);
  expect(stdout).toContain(`SUCCESS: ${alerts.length + recordings.length} rules found`);
});

describe("by promtool's unit tests", () => {
  test.each(ALERT_CASES.map((one, id) => ({ ...one, id, does: one.fires.length > 0 ? "fires" : "is silent" })))(
    "$alert $does when $when",
    async (one) => {
      const file = join(folder, `${one.alert}-${one.id}.yml`);
      await writeFile(`${file}.rules`, rulesFor(one));
      await writeFile(file, stringify(unitTest(one, `${file}.rules`), { lineWidth: 0 }));
      const result = await promtool("test", "rules", file);
      expect(result).toEqual({ code: 0, stdout: expect.stringContaining("SUCCESS"), stderr: "" });
    },
  );
});

test("a share of bad events is 0, and no hole, where nothing is bad", async () => {
  const file = join(folder, "no-failures.yml");
  await writeFile(`${file}.rules`, renderRules({ alerts: [], recordings, runbookUrl: "" }));
  const expr = 'parley:slo_errors:ratio_rate5m{slo="request-errors"}';
  const labels = 'parley:slo_errors:ratio_rate5m{namespace="p",slo="request-errors"}';
  const test = {
    interval: "1m",
    input_series: [{ series: 'parley_requests_total{namespace="p",rpc="Chat",code="ok"}', values: "0+9x20" }],
    promql_expr_test: [{ expr, eval_time: "15m", exp_samples: [{ labels, value: 0 }] }],
  };
  const all = { rule_files: [`${file}.rules`], evaluation_interval: "1m", tests: [test] };
  await writeFile(file, stringify(all, { lineWidth: 0 }));
  expect(await promtool("test", "rules", file)).toMatchObject({ code: 0 });
});

describe("each rule has a case in which it fires and one in which it is silent", () => {
  test.each(alerts.map((rule) => ({ ...rule, own: JSON.stringify(rule.labels) })))("$alert $severity $own", (rule) => {
    const cases = ALERT_CASES.filter(({ alert }) => alert === rule.alert);
    const fires = cases.filter((one) => one.fires.some((expected) => ruleOf(one, expected).expr === rule.expr));
    expect(fires.length).toBeGreaterThan(0);
    expect(fires.length < cases.length).toBe(!NEVER_SILENT.has(rule.alert));
  });
});

/** The rules of one name, and what they read: the others would take their time to be silent. */
function rulesFor({ alert }: AlertCase): string {
  const rules = alerts.filter((rule) => rule.alert === alert);
  const read = recordings.filter(({ labels }) => rules.some((rule) => rule.labels.slo === labels.slo));
  return renderRules({ alerts: rules, recordings: read, runbookUrl: settings.runbookUrl });
}

/** The row that an expected alert is of. */
function ruleOf({ alert }: AlertCase, { severity, of = {} }: ExpectedAlert): AlertRule {
  const [rule, ...others] = alerts.filter(
    (row) =>
      row.alert === alert &&
      row.severity === severity &&
      Object.entries(of).every(([name, value]) =>
        Object.entries(row.labels).some(([n, v]) => n === name && v === value),
      ),
  );
  if (rule === undefined || others.length > 0) throw new Error(`${alert} ${severity}: not one rule`);
  return rule;
}

function unitTest(one: AlertCase, ruleFile: string) {
  return {
    rule_files: [ruleFile],
    // Else promtool takes the groups in any order, and alerts may see the recordings of a minute ago.
    group_eval_order: ["parley-recordings", "parley-alerts"],
    evaluation_interval: "1m",
    tests: [
      {
        interval: "1m",
        input_series: Object.entries(one.series).map(([series, values]) => ({ series, values })),
        alert_rule_test: [
          {
            alertname: one.alert,
            eval_time: `${one.atMinute}m`,
            exp_alerts: one.fires.map((expected) => ({
              exp_labels: {
                severity: expected.severity,
                service: "parley",
                ...ruleOf(one, expected).labels,
                ...expected.labels,
              },
              exp_annotations: {
                summary: expected.summary,
                description: expected.description,
                runbook_url: `${settings.runbookUrl}/${one.alert}.md`,
              },
            })),
          },
        ],
      },
    ],
  };
}

async function promtool(...args: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  return promisify(execFile)("promtool", args).then(
    ({ stdout, stderr }) => ({ code: 0, stdout, stderr }),
    ({ code, stdout, stderr }: { code: number; stdout: string; stderr: string }) => ({ code, stdout, stderr }),
  );
}
