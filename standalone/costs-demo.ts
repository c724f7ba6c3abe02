import { createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { ChatService } from "../gen/parley/chat/v1/chat_service_pb.js";
import { loadAlertSettings } from "../sidecar/alert-settings.ts";
import { configuredBudgets } from "../src/accounts/budget-lookup.ts";
import { createMemoryAccountStore } from "../src/accounts/memory-account-store.ts";
import { rowsOf } from "../src/accounts/usage-query.ts";
import { startApp } from "../src/app.ts";
import { loadConfig } from "../src/config.ts";
import { makeApiKey } from "../src/identity/api-keys.ts";
import { packageVersion, siteFolders } from "../src/package-facts.ts";
import { createLifecycle } from "../src/platform/lifecycle.ts";
import { createLogger } from "../src/platform/logger.ts";
import { startSimulatedModel } from "../src/providers/simulated-model.ts";
import { connectStores } from "../src/stores.ts";
import { createDemoClock, createDemoTraffic, type DemoTurn } from "./demo-traffic.ts";
import { startStandalone } from "./standalone-app.ts";

const TENANT = "default";

/** What the page shows before the hour: its last 24 are those that it opens with. */
const DAY_BEFORE_HOURS = 23;

/** Connections of whoever still looks get this long to end, in milliseconds. */
const APP_CLOSE_MS = 15_000;

const AGENTS = {
  researcher: { model: "gpt-4o", system_message: "You find out what is known." },
  writer: { model: "gpt-4.1", system_message: "You write it down." },
  critic: { model: "o3", system_message: "You say what is wrong with it." },
  helper: { model: "gpt-4o-mini", system_message: "You help." },
};

const TEAMS = {
  helpdesk: { kind: "single", agent: "helper", history_messages: 8 },
  newsroom: { kind: "round_robin", agents: ["researcher", "writer", "critic"], max_rounds: 3 },
  analysis: { kind: "single", agent: "critic", history_messages: 8 },
};

const BUDGETS = [
  { scope: "tenant", period: "month", limit_micro_usd: 5_000_000 },
  { scope: "team", id: "editorial", period: "day", limit_micro_usd: 2_000_000, limit_tokens: 400_000 },
  { scope: "team", id: "support", period: "day", limit_micro_usd: 3_000, dry_run: true },
  { scope: "user", id: "*", period: "day", limit_micro_usd: 2_000_000 },
];

/**
 * Three paying teams at work with four models and two releases of the service. Turns, calls, holds and rows are real; the
 * model is simulated, and the ledger's clock lies back a day and runs ahead until it has caught up with the wall's.
 */
export interface CostsDemo {
  /** Where the console is, which needs no key. */
  readonly url: string;
  readonly usageUrl: string;
  /** Ops ports of all replicas and of the sidecar: where metrics are. */
  readonly opsUrls: readonly string[];
  /** The 23 hours before, in passing: as fast as it goes. */
  dayBefore(): Promise<void>;
  /** The last hour, in so many seconds: a minute is an hour. */
  lastHour(seconds: number): Promise<void>;
  /** One more turn, of whichever team. Rejects as the RPC does. */
  run(turn: DemoTurn): Promise<void>;
  /** What came of it so far. */
  sum(): Promise<{ readonly turns: number; readonly calls: number; readonly costMicroUsd: bigint }>;
  close(): Promise<void>;
}

/** Starts it, with nothing spent. */
export async function startCostsDemo({
  env: given = {},
  agents = {},
  teams = {},
}: {
  /** Ports and the like, as `src/config.ts` knows them. */
  env?: Readonly<Record<string, string | undefined>>;
  /** Agents and agent teams beside the demonstration's own, as parley.yaml has them. */
  agents?: Readonly<Record<string, object>>;
  teams?: Readonly<Record<string, object>>;
}): Promise<CostsDemo> {
  const yaml = JSON.stringify({ agents: { ...AGENTS, ...agents }, teams: { ...TEAMS, ...teams }, budgets: BUDGETS });
  const lifecycle = createLifecycle();
  try {
    const simulated = await startSimulatedModel({ chunkDelayMs: 0 });
    lifecycle.onClose("simulated model", () => simulated.close());
    const env = {
      LOG_LEVEL: "error",
      ...given,
      OPENAI_BASE_URL: simulated.baseUrl,
      CONFIG_FILE: "parley.yaml",
      MAX_TOKENS: "32000",
      RATE_LIMIT: "1000000",
      REDIS_URL: "",
      AUTH_MODE: "none",
    };
    const load = (more: Readonly<Record<string, string>>) =>
      loadConfig({ ...env, ...more }, { readFile: () => yaml, packageVersion: packageVersion() });
    const config = load({});
    const logger = createLogger({ level: config.logLevel, version: config.version, track: config.track });
    lifecycle.onClose("logger", () => logger.flush());
    const clock = createDemoClock();
    clock.lieBack(DAY_BEFORE_HOURS);
    const accounts = createMemoryAccountStore({ budgets: configuredBudgets(config.budgets), now: () => clock.now() });
    const stores = { ...connectStores({ config, logger }), accounts };
    // Whoever looks needs no key; whoever pays has one.
    const standalone = await startStandalone({
      config,
      alerts: loadAlertSettings({}),
      logger,
      stores,
      simulatedModel: true,
    });
    lifecycle.onClose("standalone", () => standalone.close(), { deadlineMs: APP_CLOSE_MS });
    const paid = { PORT: "0", OPS_PORT: "0" };
    // Keys that are gone with the process serve a demonstration, and nothing else: the environment does not offer it.
    const auth = { mode: "api_key" } as const;
    const releases = await Promise.all(
      [{}, { VERSION: `${config.version}-canary`, TRACK: "canary" }].map(async (release) => {
        const app = await startApp({
          config: { ...load({ ...paid, ...release }), auth },
          logger,
          siteFolders,
          simulatedModel: true,
          stores,
        });
        lifecycle.onClose(`release ${app.url}`, () => app.close(), { deadlineMs: APP_CLOSE_MS });
        return app;
      }),
    );
    const clients = releases.map(({ url }) => createClient(ChatService, createGrpcTransport({ baseUrl: url })));
    const keys = new Map<string, string>();
    for (const team of ["editorial", "research", "support"]) {
      const claims = {
        tenant: TENANT,
        team,
        userId: "",
        useCases: [],
        roles: ["chat", "chat:on_behalf"],
        note: "demo",
      };
      keys.set(team, (await makeApiKey(stores.apiKeys, claims)).key);
    }
    const sessions = new Map<string, string>();
    let turns = 0;
    const run = async ({ team, isCanary, goesOn, ...request }: DemoTurn): Promise<void> => {
      const headers = { authorization: `Bearer ${keys.get(team)}` };
      const sessionId = goesOn ? (sessions.get(request.userId) ?? "") : "";
      const answer = await clients[isCanary ? 1 : 0]?.chat({ ...request, sessionId }, { headers });
      if (answer !== undefined) sessions.set(request.userId, answer.sessionId);
      turns += 1;
    };
    const traffic = createDemoTraffic();
    return {
      url: standalone.app.url,
      usageUrl: standalone.sidecar.url,
      opsUrls: [standalone.sidecar, standalone.app, ...releases].map(({ opsUrl }) => opsUrl),
      async dayBefore() {
        for (let hours = DAY_BEFORE_HOURS; hours >= 1; hours -= 1) {
          clock.lieBack(hours);
          for (const turn of traffic.ofHour(new Date(clock.now()).getUTCHours())) await run(turn);
        }
      },
      async lastHour(seconds) {
        clock.catchUp(seconds);
        for await (const turn of traffic.live(seconds)) await run(turn);
      },
      run,
      async sum() {
        let calls = 0;
        let costMicroUsd = 0n;
        for await (const row of rowsOf(accounts, { tenant: TENANT, startMs: 0, endMs: Number.MAX_SAFE_INTEGER })) {
          calls += 1;
          costMicroUsd += row.costMicroUsd;
        }
        return { turns, calls, costMicroUsd };
      },
      close: () => lifecycle.close(),
    };
  } catch (error) {
    await lifecycle.close().catch(() => undefined);
    throw error;
  }
}
