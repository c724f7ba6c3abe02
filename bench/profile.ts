import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { makeWorkDirectory, startParley, startRedis } from "./bench-targets.ts";
import { LOADS, type LoadKind, measureLoad, order } from "./measurements.ts";
import { type BenchProcess, forkServer } from "./processes.ts";

/**
 * `node bench/profile.ts`: Parley alone under load with V8's sampling profiler, and where its processor time went: by
 * package or file, and by function. The profile itself is left in the directory that is named at the end.
 */

const { values: flags } = parseArgs({
  options: {
    load: { type: "string", default: "burst" satisfies LoadKind },
    seconds: { type: "string", default: "10" },
  },
});
const kind = flags.load as LoadKind;
if (!(kind in LOADS)) throw new Error(`--load is one of ${Object.keys(LOADS).join(", ")}`);

const directory = makeWorkDirectory();
const started: BenchProcess[] = [];
try {
  const redis = await startRedis(directory);
  started.push(redis);
  const double = await forkServer("model-double.ts");
  started.push(double);
  const client = await forkServer("load-client.ts");
  started.push(client);
  const modelUrl = `http://127.0.0.1:${double.port}/v1`;
  const nodeFlags = ["--cpu-prof", `--cpu-prof-dir=${directory}`];
  const parley = await startParley({ directory, redisUrl: redis.url, modelUrl, nodeFlags });
  started.push(parley);
  const { baseUrl } = parley;
  const { sessionIds } = await order(client.child, { kind: "fill", baseUrl, sessions: 256, turns: 5 });
  const durationMs = Number(flags.seconds) * 1_000;
  console.log(await measureLoad(client.child, parley, { kind, durationMs, sessionIds }));
} finally {
  for (const process of started.reverse()) await process.stop();
}
for (const name of readdirSync(directory)) {
  if (name.endsWith(".cpuprofile")) printProfile(join(directory, name));
}

interface CpuProfile {
  readonly nodes: readonly {
    readonly id: number;
    readonly callFrame: { readonly functionName: string; readonly url: string; readonly lineNumber: number };
  }[];
  readonly samples: readonly number[];
  readonly timeDeltas: readonly number[];
}

function printProfile(path: string): void {
  const profile = JSON.parse(readFileSync(path, "utf8")) as CpuProfile;
  const frames = new Map(profile.nodes.map(({ id, callFrame }) => [id, callFrame]));
  const byPlace = new Map<string, number>();
  const byFunction = new Map<string, number>();
  let busyMicros = 0;
  profile.samples.forEach((id, index) => {
    const frame = frames.get(id);
    const micros = profile.timeDeltas[index] ?? 0;
    if (!frame || frame.functionName === "(idle)") return;
    busyMicros += micros;
    const place = placeOf(frame.url) || frame.functionName;
    add(byPlace, place, micros);
    add(byFunction, `${frame.functionName || "(anonymous)"} ${place}:${frame.lineNumber + 1}`, micros);
  });
  console.log(`\n${path}\nbusy ${(busyMicros / 1_000_000).toFixed(1)} s`);
  for (const [title, sums] of [
    ["by place", byPlace],
    ["by function", byFunction],
  ] as const) {
    console.log(`\n${title}`);
    for (const [name, micros] of [...sums].sort((a, b) => b[1] - a[1]).slice(0, 45)) {
      console.log(`${((100 * micros) / busyMicros).toFixed(1).padStart(5)} %  ${name}`);
    }
  }
}

function add(sums: Map<string, number>, name: string, micros: number): void {
  sums.set(name, (sums.get(name) ?? 0) + micros);
}

/** A package's name, a file of ours, or a module of Node's. */
function placeOf(url: string): string {
  const inPackage = /node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(url);
  if (inPackage?.[1]) return inPackage[1];
  return /\/((?:src|gen)\/[^?]+)/.exec(url)?.[1] ?? url;
}
