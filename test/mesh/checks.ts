import { execFile } from "node:child_process";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { expect } from "vitest";
import { ChatService } from "../../gen/parley/chat/v1/chat_service_pb.js";
import { FinishReason } from "../../gen/parley/chat/v1/turn_pb.js";
import { UsageService } from "../../gen/parley/usage/v1/usage_service_pb.js";
import { type Caller, expectWhole, finishOf, persist, type TurnResponse } from "../app/clients.ts";
import { PROJECT } from "./image.ts";
import type { Mesh } from "./mesh.ts";
import { until } from "./processes.ts";

// What must hold of a release. Each rejects where it does not; mutants.test.ts shows that it can.

/** A turn as its client saw it. */
export interface SeenTurn {
  readonly message: string;
  readonly events: readonly TurnResponse[];
  /** Errors of calls that had to be made again. */
  readonly troubles: readonly ConnectError[];
}

/** What is told of turns: which track ran them. */
export function trackOf({ events }: Pick<SeenTurn, "events">): string {
  const event = events[0]?.event;
  return event?.case === "turnStarted" ? event.value.track : "";
}

let conversations = 0;

/** Runs turns of sessions of their own, `atATime` at once, over callers in turn. Throws what a client cannot mend by calling again. */
export async function runTurns(
  count: number,
  { callers, atATime = 50 }: { callers: readonly Caller[]; atATime?: number },
): Promise<SeenTurn[]> {
  const seen: SeenTurn[] = [];
  let next = 0;
  const worker = async (): Promise<void> => {
    while (next < count) {
      const index = next++;
      conversations += 1;
      const message = `conversation ${conversations}`;
      const troubles: ConnectError[] = [];
      const events = await persist(message, {
        agentTeam: "",
        callerFor: (attempt) => callers[(index + attempt) % callers.length] as Caller,
        onTrouble: (error) => void troubles.push(error),
        deadlineMs: 120_000,
      });
      seen.push({ message, events, troubles });
    }
  };
  await Promise.all(Array.from({ length: Math.min(atATime, count) }, worker));
  return seen;
}

/** Every turn came to its end with its whole reply, and its model call was made once. */
export function expectNoneLost({ model }: Mesh, turns: readonly SeenTurn[]): void {
  const paid = Map.groupBy(model.calls, ({ message }) => message);
  for (const { message, events } of turns) {
    expect(expectWhole(events)).toHaveLength(1);
    expect(finishOf(events)).toBe(FinishReason.STOP);
    expect(paid.get(message), message).toHaveLength(1);
  }
}

/** No call had to be made again: nobody noticed anything. */
export function expectNoTrouble(turns: readonly SeenTurn[]): void {
  expect(turns.flatMap(({ troubles }) => troubles.map(({ message }) => message))).toEqual([]);
}

/** The provider's books and the ledger have the same calls and tokens. */
export async function expectBillEqual(mesh: Mesh): Promise<void> {
  const [stable] = mesh.podsOf("stable");
  const headers = { authorization: `Bearer ${mesh.apiKey}` };
  const usage = createClient(UsageService, createGrpcTransport({ baseUrl: `http://${stable?.ip}:8081` }));
  const answered = mesh.model.calls.filter(({ refused }) => !refused);
  const wanted = {
    calls: BigInt(mesh.model.calls.length),
    prompt: BigInt(answered.reduce((sum, call) => sum + call.promptTokens, 0)),
    completion: BigInt(answered.reduce((sum, call) => sum + call.completionTokens, 0)),
  };
  const now = BigInt(Math.floor(Date.now() / 1_000));
  const range = {
    startTime: { seconds: now - 86_400n, nanos: 0 },
    endTime: { seconds: now + 86_400n, nanos: 0 },
  };
  let last: unknown;
  await until("the ledger to have what the provider has", async () => {
    const { groups } = await usage.queryUsage(range, { headers });
    last = {
      calls: groups.reduce((sum, row) => sum + row.calls, 0n),
      prompt: groups.reduce((sum, row) => sum + row.promptTokens, 0n),
      completion: groups.reduce((sum, row) => sum + row.completionTokens, 0n),
    };
    return JSON.stringify(last, text) === JSON.stringify(wanted, text);
  }).catch((error: unknown) => {
    if (last === undefined) throw error;
    expect(last).toEqual(wanted);
  });
}

const text = (_: string, value: unknown): unknown => (typeof value === "bigint" ? String(value) : value);

/** The canary gets its share of new sessions, within four standard deviations. */
export async function checkSplit(mesh: Mesh, { percent, turns }: { percent: number; turns: number }): Promise<void> {
  const seen = await runTurns(turns, { callers: mesh.callers(4) });
  expectNoneLost(mesh, seen);
  const share = percent / 100;
  const spread = 4 * Math.sqrt(turns * share * (1 - share));
  const onCanary = seen.filter((turn) => trackOf(turn) === "canary").length;
  expect(onCanary).toBeGreaterThanOrEqual(turns * share - spread);
  expect(onCanary).toBeLessThanOrEqual(turns * share + spread);
}

/** The header leads to the canary, always; without it nobody gets there, at weight 0. */
export async function checkPreview(mesh: Mesh): Promise<void> {
  const previewed = await runTurns(40, { callers: mesh.callers(2, { "x-parley-track": "canary" }) });
  const others = await runTurns(40, { callers: mesh.callers(2) });
  expectNoneLost(mesh, [...previewed, ...others]);
  expect(new Set(previewed.map(trackOf))).toEqual(new Set(["canary"]));
  expect(new Set(others.map(trackOf))).toEqual(new Set(["stable"]));
}

/** A session goes back to the version that its first answer named. */
export async function checkAffinity(mesh: Mesh, { version, track }: { version: string; track: string }): Promise<void> {
  const seen = await runTurns(20, { callers: mesh.callers(2, { "x-parley-version": version }) });
  expect(new Set(seen.map(trackOf))).toEqual(new Set([track]));
}

/** So many calls go to two pods that each of them gets more than it takes to be ejected. */
const AT_ONCE = 60;

/**
 * One client's mistakes eject nobody; a pod that says again and again that it is at fault is ejected, and the others answer.
 * One pod is cut off from Redis, and blames itself until its readiness does so too.
 */
export async function checkEjection(mesh: Mesh): Promise<void> {
  const ejections = () => mesh.istio.counter(/outbound.8080.stable.*outlier_detection.ejections_enforced_total/);
  const before = await ejections();
  const transport = createGrpcTransport({ baseUrl: mesh.istio.url });
  const unknown = { ...ChatService.method.getTurn, name: "NoMethod" };
  for (let mistakes = 0; mistakes < 50; mistakes++) {
    const error = await transport
      .unary(unknown, undefined, undefined, undefined, {})
      .catch((thrown: unknown) => thrown);
    expect(ConnectError.from(error).code).toBe(Code.Unimplemented);
  }
  expect(await ejections()).toBe(before);

  const [pod] = mesh.podsOf("stable");
  const [caller] = mesh.callers(1) as [Caller];
  const sessionId = await caller.createSession();
  const iptables = (...args: string[]) =>
    promisify(execFile)("ip", ["netns", "exec", pod?.network ?? "", "iptables", ...args]);
  await iptables(
    "-A",
    "OUTPUT",
    "-p",
    "tcp",
    "--dport",
    String(mesh.redis.port),
    "-j",
    "REJECT",
    "--reject-with",
    "tcp-reset",
  );
  try {
    let refused = 0;
    const ask = (): Promise<unknown> =>
      caller.sessions.getSession({ sessionId }).catch((error: unknown) => {
        expect(ConnectError.from(error).code).toBe(Code.Unavailable);
        refused += 1;
      });
    // Many at a time: its readiness takes the pod away within seconds.
    for (let tries = 0; tries < 20 && (await ejections()) === before; tries++)
      await Promise.all(Array.from({ length: AT_ONCE }, ask));
    expect(await ejections()).toBeGreaterThan(before);
    expect(refused).toBeGreaterThanOrEqual(20);
    // The other half still answers everybody.
    expectNoneLost(mesh, await runTurns(20, { callers: mesh.callers(2) }));
  } finally {
    await iptables("-F", "OUTPUT");
  }
  await until("the pod to be ready again", () => mesh.podsOf("stable").length === 2);
}

/** Pods that go take nobody's turn with them, end by themselves, and their sidecar last. */
export async function checkRestart(mesh: Mesh, restart: () => Promise<unknown>): Promise<void> {
  const callers = mesh.callers(8);
  const seen: SeenTurn[] = [];
  const over = { yet: false };
  const load = (async () => {
    while (!over.yet) seen.push(...(await runTurns(20, { callers, atATime: 20 })));
  })();
  // A failure is told by what awaits it below.
  load.catch(() => undefined);
  const leaving = mesh.podsOf("stable");
  try {
    await restart();
    await until("the old pods to go", () => leaving.every(({ gone }) => gone), { timeoutMs: 90_000 });
  } finally {
    over.yet = true;
  }
  await load;
  expect(seen.length).toBeGreaterThan(50);
  expectNoneLost(mesh, seen);
  expectNoTrouble(seen);
  expectLeftInOrder(mesh);
}

/** All pods that are gone ended by themselves, in time, the service before its sidecar. */
export function expectLeftInOrder({ pods }: Mesh): void {
  const gone = pods.filter(({ gone, labels }) => gone && labels["app.kubernetes.io/name"] === "parley");
  for (const { name, ended, killed, restarts } of gone)
    expect({ name, killed, restarts, ended: ended.map((one) => `${one.name} ${one.exitCode}`) }).toEqual({
      name,
      killed: [],
      restarts: 0,
      ended: ended.length === 1 ? ["parley 0"] : ["parley 0", "sidecar 0"],
    });
}

/** What `parley gate` says, by the conditions that the chart made, once Prometheus has all that happened. */
export async function askGate(
  mesh: Mesh,
  { canaryTurns }: { canaryTurns: number },
): Promise<{ code: number; output: string }> {
  const { data } = await mesh.api.get("/api/v1/namespaces/chat/configmaps/parley-gate");
  const file = join(mesh.folder, "gate.yaml");
  await writeFile(file, data["gate.yaml"]);
  const gate = (...args: string[]): Promise<{ code: number; stdout: string }> =>
    promisify(execFile)(
      process.execPath,
      ["gate/main.ts", "--file", file, "--prometheus", mesh.prometheus.url, ...args],
      {
        cwd: PROJECT,
      },
    ).then(
      (output) => ({ code: 0, ...output }),
      (error) => error,
    );
  let last = "";
  await until("Prometheus to have every turn and a value for every condition", async () => {
    const { stdout } = await gate("--json");
    last = stdout;
    const { turns, conditions } = JSON.parse(stdout) as {
      turns: { canary: number };
      conditions: { canary?: number }[];
    };
    return Math.round(turns.canary) === canaryTurns && conditions.every(({ canary }) => canary !== undefined);
  }).catch((error: unknown) => {
    throw new Error(`the gate says no more than ${last}`, { cause: error });
  });
  const { code, stdout } = await gate();
  return { code, output: stdout };
}
