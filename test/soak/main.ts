import { DEFECTS, type Defect } from "./faulty-stores.ts";
import { describeSchedule, scheduleOf } from "./schedule.ts";
import { type Counts, NO_COUNTS, runSchedule, type SeedReport, violationsBy } from "./soak.ts";
import { firstToShow } from "./teeth.ts";
import { PROPERTIES, type Property, type Violation } from "./violation.ts";
import { startWorld, type World } from "./world.ts";

// make soak SEEDS=50 [SEED=n] [MINUTES=m] [TEETH=1]: see `usage`.
const usage = `The soak: seeded schedules of clients and faults against a model of what must hold.
  SEEDS=50    how many seeds, from 1 on
  SEED=n      this seed only, in a fresh world
  MINUTES=m   no new seed after so many minutes
  TEETH=1     instead: with each defect in turn, the first seed that finds it`;

/** Violations of a seed that are shown. */
const SHOWN = 12;

const say = (line: string): void => void process.stdout.write(`${line}\n`);

for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => process.exit(130));

process.exitCode = (await main(process.env)) ? 0 : 1;
// Clients keep connections open for a while.
process.exit();

async function main(env: Readonly<Record<string, string | undefined>>): Promise<boolean> {
  const numberOf = (name: string, otherwise: number): number => {
    const value = env[name] === undefined || env[name] === "" ? otherwise : Number(env[name]);
    if (!(value > 0)) throw new Error(`${name} must be a number above 0.\n\n${usage}`);
    return value;
  };
  const only = env.SEED ? numberOf("SEED", 1) : undefined;
  const seeds = only === undefined ? Array.from({ length: numberOf("SEEDS", 50) }, (_, index) => index + 1) : [only];
  const untilMs = performance.now() + numberOf("MINUTES", 24 * 60) * 60_000;
  return env.TEETH ? await showTeeth(seeds) : await soak(seeds, { untilMs });
}

async function soak(seeds: readonly number[], { untilMs }: { untilMs: number }): Promise<boolean> {
  const counts: Counts = { ...NO_COUNTS };
  const violations: Violation[] = [];
  const failing: number[] = [];
  let done = 0;
  let world: World | undefined;
  try {
    for (const seed of seeds) {
      if (performance.now() > untilMs) break;
      world ??= await startWorld();
      const startedMs = performance.now();
      const report = await runSchedule(scheduleOf(seed), { world });
      done++;
      for (const name of Object.keys(counts) as (keyof Counts)[]) counts[name] += report.counts[name];
      violations.push(...report.violations);
      say(summaryOf(report, performance.now() - startedMs));
      if (report.violations.length === 0) continue;
      failing.push(seed);
      say(describeFailure(report));
      // What went wrong here is not to spoil the next one.
      await world.close();
      world = undefined;
    }
  } finally {
    await world?.close();
  }
  const by = violationsBy(violations);
  say("");
  say(`seeds ${done}`);
  for (const [name, count] of Object.entries(counts)) say(`${name} ${count}`);
  for (const property of Object.keys(PROPERTIES) as Property[])
    say(`violations of ${property}: ${by.get(property) ?? 0}`);
  say(
    `duplicates ${by.get("duplicate") ?? 0}, gaps ${by.get("gap") ?? 0}, repeated calls ${by.get("repeated call") ?? 0}`,
  );
  say(
    failing.length === 0
      ? "all properties held"
      : `seeds that failed: ${failing.join(" ")}; replay one with make soak SEED=n`,
  );
  return failing.length === 0;
}

async function showTeeth(seeds: readonly number[]): Promise<boolean> {
  let all = true;
  for (const defect of Object.keys(DEFECTS) as Defect[]) {
    const found = await firstToShow(defect, { seeds });
    all &&= found !== undefined;
    const how = [...violationsBy(found?.violations ?? [])]
      .map(([property, count]) => `${property} ${count}`)
      .join(", ");
    say(
      `${defect}: ${found === undefined ? `not shown by ${seeds.length} seeds` : `shown by seed ${found.schedule.seed} (${how})`}`,
    );
  }
  return all;
}

function summaryOf({ schedule, counts, violations }: SeedReport, ms: number): string {
  const facts = Object.entries(counts).flatMap(([name, count]) => (count === 0 ? [] : [`${name} ${count}`]));
  const verdict = violations.length === 0 ? "ok" : `${violations.length} VIOLATIONS`;
  return `seed ${schedule.seed}: ${verdict}, ${(ms / 1_000).toFixed(1)} s, ${facts.join(", ")}`;
}

function describeFailure({ schedule, violations }: SeedReport): string {
  const shown = violations
    .slice(0, SHOWN)
    .map(({ property, detail }) => `  ${property} (${PROPERTIES[property]}): ${detail}`);
  const more = violations.length > SHOWN ? [`  … and ${violations.length - SHOWN} more`] : [];
  return [describeSchedule(schedule), "violated:", ...shown, ...more, `replay: make soak SEED=${schedule.seed}`].join(
    "\n",
  );
}
