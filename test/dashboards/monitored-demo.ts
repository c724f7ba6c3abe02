import { setTimeout as sleep } from "node:timers/promises";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-node";
import { SessionService } from "../../gen/parley/chat/v1/session_service_pb.js";
import { UsageDimension, UsageService } from "../../gen/parley/usage/v1/usage_service_pb.js";
import { renderAlertRules } from "../../sidecar/alert-rules.ts";
import { loadAlertSettings } from "../../sidecar/alert-settings.ts";
import { businessDashboard } from "../../sidecar/dashboards/business-dashboard.ts";
import { renderDashboard } from "../../sidecar/dashboards/grafana-dashboard.ts";
import { operationsDashboard } from "../../sidecar/dashboards/operations-dashboard.ts";
import { type CostsDemo, startCostsDemo } from "../../standalone/costs-demo.ts";
import { startMonitoring } from "../alerts/monitoring-stack.ts";
import type { ReadPanel } from "./dashboard-page.ts";
import { type GrafanaDashboard, hasData, panelsOf, readPanel } from "./grafana-panels.ts";

/** A dashboard with what a Prometheus answered to each of its panels. */
export interface ReadDashboard {
  readonly dashboard: GrafanaDashboard;
  readonly panels: readonly ReadPanel[];
}

/** Panels that may show nothing, and why that is as it should be. */
const MAY_BE_EMPTY: Readonly<Record<string, string>> = {
  "Tool calls per second": "the demonstration has no server of tools",
  "Tool calls, p95": "the demonstration has no server of tools",
  "Breakers of tool servers": "the demonstration has no server of tools",
  "Turns per second that a check has ended": "the demonstration's teams have no checks",
};

/** Values of a line; about one for each third pixel. */
const MOST_VALUES = 150;

/**
 * Has the demonstration of costs work for so many seconds, and somebody ask what it costs, with a real Prometheus on the
 * alert rules looking on; then reads every panel of both dashboards as their JSON asks for it. Beside the demonstration's
 * own traffic there is all that goes wrong: a model that is down, one without a price, a runaway agent, and clients that
 * ask for what there is not.
 */
export async function readDashboards({
  seconds,
  withDayBefore,
}: {
  seconds: number;
  withDayBefore: boolean;
}): Promise<ReadDashboard[]> {
  const settings = loadAlertSettings({});
  const demo = await startCostsDemo({
    env: { PORT: "0", OPS_PORT: "0", USAGE_PORT: "0", USAGE_OPS_PORT: "0", LOG_LEVEL: "silent" },
    agents: {
      patient: { model: "sim-500" },
      houseman: { model: "house-made-7b" },
      repeater: { model: "gpt-4o-mini" },
      slowcoach: { model: "sim-slow" },
    },
    teams: {
      slow: { kind: "single", agent: "slowcoach", history_messages: 1 },
      outage: { kind: "single", agent: "patient" },
      house: { kind: "single", agent: "houseman" },
      runaway: {
        kind: "round_robin",
        agents: ["repeater"],
        max_rounds: 35,
        max_consecutive_auto_reply: 40,
        history_messages: 1,
      },
    },
  });
  try {
    if (withDayBefore) await demo.dayBefore();
    const targets = demo.opsUrls.map((url) => new URL(url).host);
    const beganMs = Math.floor(Date.now() / 1_000) * 1_000;
    const monitoring = await startMonitoring({ rules: renderAlertRules(settings), targets });
    try {
      // Since before the first scrape every counter is new, and counts with all it has; with a day before, that has the day in it.
      const startMs = withDayBefore ? Math.ceil(Date.now() / 1_000) * 1_000 : beganMs;
      const over = new AbortController();
      await Promise.all([
        demo.lastHour(seconds).finally(() => over.abort()),
        lookOn(demo, over.signal),
        goWrong(demo, seconds),
      ]);
      // The last of it is in the rollups, and scraped.
      await sleep(3_000);
      const endMs = Math.floor(Date.now() / 1_000) * 1_000;
      const stepMs = Math.ceil((endMs - startMs) / 1_000 / MOST_VALUES) * 1_000;
      const shown = { startMs, endMs, stepMs };
      return await Promise.all(
        [operationsDashboard(settings), businessDashboard()].map(async (code) => {
          const dashboard = JSON.parse(renderDashboard(code)) as GrafanaDashboard;
          const panels = panelsOf(dashboard).map(async ({ row, panel }) => {
            const series = await readPanel(monitoring.prometheusUrl, panel, shown);
            return { row, panel, series, whyEmpty: MAY_BE_EMPTY[panel.title] };
          });
          return { dashboard, panels: await Promise.all(panels) };
        }),
      );
    } finally {
      await monitoring.stop();
    }
  } finally {
    await demo.close();
  }
}

/** What is wrong with what panels show: each is to show something, or to be known for not doing so. */
export function troublesOf({ panels }: ReadDashboard): string[] {
  return panels.flatMap(({ row, panel, series, whyEmpty }) => {
    const where = `${row}: ${panel.title}`;
    if (!hasData(series)) return whyEmpty === undefined ? [`${where} shows nothing`] : [];
    const names = series.map(({ name }) => name);
    const isNamed = panel.type === "timeseries" || panel.type === "bargauge";
    return [
      ...(whyEmpty === undefined ? [] : [`${where} shows something, although ${whyEmpty}`]),
      ...(isNamed && names.includes("") ? [`${where} has a legend that says nothing`] : []),
      ...(isNamed && new Set(names).size < names.length ? [`${where} has two legends that say the same`] : []),
      ...(panel.type === "stat" && series.length !== 1 ? [`${where} shows ${series.length} figures`] : []),
    ];
  });
}

/** Somebody has the Costs page and the console open. */
async function lookOn({ url, usageUrl }: CostsDemo, signal: AbortSignal): Promise<void> {
  const usage = createClient(UsageService, createConnectTransport({ baseUrl: usageUrl, httpVersion: "1.1" }));
  const sessions = createClient(SessionService, createConnectTransport({ baseUrl: url, httpVersion: "1.1" }));
  while (!signal.aborted) {
    const endTime = timestampFromMs(Math.ceil(Date.now() / HOUR_MS) * HOUR_MS);
    const startTime = timestampFromMs(Math.floor(Date.now() / HOUR_MS) * HOUR_MS - 23 * HOUR_MS);
    await usage.queryUsage({ startTime, endTime, groupBy: [UsageDimension.TEAM] });
    await usage.listBudgets({});
    await sessions.listSessions({ userId: "ada" });
    await sleep(500);
  }
}

const HOUR_MS = 3_600_000;

/** Bounded: a dozen rounds, spread over the time. */
async function goWrong(demo: CostsDemo, seconds: number): Promise<void> {
  const run = (agentTeam: string, userId: string, message = "again"): Promise<void> =>
    demo.run({ team: "research", isCanary: false, userId, goesOn: false, agentTeam, useCase: "paper", message });
  for (let round = 0; round < ROUNDS; round += 1) {
    const slow = run("slow", "sloth");
    await run("house", "irene");
    if (round === 3) await run("runaway", "pierre");
    await expectCode(run("helpdesk", "frederic", ""), Code.InvalidArgument);
    // In the middle, so that the breaker is seen to open; each by another user: no price is known, and much is held.
    for (let patient = 0; patient < (round === ROUNDS / 2 ? 16 : 0); patient += 1) {
      await expectCode(run("outage", `eve-${patient}`), Code.Aborted);
    }
    await Promise.all([slow, sleep((seconds * 1_000) / (ROUNDS + 1))]);
  }
}

const ROUNDS = 12;

async function expectCode(failing: Promise<void>, code: Code): Promise<void> {
  const error = await failing.then(
    () => undefined,
    (thrown: unknown) => ConnectError.from(thrown),
  );
  if (error?.code !== code) throw new Error(`a turn was to end with ${Code[code]}`, { cause: error });
}
