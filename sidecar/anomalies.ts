import type { Logger } from "../src/platform/logger-port.ts";
import { alertLabels, COST_ANOMALY, runbookOf } from "./alert-rules.ts";
import type { AlertSettings } from "./alert-settings.ts";
import { isAnomaly, type Suspicion } from "./anomaly-rules.ts";
import type { CostMetrics } from "./cost-metrics.ts";
import type { Anomaly, Rollups } from "./rollups.ts";

/** Tells of anomalies. */
export interface AnomalyWatch {
  /** Holds an account's suspicions against their subjects' histories, in the background. */
  look(tenant: string): void;
  /** Waits for what is under way. */
  stop(): Promise<void>;
}

/**
 * Open anomalies are posted so often, in milliseconds: Alertmanager takes an alert that it does not hear of for resolved
 * (its resolve_timeout, five minutes by default), and a post that failed is made up for.
 */
const POST_MS = 60_000;

/** An alert ends by itself this long after its last post, in milliseconds. */
const ALERT_LIFE_MS = 3 * POST_MS;

/** An Alertmanager that has not answered after this long is given up until the next time, in milliseconds. */
const POST_TIMEOUT_MS = 5_000;

/**
 * Each anomaly is one count, one line of the log and, where there is an Alertmanager, one alert, by whichever sidecar came
 * first. Suspicions and open anomalies are in the store: any sidecar judges the former and posts the latter, so that none is lost
 * with the one that found it. All name the
 * session to look at, and nothing of what was said in it.
 */
export function startAnomalyWatch({
  rollups,
  metrics,
  logger,
  alertmanagerUrl,
  alerts,
  postMs = POST_MS,
}: {
  rollups: Pick<Rollups, "tenants" | "history" | "suspicions" | "judge" | "anomalies">;
  metrics: Pick<CostMetrics, "anomaly">;
  logger: Logger;
  /** Absent: nothing is posted. */
  alertmanagerUrl: string | undefined;
  alerts: Pick<AlertSettings, "namespace" | "runbookUrl">;
  postMs?: number;
}): AnomalyWatch {
  let working: Promise<unknown> = Promise.resolve();
  /** Accounts that are to be looked at, beside the one that is. */
  const due = new Set<string>();

  /** Whether it has found one, and posted all that are open. */
  const look = async (tenant: string): Promise<boolean> => {
    due.delete(tenant);
    let opened = false;
    for (const suspicion of await rollups.suspicions(tenant)) {
      const { kind, subject, sessionId, value } = suspicion;
      const isOne = isAnomaly(suspicion, await rollups.history(tenant, suspicion));
      if (!(await rollups.judge(tenant, suspicion, isOne))) continue;
      opened = true;
      metrics.anomaly(tenant, kind);
      const facts = { tenant, kind, scope: subject.scope, scope_id: subject.id, session_id: sessionId, value };
      logger.warn(facts, "cost anomaly");
    }
    if (opened) await post(tenant);
    return opened;
  };
  const post = async (tenant: string): Promise<void> => {
    if (alertmanagerUrl === undefined) return;
    try {
      const open = await rollups.anomalies(tenant);
      if (open.length > 0) await postAlerts(alertmanagerUrl, alertsOf(tenant, open, alerts));
    } catch (error) {
      logger.warn({ error }, "anomalies could not be posted");
    }
  };
  const lookAndPostAll = async (): Promise<void> => {
    for (const tenant of await rollups.tenants()) {
      if (!(await look(tenant))) await post(tenant);
    }
  };
  /** What fails is made up for the next time. */
  const then = (work: () => Promise<unknown>): void => {
    working = working
      .then(work)
      .catch((error: unknown) => logger.debug({ error }, "anomalies cannot be looked for now"));
  };

  const timer = setInterval(() => then(lookAndPostAll), postMs);
  then(lookAndPostAll);
  return {
    look(tenant) {
      if (due.has(tenant)) return;
      due.add(tenant);
      then(() => look(tenant));
    },
    async stop() {
      clearInterval(timer);
      await working;
    },
  };
}

/** Sentences of the kinds. */
const SUMMARIES: Readonly<Record<Suspicion["kind"], string>> = {
  token_burst: "spends far more tokens in five minutes than it ever did in the last six hours",
  prompt_growth: "sends larger and larger prompts that get hardly any reply",
  call_loop: "makes far more model calls in one turn than its turns usually do",
};

/** What a suspicion's value counts. */
const VALUES: Readonly<Record<Suspicion["kind"], string>> = {
  token_burst: "tokens in five minutes",
  prompt_growth: "tokens in the last prompt",
  call_loop: "model calls in one turn",
};

/** An alert as Alertmanager's API v2 takes it. */
interface PostedAlert {
  readonly labels: Readonly<Record<string, string>>;
  readonly annotations: Readonly<Record<string, string>>;
  readonly startsAt: string;
  readonly endsAt: string;
}

/** As the rule of the same name has them, so that Alertmanager groups, routes and hushes both alike; with the session besides. */
function alertsOf(
  tenant: string,
  anomalies: readonly Anomaly[],
  { namespace, runbookUrl }: Pick<AlertSettings, "namespace" | "runbookUrl">,
): PostedAlert[] {
  return anomalies.map(({ kind, subject, sessionId, value, openTimeMs }) => ({
    labels: {
      alertname: COST_ANOMALY.alert,
      ...alertLabels(COST_ANOMALY),
      ...(namespace === "" ? {} : { namespace }),
      anomaly: kind,
      tenant,
      scope: subject.scope,
      scope_id: subject.id,
    },
    annotations: {
      summary: `${subject.scope === "user" ? "User" : "Session"} ${subject.id} of tenant ${tenant} ${SUMMARIES[kind]}.`,
      description: `${value} ${VALUES[kind]}.`,
      runbook_url: runbookOf(COST_ANOMALY, runbookUrl),
      session_id: sessionId,
      value: String(value),
    },
    startsAt: new Date(openTimeMs).toISOString(),
    endsAt: new Date(Date.now() + ALERT_LIFE_MS).toISOString(),
  }));
}

/** Posts to Alertmanager's API v2 (`POST /api/v2/alerts`, its openapi.yaml). Rejects when that does not take them. */
async function postAlerts(url: string, alerts: readonly PostedAlert[]): Promise<void> {
  const answer = await fetch(new URL("api/v2/alerts", url.endsWith("/") ? url : `${url}/`), {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(alerts),
    signal: AbortSignal.timeout(POST_TIMEOUT_MS),
  });
  await answer.body?.cancel();
  if (!answer.ok) throw new Error(`Alertmanager answered ${answer.status}`);
}
