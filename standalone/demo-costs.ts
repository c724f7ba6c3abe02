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
import { consoleFolder, packageVersion } from "../src/package-facts.ts";
import { createLogger } from "../src/platform/logger.ts";
import { runUntilSignal } from "../src/platform/process.ts";
import { startSimulatedModel } from "../src/providers/simulated-model.ts";
import { connectStores } from "../src/stores.ts";
import { createDemoClock, createDemoTraffic, type DemoTurn } from "./demo-traffic.ts";
import { startStandalone } from "./standalone-app.ts";

// What the Costs page looks like where people work: three paying teams, four models and two releases, an hour of their
// traffic in a minute, after the day before in passing. Turns, calls, holds and rows are real; the model is simulated, and
// the ledger's clock lies back a day and runs ahead until it has caught up with the wall's.

const TENANT = "default";

/** What the page shows before the hour: its last 24 are those that it opens with. */
const DAY_BEFORE_HOURS = 23;

const yaml = JSON.stringify({
  agents: {
    researcher: { model: "gpt-4o", system_message: "You find out what is known." },
    writer: { model: "gpt-4.1", system_message: "You write it down." },
    critic: { model: "o3", system_message: "You say what is wrong with it." },
    helper: { model: "gpt-4o-mini", system_message: "You help." },
  },
  teams: {
    helpdesk: { kind: "single", agent: "helper", history_messages: 8 },
    newsroom: { kind: "round_robin", agents: ["researcher", "writer", "critic"], max_rounds: 3 },
    analysis: { kind: "single", agent: "critic", history_messages: 8 },
  },
  budgets: [
    { scope: "tenant", period: "month", limit_micro_usd: 5_000_000 },
    { scope: "team", id: "editorial", period: "day", limit_micro_usd: 2_000_000, limit_tokens: 400_000 },
    { scope: "team", id: "support", period: "day", limit_micro_usd: 3_000, dry_run: true },
    { scope: "user", id: "*", period: "day", limit_micro_usd: 2_000_000 },
  ],
});

await runUntilSignal({
  async start() {
    const seconds = Number(process.env.DEMO_SECONDS || 60);
    const simulated = await startSimulatedModel({ chunkDelayMs: 0 });
    const env = {
      LOG_LEVEL: "error",
      ...process.env,
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
    const clock = createDemoClock();
    clock.lieBack(DAY_BEFORE_HOURS);
    const budgets = configuredBudgets(config.budgets);
    const accounts = createMemoryAccountStore({ budgets, now: () => clock.now() });
    const stores = { ...connectStores({ config, logger }), accounts };
    // Whoever looks needs no key; whoever pays has one.
    const standalone = await startStandalone({
      config,
      alerts: loadAlertSettings({}),
      logger,
      stores,
      simulatedModel: true,
    });
    const paid = { PORT: "0", OPS_PORT: "0" };
    // Keys that are gone with the process serve a demonstration, and nothing else: the environment does not offer it.
    const auth = { mode: "api_key" } as const;
    const releases = await Promise.all(
      [{}, { VERSION: `${config.version}-canary`, TRACK: "canary" }].map((release) =>
        startApp({
          config: { ...load({ ...paid, ...release }), auth },
          logger,
          consoleFolder,
          simulatedModel: true,
          stores,
        }),
      ),
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
    process.stdout.write("\n  Three teams work: the day before in passing …\n");
    for (let hours = DAY_BEFORE_HOURS; hours >= 1; hours -= 1) {
      clock.lieBack(hours);
      for (const turn of traffic.ofHour(new Date(clock.now()).getUTCHours())) await run(turn);
    }
    process.stdout.write(`  … and ${seconds === 60 ? "an hour" : `${seconds} minutes`} in ${seconds} s …\n`);
    clock.catchUp(seconds);
    for await (const turn of traffic.live(seconds)) await run(turn);
    let calls = 0;
    let costMicroUsd = 0n;
    for await (const row of rowsOf(accounts, { tenant: TENANT, startMs: 0, endMs: Number.MAX_SAFE_INTEGER })) {
      calls += 1;
      costMicroUsd += row.costMicroUsd;
    }
    process.stdout.write(
      [
        `  ${turns} turns, ${calls} model calls, ${costMicroUsd} millionths of a US dollar`,
        "",
        `  Costs:    ${standalone.app.url}/#/costs`,
        `  Usage:    ${standalone.sidecar.url}`,
        "",
        "  The model is simulated, and the ledger is gone when this ends (Ctrl+C).",
        "",
        "",
      ].join("\n"),
    );
    return {
      async close() {
        await Promise.all(releases.map((release) => release.close()));
        await standalone.close();
        await simulated.close();
        await logger.flush();
      },
    };
  },
});
