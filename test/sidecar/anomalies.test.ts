import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { beforeEach, describe, expect, it, onTestFinished, test, vi } from "vitest";
import { parse } from "yaml";
import { type AnomalyKind, historyBefore, isAnomaly, LIMITS, WATCH_MS } from "../../sidecar/anomaly-rules.ts";
import type { Rollups } from "../../sidecar/rollups.ts";
import { createMemoryRollups } from "../../sidecar/rollups-memory.ts";
import { createRedisRollups } from "../../sidecar/rollups-redis.ts";
import type { AccountStore } from "../../src/accounts/account-store.ts";
import { createMemoryAccountStore } from "../../src/accounts/memory-account-store.ts";
import { createRedisAccountStore } from "../../src/accounts/redis-account-store.ts";
import type { LogFacts, Logger } from "../../src/platform/logger-port.ts";
import { call, settled } from "../accounts/calls.ts";
import { eventually } from "../support/eventually.ts";
import { useRedis } from "../support/redis-of-file.ts";
import { bothRollups } from "./opened-rollups.ts";
import { startTestSidecar } from "./started-sidecar.ts";

const tenant = "default";
const MINUTE_MS = 60_000;

const shared = useRedis();

describe("the rule", () => {
  const many = (value: number, count = 20): number[] => Array.from({ length: count }, () => value);
  test.each<[string, AnomalyKind, number, number[], boolean]>([
    ["a burst above the floor and four times what was", "token_burst", 60_000, many(10_000), true],
    ["a burst of not more than four times what was", "token_burst", 60_000, many(15_000), false],
    ["many times what was, below the floor", "token_burst", 49_999, many(1), false],
    ["one rare burst in the history is not its measure", "token_burst", 60_000, [...many(1_000, 39), 90_000], true],
    ["bursts of more than one in twenty are", "token_burst", 60_000, [...many(1_000, 17), 90_000, 90_000], false],
    ["a burst of somebody new", "token_burst", 60_000, [1_000, 1_000], false],
    ["a burst of somebody new above the ceiling", "token_burst", LIMITS.token_burst.ceiling, [], true],
    ["above the ceiling, whatever was before", "token_burst", LIMITS.token_burst.ceiling, many(240_000), true],
    ["a turn of more calls than its user's turns have", "call_loop", 9, many(2), true],
    ["a turn of many calls where many are usual", "call_loop", 20, many(18), false],
    ["a turn of many calls of somebody new", "call_loop", 20, [], false],
    ["a turn above the ceiling", "call_loop", LIMITS.call_loop.ceiling, [], true],
  ])("%s", (_, kind, value, history, expected) => {
    expect(isAnomaly({ kind, value }, history)).toBe(expected);
  });

  it("holds a burst against six hours until a quarter of one before, in which something was spent", () => {
    const start = 100 * 3_600_000;
    const at = (minutesBefore: number): number => start - minutesBefore * MINUTE_MS;
    const buckets = new Map([
      [at(0), 1],
      [at(15), 2],
      [at(20), 3],
      [at(100), 0],
      [at(370), 4],
      [at(375), 5],
      [at(380), 6],
    ]);
    expect(historyBefore(buckets, start)).toEqual([3, 4, 5]);
  });
});

describe.each(bothRollups(shared))("anomalies %s", (_, open) => {
  let accounts: AccountStore;
  let rollups: Rollups;
  let calls = 0;
  /** So that a test's calls of now are all in one bucket. */
  let nowMs: number;
  beforeEach(async () => {
    nowMs = Date.now();
    ({ accounts, rollups } = await open());
    // So that the account is known.
    await accounts.hold(call("first", { tenant }));
    await accounts.release({ tenant, callId: "first" }, "");
  });

  const spend = async (init: Parameters<typeof settled>[1] & { minutesAgo?: number } = {}): Promise<void> => {
    const { minutesAgo = 0, ...row } = init;
    calls += 1;
    const holdTime = timestampFromMs(nowMs - minutesAgo * MINUTE_MS);
    await accounts.settle(settled(`c${calls}`, { tenant, turnId: `t${calls}`, priceVersion: "v", holdTime, ...row }));
  };
  /** What a user spent in the last hours, every ten minutes. */
  const habit = async (userId: string, promptTokens: bigint): Promise<void> => {
    for (let minutesAgo = 40; minutesAgo < 240; minutesAgo += 10) {
      await spend({ userId, sessionId: `${userId}-before`, promptTokens, minutesAgo });
    }
  };
  /** What a sidecar tells of, once it has read everything. */
  const told = async (env: Record<string, string> = {}) => {
    const lines: LogFacts[] = [];
    const started = await startTestSidecar({ accounts, rollups, env, logger: noting(lines) });
    onTestFinished(() => started.sidecar.close());
    await eventually(async () => expect(await rollups.standing(tenant)).toEqual({ pending: 0, lagMs: 0 }));
    const anomalies = async () =>
      (await rollups.anomalies(tenant))
        .map(({ kind, subject, sessionId }) => `${kind} ${subject.scope} ${subject.id}, look at ${sessionId}`)
        .toSorted();
    return { anomalies, lines, metrics: started.metrics };
  };

  it("are bursts of tokens against the user's own history, each told of once, with the session to look at", async () => {
    await habit("ann", 2_000n);
    await habit("bob", 40_000n);
    for (let part = 0; part < 6; part += 1) {
      for (const userId of ["ann", "bob", "new"]) {
        await spend({ userId, sessionId: `${userId}-now`, promptTokens: 10_000n });
      }
    }
    const { anomalies, lines, metrics } = await told();
    await eventually(async () => expect(await anomalies()).toEqual(["token_burst user ann, look at ann-now"]));
    await eventually(() => expect(lines).toHaveLength(1));
    expect(lines).toMatchObject([
      { tenant, kind: "token_burst", scope: "user", scope_id: "ann", session_id: "ann-now", value: expect.any(Number) },
    ]);
    const text = await metrics();
    expect(text).toMatch(/^parley_cost_anomalies_total\{tenant="default",kind="token_burst",.*\} 1$/m);
    expect(text).toMatch(/^parley_cost_anomalies_total\{tenant="default",kind="call_loop",.*\} 0$/m);
  });

  it("are bursts above the ceiling of those without a history, by user and by session", async () => {
    await spend({ userId: "new", sessionId: "s-new", promptTokens: 260_000n });
    const { anomalies } = await told();
    await eventually(async () =>
      expect(await anomalies()).toEqual([
        "token_burst session s-new, look at s-new",
        "token_burst user new, look at s-new",
      ]),
    );
  });

  it("are prompts that grow call after call with hardly a reply, and not those of a talk", async () => {
    for (let step = 1; step <= 6; step += 1) {
      const promptTokens = BigInt(step * 1_500);
      await spend({ userId: "ann", sessionId: "growing", promptTokens, completionTokens: 20n });
      await spend({ userId: "bob", sessionId: "talk", promptTokens, completionTokens: 700n });
      await spend({ userId: "eve", sessionId: "small", promptTokens: BigInt(step * 100), completionTokens: 1n });
    }
    const { anomalies } = await told();
    await eventually(async () => expect(await anomalies()).toEqual(["prompt_growth session growing, look at growing"]));
  });

  it("are turns that call the model in a loop, against the user's own turns", async () => {
    for (let turn = 0; turn < 5; turn += 1) {
      await spend({ userId: "ann", minutesAgo: 30 + turn });
      for (let step = 0; step < 7; step += 1) {
        await spend({ userId: "bob", sessionId: "bob-before", turnId: `b${turn}`, minutesAgo: 30 + turn });
      }
    }
    for (let step = 0; step < 10; step += 1) {
      await spend({ userId: "ann", sessionId: "ann-loop", turnId: "loop" });
      await spend({ userId: "bob", sessionId: "bob-loop", turnId: "usual" });
    }
    const { anomalies } = await told();
    await eventually(async () => expect(await anomalies()).toEqual(["call_loop user ann, look at ann-loop"]));
  });

  it("are those of whatever names users, sessions and turns have", async () => {
    const userId = 'a/b "c" \u{1f642}: d';
    for (let step = 0; step < 30; step += 1) await spend({ userId, sessionId: "x/y", turnId: "default/x/y" });
    const { anomalies } = await told();
    await eventually(async () => expect(await anomalies()).toEqual([`call_loop user ${userId}, look at x/y`]));
  });

  it("are told of by another sidecar where the one that read the rows died at once", async () => {
    await spend({ userId: "", sessionId: "s-new", promptTokens: 260_000n });
    expect((await rollups.apply(tenant, await rollups.take(tenant, 10))).suspicious).toBe(true);
    const { anomalies } = await told();
    await eventually(async () => expect(await anomalies()).toEqual(["token_burst session s-new, look at s-new"]));
  });

  it("are found though the sidecar that read the first half is gone, and told of once by two", async () => {
    await habit("ann", 2_000n);
    for (let part = 0; part < 3; part += 1) await spend({ userId: "ann", sessionId: "now", promptTokens: 10_000n });
    const first = await told();
    expect(await first.anomalies()).toEqual([]);
    const second = await told();
    for (let part = 0; part < 3; part += 1) await spend({ userId: "ann", sessionId: "now", promptTokens: 10_000n });
    await eventually(async () => expect(await first.anomalies()).toEqual(["token_burst user ann, look at now"]));
    await eventually(() => expect([...first.lines, ...second.lines]).toHaveLength(1));
  });

  it("are posted to Alertmanager, again where it did not take them", async () => {
    const posts: { path: string | undefined; alerts: unknown }[] = [];
    let refuses = true;
    const alertmanager = createServer(async (request, response) => {
      const body = Buffer.concat(await Array.fromAsync(request)).toString();
      posts.push({ path: request.url, alerts: JSON.parse(body) });
      response.statusCode = refuses ? 503 : 200;
      response.end();
    }).listen(0, "127.0.0.1");
    await once(alertmanager, "listening");
    onTestFinished(() => void alertmanager.close());
    const url = `http://127.0.0.1:${(alertmanager.address() as AddressInfo).port}/alerts/`;
    await spend({ userId: "", sessionId: "s-new", promptTokens: 260_000n });
    const env = {
      ALERTMANAGER_URL: url,
      ALERT_NAMESPACE: "parley",
      ALERT_RUNBOOK_URL: "https://runbooks.example.com/",
    };
    await told(env);
    await eventually(() => expect(posts).toHaveLength(1));
    refuses = false;
    await told(env);
    await eventually(() => expect(posts).toHaveLength(2));
    for (const { path, alerts } of posts) {
      expect(path).toBe("/alerts/api/v2/alerts");
      expect(alerts).toEqual([
        {
          labels: {
            alertname: "ParleyCostAnomaly",
            severity: "warning",
            service: "parley",
            namespace: "parley",
            kind: "anomaly",
            anomaly: "token_burst",
            tenant,
            scope: "session",
            scope_id: "s-new",
          },
          annotations: {
            summary: expect.stringMatching(/^Session s-new of tenant default spends far more tokens/),
            description: "260001 tokens in five minutes.",
            runbook_url: "https://runbooks.example.com/ParleyCostAnomaly.md",
            session_id: "s-new",
            value: "260001",
          },
          startsAt: expect.stringMatching(/Z$/),
          endsAt: expect.stringMatching(/Z$/),
        },
      ]);
    }
  });
});

test("an anomaly that is posted has the labels of the rule of its name, and the same runbook", async () => {
  const url = await startAlertmanager();
  const accounts = createMemoryAccountStore();
  const rollups = createMemoryRollups({ accounts });
  await accounts.settle(settled("c1", { tenant, promptTokens: 260_000n, holdTime: timestampFromMs(Date.now()) }));
  const { sidecar } = await startTestSidecar({ accounts, rollups, env: { ALERTMANAGER_URL: url } });
  onTestFinished(() => sidecar.close());
  const posted = await eventually(async () => {
    const [first] = (await (await fetch(`${url}/api/v2/alerts`)).json()) as PostedAlert[];
    if (first === undefined) throw new Error("nothing was posted");
    return first;
  });
  const { groups } = parse(await (await fetch(`${sidecar.opsUrl}/rules`)).text()) as {
    groups: { rules: ({ alert?: string } & PostedAlert)[] }[];
  };
  const rule = groups.flatMap(({ rules }) => rules).find(({ alert }) => alert === posted.labels.alertname);
  expect(rule?.alert).toBe("ParleyCostAnomaly");
  expect(posted.labels).toMatchObject(rule?.labels ?? {});
  expect(posted.annotations.runbook_url).toBe(rule?.annotations.runbook_url);
  // What it has beside them is what the metric's labels give the rule, and whose it is.
  const own = Object.keys(posted.labels).filter((name) => rule?.labels[name] === undefined);
  expect(own.toSorted()).toEqual(["alertname", "anomaly", "scope", "scope_id", "tenant"]);
});

interface PostedAlert {
  readonly labels: Readonly<Record<string, string>>;
  readonly annotations: Readonly<Record<string, string>>;
}

test("a real Alertmanager has each anomaly once, though two sidecars post it", async () => {
  const url = await startAlertmanager();
  const accounts = createMemoryAccountStore();
  const rollups = createMemoryRollups({ accounts });
  const holdTime = timestampFromMs(Date.now());
  await accounts.settle(settled("c1", { tenant, sessionId: "s-new", promptTokens: 260_000n, holdTime }));
  const alertsThere = async () => (await (await fetch(`${url}/api/v2/alerts`)).json()) as PostedAlert[];
  const names = async () => (await alertsThere()).map(({ labels }) => `${labels.anomaly} ${labels.scope}`).toSorted();
  const expected = ["token_burst session", "token_burst user"];
  for (let posts = 0; posts < 2; posts += 1) {
    const { sidecar } = await startTestSidecar({ accounts, rollups, env: { ALERTMANAGER_URL: url } });
    await vi.waitFor(async () => expect(await names()).toEqual(expected), { timeout: 10_000 });
    await sidecar.close();
  }
  const [alert] = await alertsThere();
  expect(alert?.labels).toMatchObject({ alertname: "ParleyCostAnomaly", severity: "warning", kind: "anomaly", tenant });
  expect(alert?.annotations.session_id).toBe("s-new");
});

/** Starts Debian's Alertmanager; gone when the test has finished. Returns its URL. */
async function startAlertmanager(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "parley-alertmanager-"));
  onTestFinished(() => rm(folder, { recursive: true, force: true }));
  const config = join(folder, "alertmanager.yml");
  await writeFile(config, "route: { receiver: nobody }\nreceivers: [{ name: nobody }]\n");
  const port = await freePort();
  const child = spawn(
    "prometheus-alertmanager",
    [
      `--config.file=${config}`,
      `--storage.path=${folder}`,
      `--web.listen-address=127.0.0.1:${port}`,
      "--cluster.listen-address=",
    ],
    { stdio: "ignore" },
  );
  onTestFinished(async () => {
    const exit = once(child, "exit");
    child.kill("SIGKILL");
    await exit;
  });
  const url = `http://127.0.0.1:${port}`;
  await vi.waitFor(async () => expect((await fetch(`${url}/-/ready`)).status).toBe(200), { timeout: 20_000 });
  return url;
}

async function freePort(): Promise<number> {
  const taken = createServer().listen(0, "127.0.0.1");
  await once(taken, "listening");
  const { port } = taken.address() as AddressInfo;
  taken.close();
  await once(taken, "close");
  return port;
}

test("what is remembered of users and sessions expires, and is swept before", async () => {
  const redis = shared.connection.client;
  await redis.flushall();
  const accounts = createRedisAccountStore({ connection: shared.connection });
  const rollups = createRedisRollups({ connection: shared.connection, accounts, consumer: crypto.randomUUID() });
  for (let index = 0; index < 300; index += 1) {
    const holdTime = timestampFromMs(Date.now() - 1_000);
    await accounts.settle(settled(`c${index}`, { tenant, turnId: `t${index}`, promptTokens: 300_000n, holdTime }));
  }
  await redis.hset("{a:default}:watch:1:user:ann", Object.fromEntries(Array.from({ length: 120 }, (_, at) => [at, 1])));
  await rollups.apply(tenant, await rollups.take(tenant, 300));
  expect(await redis.pttl("{a:default}:suspicions")).toBeGreaterThan(0);
  const suspicions = await rollups.suspicions(tenant);
  expect(suspicions.length).toBeGreaterThan(1);
  for (const suspicion of suspicions) {
    expect(await rollups.judge(tenant, { ...suspicion, value: suspicion.value - 1 }, true)).toBe(false);
    expect(await rollups.judge(tenant, suspicion, true)).toBe(true);
    expect(await rollups.judge(tenant, suspicion, true)).toBe(false);
  }
  expect(await rollups.suspicions(tenant)).toEqual([]);
  // What a newer release suspects, or has told of, is left to it.
  await redis.hset("{a:default}:suspicions", "n", '[2,"unheard of"]');
  const open = (await rollups.anomalies(tenant)).length;
  expect(open).toBeGreaterThan(0);
  await redis.hset("{a:default}:anomalies", "n", `${Date.now()} [2,"unheard of"]`);
  expect(await rollups.suspicions(tenant)).toEqual([]);
  expect(await rollups.anomalies(tenant)).toHaveLength(open);
  expect(await redis.hget("{a:default}:suspicions", "n")).not.toBeNull();
  const keys = await redis.keys("*:watch:*");
  expect(keys.toSorted()).toEqual(["{a:default}:watch:1:session:s1", "{a:default}:watch:1:user:ann"]);
  for (const key of [...keys, "{a:default}:anomalies"]) expect(await redis.pttl(key), key).toBeGreaterThan(0);
  for (const key of keys) expect(await redis.pttl(key)).toBeGreaterThan(WATCH_MS.history);
  expect(Object.keys(await redis.hgetall("{a:default}:watch:1:user:ann")).length).toBeLessThan(3);
});

/** Keeps the facts of warnings. */
function noting(lines: LogFacts[]): Logger {
  const logger: Logger = {
    debug: () => undefined,
    info: () => undefined,
    warn: (facts, sentence) => {
      if (sentence === "cost anomaly") lines.push(facts);
    },
    error: () => undefined,
    child: () => logger,
  };
  return logger;
}
