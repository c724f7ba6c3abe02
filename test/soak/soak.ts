import { timestampMs } from "@bufbuild/protobuf/wkt";
import { repeatedCalls, turnMessageOf } from "./call-checks.ts";
import { findViolations } from "./checkers.ts";
import { createClients } from "./clients.ts";
import { patiently, readFinalState, removeSessions, removeSpenders, untilQuiet } from "./final-state.ts";
import { readMoney, startSpenders } from "./money.ts";
import type { Observations } from "./observations.ts";
import type { Action, Schedule } from "./schedule.ts";
import type { Property, Violation } from "./violation.ts";
import { pauseFor, type World } from "./world.ts";

/** Clients that have no end after this long, and turns that have none after that, are a violation, in milliseconds. */
const PATIENCE_MS = 45_000;

/** What one schedule came to. */
export interface SeedReport {
  readonly schedule: Schedule;
  readonly violations: readonly Violation[];
  readonly counts: Counts;
}

/** What happened, and what must not have. */
export interface Counts {
  turns: number;
  kills: number;
  drains: number;
  pauses: number;
  redisFaults: number;
  takeovers: number;
  resumes: number;
  retries: number;
  cancels: number;
  deletes: number;
  /** Rows of the ledger, corrections among them. */
  charges: number;
  /** Calls that the spenders' budget refused. */
  refusals: number;
  /** Calls of models by owners that had lost their lease while they stood still. */
  staleCalls: number;
}

export const NO_COUNTS: Counts = {
  turns: 0,
  kills: 0,
  drains: 0,
  pauses: 0,
  redisFaults: 0,
  takeovers: 0,
  resumes: 0,
  retries: 0,
  cancels: 0,
  deletes: 0,
  charges: 0,
  refusals: 0,
  staleCalls: 0,
};

/** Lets a schedule happen in a world, waits until all is quiet, and judges what was seen. The world's sessions are gone afterwards. */
export async function runSchedule(
  schedule: Schedule,
  { world, patienceMs = PATIENCE_MS }: { world: World; patienceMs?: number },
): Promise<SeedReport> {
  const sinceMs = Date.now();
  const clients = createClients({ world, patienceMs });
  const spenders = startSpenders(world, schedule);
  const counts: Counts = { ...NO_COUNTS };
  await Promise.all(schedule.sessions.map((sessionId) => clients.createSession(sessionId)));

  const perform = async (action: Action): Promise<void> => {
    switch (action.kind) {
      case "spend":
        return await spenders.spend(action);
      case "turn":
        return await clients.turn(action);
      case "cancel":
      case "read":
      case "retry":
        return await clients.touch(action);
      case "delete":
        counts.deletes++;
        return await clients.deleteSession(action);
      case "kill":
        counts.kills += (await world.kill(action.replica)) ? 1 : 0;
        return;
      case "drain":
        counts.drains += (await world.drain(action.replica)) ? 1 : 0;
        return;
      case "pause":
        counts.pauses += (await world.pause(action.replica, action.forMs)) ? 1 : 0;
        return;
      case "redis-restart":
        counts.redisFaults++;
        return await world.restartRedis();
      case "redis-pause":
        counts.redisFaults++;
        return await world.pauseRedis(action.forMs);
    }
  };
  const startedMs = performance.now();
  const performed: Promise<void>[] = [];
  for (const action of schedule.actions) {
    await pauseFor(startedMs + action.atMs - performance.now());
    performed.push(perform(action));
  }
  await Promise.all(performed);

  const unended = await untilQuiet(world, { patienceMs });
  const money = await readMoney(world);
  const overCap = await spenders.stop();
  await patiently(() => removeSpenders(world));
  const state = await patiently(() => readFinalState(world, { unended, patienceMs }));
  const seen: Observations = {
    schedule,
    clients: clients.seen,
    ...state,
    money: { ...money, overCap },
    calls: world.calls().filter((call) => call.arrivedMs >= sinceMs && turnMessageOf(call) !== ""),
    crashes: world.crashes(),
    record: world.record().filter(({ atMs }) => atMs >= sinceMs),
  };
  const violations = findViolations(seen);
  await patiently(() => removeSessions(world, state.sessions));
  return {
    schedule,
    violations,
    counts: {
      ...counts,
      turns: state.turns.length,
      takeovers: seen.record.filter((line) => line.kind === "owner" && line.takeover).length,
      resumes: clients.seen.resumes,
      retries: clients.seen.retries,
      cancels: clients.seen.cancels.length,
      charges: money.rows.filter(({ holdTime }) => holdTime !== undefined && timestampMs(holdTime) >= sinceMs).length,
      refusals: spenders.refusals,
      staleCalls: repeatedCalls(seen).filter(({ stale }) => stale).length,
    },
  };
}

/** How often each property was violated. */
export function violationsBy(violations: readonly Violation[]): Map<Property, number> {
  const counts = new Map<Property, number>();
  for (const { property } of violations) counts.set(property, (counts.get(property) ?? 0) + 1);
  return counts;
}
