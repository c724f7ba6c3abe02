import { checkModelCalls, checkRepeatedCalls, checkTools } from "./call-checks.ts";
import { checkHistories } from "./history-checks.ts";
import { checkLogs, checkReaders } from "./log-checks.ts";
import { checkBill, checkCaps } from "./money-checks.ts";
import type { Observations } from "./observations.ts";
import { checkCancels, checkEnds, checkKeys, checkReplies, checkUsage } from "./turn-checks.ts";
import type { Violation } from "./violation.ts";

/** Judges what was seen of a schedule. */
export function findViolations(seen: Observations): Violation[] {
  return [
    checkLiveness,
    checkLogs,
    checkReaders,
    checkKeys,
    checkEnds,
    checkCancels,
    checkReplies,
    checkUsage,
    checkBill,
    checkCaps,
    checkModelCalls,
    checkRepeatedCalls,
    checkTools,
    checkHistories,
    checkStorage,
  ].flatMap((check) => check(seen));
}

function checkLiveness({ account, clients, crashes }: Observations): Violation[] {
  return [...account.unended.map((turnId) => `turn ${turnId} has not ended`), ...clients.complaints, ...crashes].map(
    (detail) => ({
      property: "liveness",
      detail,
    }),
  );
}

function checkStorage({ account, sessions, clients, schedule }: Observations): Violation[] {
  const { immortalKeys, sessionsOfKeys, leases, gauges, active } = account;
  const deleted = [...clients.deletes].flatMap(([sessionId, confirmed]) => (confirmed ? [sessionId] : []));
  const alive = new Set(sessions.map(({ session }) => session.sessionId));
  // The index is told first: what is lost between the two steps counts too much, and never too little.
  const isFaulty = schedule.actions.some(({ kind }) => FAULTS.has(kind));
  const ghosts = isFaulty ? [] : [...active.difference(alive)];
  return [
    ...immortalKeys.map((key) => `${key} has no end of life`),
    ...sessions.filter(({ leaseOf }) => leaseOf !== "").map(({ session }) => `${session.sessionId} has a lease`),
    ...leases.map((turnId) => `${turnId} is on the list of leases`),
    ...gauges
      .filter((gauge) => gauge !== active.size)
      .map((gauge) => `a gauge has ${gauge} sessions, the index ${active.size}`),
    ...[...alive.difference(active)].map((sessionId) => `${sessionId} is there and does not count`),
    ...ghosts.map((sessionId) => `${sessionId} is not there and counts`),
    ...deleted
      .filter((sessionId) => sessionsOfKeys.has(sessionId))
      .map((sessionId) => `${sessionId} was deleted and has keys`),
  ].map((detail) => ({ property: "storage", detail }));
}

/** What may lose a process or an answer between two steps. */
const FAULTS: ReadonlySet<string> = new Set(["kill", "drain", "pause", "redis-restart", "redis-pause"]);
