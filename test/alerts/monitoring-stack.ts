import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { stringify } from "yaml";
import { renderAlertmanagerConfig } from "../../sidecar/alertmanager-config.ts";
import { freePorts } from "../support/redis-server.ts";

/** Prometheus and Alertmanager must be ready this long after their start at the latest, in milliseconds. */
const START_DEADLINE_MS = 30_000;

/** What a receiver was sent. */
export interface Notification {
  /** `/pagerduty`, `/slack` or `/dead-mans-switch`. */
  readonly path: string;
  readonly authorization: string;
  readonly body: string;
}

/** A real Prometheus, a real Alertmanager and a server that stands for PagerDuty, Slack and the dead man's switch. */
export interface MonitoringStack {
  readonly prometheusUrl: string;
  readonly received: readonly Notification[];
  /** What Prometheus answers to a query now. Rejects when it does not understand it. */
  query(
    expr: string,
  ): Promise<readonly { readonly metric: Readonly<Record<string, string>>; readonly value: number }[]>;
  /** Every rule with what became of its last evaluation. */
  rules(): Promise<readonly { readonly name: string; readonly health: string; readonly lastError?: string }[]>;
  stop(): Promise<void>;
}

/** Keys and the URL that stand in files; the last part of a URL is the receiver. */
export const SECRETS = { pagerDutyKey: "pd-key-of-the-test", switchToken: "switch-token-of-the-test" };

/** The label `namespace` of all that is scraped. */
export const NAMESPACE = "test";

/**
 * Starts them on rules and on targets (`host:port`), scraping and evaluating each second.
 *
 * @param alertmanagerPort Where Alertmanager listens, for whoever has to know it before. Default: a free port.
 */
export async function startMonitoring({
  rules,
  targets,
  alertmanagerPort: wantedPort,
}: {
  readonly rules: string;
  readonly targets: readonly string[];
  readonly alertmanagerPort?: number;
}): Promise<MonitoringStack> {
  const folder = await mkdtemp(join(tmpdir(), "parley-monitoring-"));
  const received: Notification[] = [];
  const receiver = createServer((request, response) => {
    let body = "";
    request.setEncoding("utf8").on("data", (chunk: string) => {
      body += chunk;
    });
    request.on("end", () => {
      received.push({ path: request.url ?? "", authorization: request.headers.authorization ?? "", body });
      response.writeHead(request.url === "/pagerduty" ? 202 : 200).end("ok");
    });
  });
  receiver.listen(0, "127.0.0.1");
  await once(receiver, "listening");
  const receiverUrl = `http://127.0.0.1:${(receiver.address() as AddressInfo).port}`;
  const [prometheusPort, freePort] = await freePorts(2);
  const alertmanagerUrl = `http://127.0.0.1:${wantedPort ?? freePort}`;
  const alertmanagerAddress = new URL(alertmanagerUrl).host;
  const write = (name: string, text: string) => writeFile(join(folder, name), text);
  await write("pagerduty-routing-key", SECRETS.pagerDutyKey);
  await write("slack-url", `${receiverUrl}/slack`);
  await write("dead-mans-switch-token", SECRETS.switchToken);
  await write("rules.yml", rules);
  await write(
    "alertmanager.yml",
    renderAlertmanagerConfig({
      secretsFolder: folder,
      pagerDutyUrl: `${receiverUrl}/pagerduty`,
      deadMansSwitchUrl: `${receiverUrl}/dead-mans-switch`,
      waits: { first: "1s", next: "1s", repeat: "1h" },
    }),
  );
  await write(
    "prometheus.yml",
    stringify({
      global: { scrape_interval: "1s", evaluation_interval: "1s" },
      rule_files: [join(folder, "rules.yml")],
      alerting: { alertmanagers: [{ static_configs: [{ targets: [alertmanagerAddress] }] }] },
      scrape_configs: [{ job_name: "parley", static_configs: [{ targets, labels: { namespace: NAMESPACE } }] }],
    }),
  );
  const started: Awaited<ReturnType<typeof start>>[] = [];
  const stop = async (): Promise<void> => {
    await Promise.all(started.map((one) => one.stop()));
    receiver.closeAllConnections();
    await new Promise((resolve) => receiver.close(resolve));
    await rm(folder, { recursive: true, force: true });
  };
  try {
    started.push(
      await start("prometheus-alertmanager", `${alertmanagerUrl}/-/ready`, [
        `--config.file=${join(folder, "alertmanager.yml")}`,
        `--storage.path=${join(folder, "alertmanager")}`,
        `--web.listen-address=${alertmanagerAddress}`,
        "--cluster.listen-address=",
      ]),
    );
    const prometheusUrl = `http://127.0.0.1:${prometheusPort}`;
    started.push(
      await start("prometheus", `${prometheusUrl}/-/ready`, [
        `--config.file=${join(folder, "prometheus.yml")}`,
        `--storage.tsdb.path=${join(folder, "prometheus")}`,
        `--web.listen-address=127.0.0.1:${prometheusPort}`,
        // What fires before it has found Alertmanager is sent to nobody, and else again after a minute only.
        "--rules.alert.resend-delay=1s",
        "--log.level=warn",
      ]),
    );
    return {
      prometheusUrl,
      received,
      async query(expr) {
        const { result } = (await ask(`${prometheusUrl}/api/v1/query?query=${encodeURIComponent(expr)}`)) as {
          result: { metric: Record<string, string>; value: [number, string] }[];
        };
        return result.map(({ metric, value: [, text] }) => ({ metric, value: Number(text) }));
      },
      async rules() {
        const { groups } = (await ask(`${prometheusUrl}/api/v1/rules`)) as {
          groups: { rules: { name: string; health: string; lastError?: string }[] }[];
        };
        return groups.flatMap((group) => group.rules);
      },
      stop,
    };
  } catch (error) {
    await stop();
    throw error;
  }
}

/** What Prometheus' API answers. Rejects with its words when that is no success. */
async function ask(url: string): Promise<unknown> {
  const answer = (await (await fetch(url)).json()) as { status: string; data?: unknown; error?: string };
  if (answer.status !== "success") throw new Error(answer.error ?? "no success");
  return answer.data;
}

/** Starts a program and waits until a page says that it is ready. */
async function start(command: string, readyUrl: string, args: readonly string[]): Promise<{ stop(): Promise<void> }> {
  const child = spawn(command, args, { stdio: ["ignore", "ignore", "pipe"] });
  const onExit = (): void => void child.kill("SIGKILL");
  process.once("exit", onExit);
  let said = "";
  child.stderr.setEncoding("utf8").on("data", (chunk: string) => {
    said += chunk;
  });
  const ended = new Promise<void>((resolve) => {
    child.once("error", () => resolve());
    child.once("exit", () => resolve());
  }).finally(() => process.off("exit", onExit));
  let isOver = false;
  void ended.then(() => {
    isOver = true;
  });
  const deadlineMs = performance.now() + START_DEADLINE_MS;
  const isReady = () =>
    fetch(readyUrl)
      .then(({ ok }) => ok)
      .catch(() => false);
  while (!(await isReady())) {
    if (isOver || performance.now() > deadlineMs) {
      child.kill("SIGKILL");
      throw new Error(`${command} is not ready: ${said}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return {
    async stop() {
      child.kill("SIGKILL");
      await ended;
    },
  };
}
