import { appendFileSync, readFileSync } from "node:fs";
import type { AccountStore } from "../../src/accounts/account-store.ts";
import { startApp } from "../../src/app.ts";
import { loadConfig } from "../../src/config.ts";
import type { Tool, ToolCall } from "../../src/engine/tool.ts";
import { Failure } from "../../src/failure.ts";
import { packageVersion, siteFolders } from "../../src/package-facts.ts";
import { createLogger } from "../../src/platform/logger.ts";
import type { Logger } from "../../src/platform/logger-port.ts";
import { runUntilSignal } from "../../src/platform/process.ts";
import { connectStores } from "../../src/stores.ts";
import type { Store } from "../../src/turns/ports.ts";

// The service as `src/main.ts` puts it together, with tools whose calls are counted in a file (TOOL_FILE), with a line in its
// log for each write that was refused, and, where DIE_AT says so, with its own death at a write or a step of its account: `<before | after> <what> <n>`.

/** What a process can die at: a write of the turn that it began itself, by what is in it. */
type Write = "begin" | "prepared" | "started" | "model" | "tool" | "textDelta" | "stepRestarted" | "commit" | KeyWrite;
type KeyWrite = "claimKey" | "markKey";

/** What a process can die at of its account: `after hold` is before the start. */
const ACCOUNT_STEPS = ["hold", "start", "settle", "release"] as const;

const { TOOL_FILE = "", DIE_AT = "" } = process.env;

function die(): Promise<never> {
  process.kill(process.pid, "SIGKILL");
  return new Promise(() => undefined);
}

function note(line: string): void {
  appendFileSync(TOOL_FILE, `${line}\n`);
}

function tool(name: string, call: (call: ToolCall) => Promise<string>, { idempotent = false } = {}): Tool {
  return {
    name,
    description: "For tests.",
    parameters: { type: "object", properties: {} },
    idempotent,
    async call(_, call_) {
      note(`${name} ${call_.id}`);
      return await call(call_);
    },
  };
}

const tools = [
  tool("pay", async () => "paid"),
  tool("look_up", async () => "found", { idempotent: true }),
  tool("pay_and_die", die),
  tool("look_up_and_die", die, { idempotent: true }),
  // Works until it is told to stop.
  tool("wait", ({ id, signal }) => {
    return new Promise((_, reject) => {
      signal.addEventListener("abort", () => {
        note(`stopped ${id}`);
        reject(new Error("stopped"));
      });
    });
  }),
];

/** A store whose process dies at the n-th write of a kind, and takes over nothing before. */
function dyingAt(fault: string, store: Store): Store {
  const [when, what, count] = fault.split(" ");
  let left = Number(count);
  const mine = new Set<string>();
  const at = async <T>(writes: readonly (Write | undefined)[], write: () => Promise<T>): Promise<T> => {
    const dies = writes.some((one) => one === what) && --left === 0;
    if (dies && when === "before") await die();
    const outcome = await write();
    if (dies) await die();
    return outcome;
  };
  return {
    ...store,
    claimTurns: async () => [],
    claimKey: (claim) => at(["claimKey"], () => store.claimKey(claim)),
    markKey: (claim, state) => at(["markKey"], () => store.markKey(claim, state)),
    beginTurn(turn) {
      mine.add(turn.turnId);
      return at(["begin"], () => store.beginTurn(turn));
    },
    append(lease, entries, steps = []) {
      const kinds = [...steps.map(({ step }) => step.case), ...entries.map(({ event }) => event?.event.case)];
      const write = () => store.append(lease, entries, steps);
      return mine.has(lease.turnId) ? at(kinds as Write[], write) : write();
    },
    commitTurn: (lease, commit) => at(["commit"], () => store.commitTurn(lease, commit)),
  };
}

/** Accounts whose process dies at the n-th step of a kind, and looks for no lost calls before. */
function dyingAtStep(fault: string, accounts: AccountStore): AccountStore {
  const [when, what, count] = fault.split(" ");
  let left = Number(count);
  let held: Promise<unknown> = Promise.resolve();
  const at = async <T>(step: (typeof ACCOUNT_STEPS)[number], take: () => Promise<T>): Promise<T> => {
    const dies = step === what && --left === 0;
    if (dies && when === "before") await die();
    const outcome = await take();
    if (dies) await die();
    return outcome;
  };
  return {
    ...accounts,
    expired: async () => [],
    hold(call) {
      const holding = at("hold", () => accounts.hold(call));
      held = holding.catch(() => undefined);
      return holding;
    },
    // One after the other, so that there is a time between them.
    async start(call, owner) {
      await held;
      return await at("start", () => accounts.start(call, owner));
    },
    settle: (record) => at("settle", () => accounts.settle(record)),
    release: (call, owner) => at("release", () => accounts.release(call, owner)),
  };
}

function tellingRefused(store: Store, logger: Logger): Store {
  const told =
    <A extends unknown[], T>(name: string, write: (...args: A) => Promise<T>) =>
    async (...args: A): Promise<T> => {
      try {
        return await write(...args);
      } catch (error) {
        if (error instanceof Failure) logger.info({ write: name, reason: error.reason }, "write refused");
        throw error;
      }
    };
  return {
    ...store,
    append: told("append", store.append),
    commitTurn: told("commitTurn", store.commitTurn),
    renewLease: told("renewLease", store.renewLease),
    releaseLease: told("releaseLease", store.releaseLease),
  };
}

await runUntilSignal({
  async start() {
    const config = loadConfig(process.env, {
      readFile: (path) => readFileSync(path, "utf8"),
      packageVersion: packageVersion(),
      tools: new Map(tools.map((one) => [one.name, one])),
    });
    const { version, track, logLevel } = config;
    const logger = createLogger({ level: logLevel, version, track });
    const connected = connectStores({ config, logger });
    const telling = tellingRefused(connected.store, logger);
    const stores =
      DIE_AT === ""
        ? { ...connected, store: telling }
        : { ...connected, accounts: dyingAtStep(DIE_AT, connected.accounts), store: dyingAt(DIE_AT, telling) };
    const app = await startApp({ config, logger, siteFolders, stores });
    logger.info({ url: app.url, ops_url: app.opsUrl }, "serving");
    return {
      async close() {
        await app.close();
        await logger.flush();
      },
    };
  },
});
