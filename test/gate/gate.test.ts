import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { parse, parseAllDocuments } from "yaml";
import { checkGate, type GateResult } from "../../gate/check.ts";
import { type GateFile, GateFileError, parseGateFile } from "../../gate/conditions.ts";
import { prometheus } from "../../gate/prometheus.ts";
import { gateAlerts, renderArgo, renderFlagger } from "../../gate/render.ts";
import { startExporter, startPrometheus } from "../support/prometheus-server.ts";
import { metricsText, type Traffic } from "./traffic.ts";

// The gate with a real Prometheus, which scrapes an exporter for each track.

const project = join(import.meta.dirname, "../..");
const GOOD: Traffic = { turns: 200, errors: 2, microUsdPerTurn: 400, breaker: 0, unreadable: 0 };

interface Scenario {
  readonly canary: Traffic;
  readonly stable: Traffic;
  readonly verdict: GateResult["verdict"];
  /** Conditions that fail. */
  readonly failed?: readonly string[];
  /** Conditions that cannot be said. */
  readonly unknown?: readonly string[];
}

const SCENARIOS: Readonly<Record<string, Scenario>> = {
  "an equal canary": { canary: GOOD, stable: GOOD, verdict: "pass" },
  "a canary that fails on one turn in ten": {
    canary: { ...GOOD, errors: 20 },
    stable: GOOD,
    verdict: "fail",
    failed: ["errorRatio"],
  },
  "a canary that fails on one turn in ten, and a stable that has no failed turn and no such series": {
    canary: { ...GOOD, errors: 20 },
    stable: { turns: 200, microUsdPerTurn: 400, breaker: 0 },
    verdict: "fail",
    failed: ["errorRatio"],
  },
  "no failed turn anywhere, and no series of any": {
    canary: { turns: 200, microUsdPerTurn: 400 },
    stable: { turns: 200, microUsdPerTurn: 400 },
    verdict: "pass",
  },
  "a good canary after a bad one that is gone": {
    canary: {
      ...GOOD,
      before: { turns: 200, errors: 100, firstTokenSeconds: 4, microUsdPerTurn: 9_000, breaker: 2, unreadable: 3 },
    },
    stable: { ...GOOD, before: { turns: 9_000, errors: 0, firstTokenSeconds: 0.05, microUsdPerTurn: 1 } },
    verdict: "pass",
  },
  "one failed turn of fifty": {
    canary: { ...GOOD, turns: 50, errors: 1 },
    stable: { ...GOOD, errors: 0 },
    verdict: "pass",
  },
  "a canary no worse than a bad stable": {
    canary: { ...GOOD, errors: 44 },
    stable: { ...GOOD, errors: 40 },
    verdict: "pass",
  },
  "a slow canary": {
    canary: { ...GOOD, firstTokenSeconds: 1.2 },
    stable: GOOD,
    verdict: "fail",
    failed: ["timeToFirstToken"],
  },
  "a canary that costs twice": {
    canary: { ...GOOD, microUsdPerTurn: 800 },
    stable: GOOD,
    verdict: "fail",
    failed: ["costPerTurn"],
  },
  "a canary that costs a fifth more": { canary: { ...GOOD, microUsdPerTurn: 480 }, stable: GOOD, verdict: "pass" },
  "an open breaker on the canary": {
    canary: { ...GOOD, breaker: 2 },
    stable: GOOD,
    verdict: "fail",
    failed: ["breakerOpen"],
  },
  "an open breaker on both": { canary: { ...GOOD, breaker: 2 }, stable: { ...GOOD, breaker: 2 }, verdict: "pass" },
  "a half-open breaker": { canary: { ...GOOD, breaker: 1 }, stable: GOOD, verdict: "pass" },
  "one session that the canary cannot read": {
    canary: { ...GOOD, unreadable: 1 },
    stable: GOOD,
    verdict: "fail",
    failed: ["unreadableSessions"],
  },
  "ten turns only": {
    canary: { ...GOOD, turns: 10, errors: 9 },
    stable: GOOD,
    verdict: "unknown",
    unknown: ["errorRatio", "timeToFirstToken", "costPerTurn", "breakerOpen"],
  },
  "49 turns": {
    canary: { ...GOOD, turns: 49, errors: 0 },
    stable: GOOD,
    verdict: "unknown",
    unknown: ["errorRatio", "timeToFirstToken", "costPerTurn", "breakerOpen"],
  },
  "50 turns": { canary: { ...GOOD, turns: 50, errors: 0 }, stable: GOOD, verdict: "pass" },
  "a stable without traffic": {
    canary: GOOD,
    stable: { ...GOOD, turns: 3, errors: 0 },
    verdict: "unknown",
    unknown: ["errorRatio", "timeToFirstToken", "costPerTurn", "breakerOpen"],
  },
  "one unreadable session in ten turns": {
    canary: { ...GOOD, turns: 10, unreadable: 1 },
    stable: GOOD,
    verdict: "fail",
    failed: ["unreadableSessions"],
    unknown: ["errorRatio", "timeToFirstToken", "costPerTurn", "breakerOpen"],
  },
  "a canary that never says a word": {
    canary: { ...GOOD, firstTokenSeconds: null },
    stable: GOOD,
    verdict: "unknown",
    unknown: ["timeToFirstToken"],
  },
  "a stable that never says a word": {
    canary: GOOD,
    stable: { ...GOOD, firstTokenSeconds: null },
    verdict: "unknown",
    unknown: ["timeToFirstToken"],
  },
  "no sidecar's cost": {
    canary: { turns: 200, errors: 0, breaker: 0 },
    stable: { turns: 200, errors: 0, breaker: 0 },
    verdict: "unknown",
    unknown: ["costPerTurn"],
  },
};

let url: string;
let conditions: GateFile;
const closing: (() => Promise<void>)[] = [];
/** Changes while it is scraped: what happened before the window must not count. */
const past = { canary: { turns: 0, errors: 0 }, stable: { turns: 10_000, errors: 9_000 } };

beforeAll(async () => {
  conditions = parseGateFile(await readFile(join(project, "gate/gate.yaml"), "utf8"));
  const text = (track: "canary" | "stable") => () =>
    Object.entries(SCENARIOS)
      .map(([name, scenario]) => metricsText(name, track, scenario[track]))
      .join("") + metricsText("past", track, { ...past[track], microUsdPerTurn: 400 });
  const exporters = await Promise.all([startExporter(text("canary")), startExporter(text("stable"))]);
  closing.push(...exporters.map((exporter) => exporter.close));
  const server = await startPrometheus(exporters.map(({ address }) => address));
  closing.push(server.close);
  url = server.url;
  // Both have been scraped, and long enough for the breakers' share of time.
  const query = prometheus({ url });
  const tracks = 2 * (Object.keys(SCENARIOS).length + 1);
  await vi.waitFor(
    async () => expect(await query("count(count_over_time(parley_turns_in_flight[1m]) > 14)")).toBe(tracks),
    { timeout: 60_000, interval: 200 },
  );
});

afterAll(async () => {
  for (const close of closing.toReversed()) await close();
});

function fileFor(scenario: string): GateFile {
  return { ...conditions, selector: `scenario="${scenario}"` };
}

test.each(Object.entries(SCENARIOS))("%s", async (name, { verdict, failed = [], unknown = [] }) => {
  const result = await checkGate(fileFor(name), prometheus({ url }));
  const named = (wanted: string): string[] =>
    result.conditions.filter((one) => one.verdict === wanted).map((one) => one.name);
  expect({ verdict: result.verdict, failed: named("fail"), unknown: named("unknown") }).toEqual({
    verdict,
    failed,
    unknown,
  });
});

describe("the alert rules, Flagger's and Argo's forms say the same of", () => {
  /** The names of rendered conditions by the value of their query; a query without a value is in neither. */
  async function answers(queries: readonly (readonly [string, string])[]): Promise<Record<string, number | undefined>> {
    const query = prometheus({ url });
    return Object.fromEntries(await Promise.all(queries.map(async ([name, one]) => [name, await query(one)] as const)));
  }

  test.each(Object.entries(SCENARIOS))("%s", async (name, { failed = [], unknown = [] }) => {
    const names = Object.keys(conditions.conditions);
    const wanted = Object.fromEntries(
      names.map((one) => [one, failed.includes(one) ? 1 : unknown.includes(one) ? undefined : 0]),
    );

    // An alert's query has a value where it fires.
    const fired = await answers(gateAlerts(fileFor(name)).map(({ labels, expr }) => [labels.condition ?? "", expr]));
    const alerts = Object.fromEntries(names.map((one) => [one, fired[one] !== undefined]));
    expect(alerts).toEqual(Object.fromEntries(names.map((one) => [one, failed.includes(one)])));

    const argo = parse(renderArgo(fileFor(name))) as {
      spec: { metrics: { name: string; provider: { prometheus: { query: string } } }[] };
    };
    const said = await answers(
      argo.spec.metrics.map(({ name: metric, provider }) => [
        camel(metric),
        provider.prometheus.query
          .replaceAll('namespace="{{args.namespace}}"', `scenario="${name}"`)
          .replaceAll("{{args.canary-version}}", "0.6.0")
          .replaceAll("{{args.stable-version}}", "0.5.0"),
      ]),
    );
    expect(said).toEqual(wanted);

    // The exporters' series have no pod: the track stands for it.
    const flagger = await answers(
      parseAllDocuments(renderFlagger(fileFor(name))).map((document) => {
        const { metadata, spec } = document.toJS() as { metadata: { name: string }; spec: { query: string } };
        return [
          camel(metadata.name.replace(/^parley-/, "")),
          spec.query
            .replaceAll('namespace="{{ namespace }}"', `scenario="${name}"`)
            .replaceAll(/pod=~"\{\{ target \}\}-primary-[^"]*"/g, 'track="stable"')
            .replaceAll(/pod=~"\{\{ target \}\}-[^"]*"/g, 'track="canary"'),
        ];
      }),
    );
    expect(flagger).toEqual(wanted);
  });
});

test("what happened before the window does not count", async () => {
  const file = { ...fileFor("past"), window: "5s", conditions: { errorRatio: { factor: 1.5, floor: 0.02 } } };
  const query = prometheus({ url });
  // The scrapes before are older than the window by now.
  await expect.poll(() => query('count(parley_turns_total{scenario="past"} offset 5s)'), { timeout: 30_000 }).toBe(4);
  past.canary = { turns: 100, errors: 20 };
  past.stable = { turns: 10_100, errors: 9_000 };
  await expect
    .poll(async () => (await checkGate(file, query)).verdict, { timeout: 30_000, interval: 200 })
    .toBe("fail");
  // Nine tenths of all turns that stable ever ran have failed, and none of late.
});

describe("parley gate", () => {
  async function parley(...args: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
    const command = promisify(execFile)(join(project, "bin/parley"), ["gate", ...args], {
      env: { ...process.env, PATH: `${join(process.execPath, "..")}:${process.env.PATH}` },
    });
    return command.then(
      ({ stdout, stderr }) => ({ code: 0, stdout, stderr }),
      (error: { code: number; stdout: string; stderr: string }) => error,
    );
  }

  /** Gives the command its file by standard input. */
  function ask(name: string, ...args: string[]): Promise<{ code: number; stdout: string }> {
    return new Promise((resolve, reject) => {
      const child = execFile(
        join(project, "bin/parley"),
        ["gate", "check", "--file", "-", "--prometheus", url, ...args],
        { env: { ...process.env, PATH: `${join(process.execPath, "..")}:${process.env.PATH}` } },
        (error, stdout) => {
          if (error !== null && typeof error.code !== "number") reject(error);
          else resolve({ code: (error?.code as number | undefined) ?? 0, stdout });
        },
      );
      child.stdin?.end(JSON.stringify(fileFor(name)));
    });
  }

  test.each([
    ["an equal canary", 0, "PASS"],
    ["a canary that costs twice", 1, "FAIL"],
    ["ten turns only", 2, "UNKNOWN"],
  ])("%s: exit code %i", async (name, exitCode, word) => {
    const { code, stdout } = await ask(name);
    expect(stdout).toContain(word);
    expect(code).toBe(exitCode);
  });

  test("--json is the result", async () => {
    const { stdout } = await ask("a slow canary", "--json");
    expect(JSON.parse(stdout)).toMatchObject({ verdict: "fail", turns: { canary: 200, stable: 200 } });
  });

  test("a Prometheus that does not answer is no pass", async () => {
    expect(await parley("--prometheus", "http://127.0.0.1:1")).toMatchObject({
      code: 2,
      stderr: expect.stringContaining("does not answer"),
    });
  });

  test("calls and files that make no sense are none of the three answers", async () => {
    expect(await parley("--prometheus", "nowhere")).toMatchObject({ code: 64 });
    // A URL of the protocol `localhost:`, as far as the parser goes.
    expect(await parley("--prometheus", "localhost:9090")).toMatchObject({ code: 64 });
    expect(await parley("frobnicate")).toMatchObject({ code: 64 });
    expect(await parley("--file", join(project, "package.json"), "--prometheus", url)).toMatchObject({
      code: 64,
      stderr: expect.stringContaining("cannot be used"),
    });
  });
});

describe("what Prometheus says of a file", () => {
  test("labels that are none are the file's fault, and no lack of samples", async () => {
    const file = { ...conditions, selector: "namespace=chat" };
    await expect(checkGate(file, prometheus({ url }))).rejects.toThrow(GateFileError);
  });

  test("several namespaces are none of which something can be said", async () => {
    const query = prometheus({ url });
    await expect(query("count by (scenario) (parley_turns_in_flight)")).rejects.toThrow(/namespaces; name one/);
  });

  test("a page of something else is no answer", async () => {
    const query = prometheus({ url: `${url}/nowhere` });
    await expect(query("1")).rejects.toThrow("answers HTTP 404, which is no answer of Prometheus");
  });
});

function camel(name: string): string {
  return name.replaceAll(/-([a-z])/g, (_, letter: string) => letter.toUpperCase());
}
