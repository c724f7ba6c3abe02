import type { UsageRecord } from "../gen/parley/usage/v1/usage_record_pb.js";
import { holdTimeMsOf } from "../src/accounts/usage-amounts.ts";
import { GROWTH, historyBefore, LIMITS, type Subject, type Suspicion, WATCH_MS } from "./anomaly-rules.ts";
import { type Anomaly, anomalyName, MOST_ANOMALIES, suspicionName } from "./rollups.ts";

/** What `parleyApplyRows` notes of users and sessions, in this process. */
export interface MemoryWatch {
  /** Whether the row, or it and those before it, is above a floor. */
  observe(row: UsageRecord): boolean;
  history(suspicion: Suspicion): number[];
  suspicions(): Suspicion[];
  judge(suspicion: Suspicion, isAnomaly: boolean): boolean;
  anomalies(): Anomaly[];
}

/** Turns of a user that are remembered at most. */
const MOST_TURNS = 256;

export function createMemoryWatch(now: () => number): MemoryWatch {
  /** By subject: start of a bucket to tokens. */
  const buckets = new Map<string, Map<number, number>>();
  const turns = new Map<string, Map<string, number>>();
  const growth = new Map<string, { readonly first: number; readonly last: number; readonly calls: number }>();
  const suspected = new Map<string, Suspicion>();
  const raised = new Map<string, Anomaly>();

  const addTokens = ({ scope, id }: Subject, startMs: number, tokens: number): number => {
    const name = `${scope}:${id}`;
    const all = buckets.get(name) ?? new Map<number, number>();
    // What was used last stands last, so that what nobody uses any more is found at the begin.
    buckets.delete(name);
    buckets.set(name, all);
    all.set(startMs, (all.get(startMs) ?? 0) + tokens);
    const oldMs = startMs - WATCH_MS.history - 4 * WATCH_MS.offset;
    for (const [atMs] of all) if (atMs < oldMs) all.delete(atMs);
    for (const [other, starts] of buckets) {
      if ([...starts.keys()].some((atMs) => atMs >= oldMs)) break;
      buckets.delete(other);
      growth.delete(other.slice("session:".length));
      turns.delete(other.slice("user:".length));
    }
    return all.get(startMs) ?? 0;
  };
  const addCall = (userId: string, turnId: string): number => {
    const all = turns.get(userId) ?? new Map<string, number>();
    turns.set(userId, all);
    if (all.size >= MOST_TURNS && !all.has(turnId)) all.clear();
    all.set(turnId, (all.get(turnId) ?? 0) + 1);
    return all.get(turnId) ?? 0;
  };
  const grow = (sessionId: string, prompt: number, completion: number): boolean => {
    const before = growth.get(sessionId);
    const grows = before !== undefined && prompt > before.last && completion * GROWTH.replyShare < prompt - before.last;
    const run = grows
      ? { ...before, last: prompt, calls: before.calls + 1 }
      : { first: prompt, last: prompt, calls: 1 };
    growth.set(sessionId, run);
    const { first, calls } = run;
    return calls >= GROWTH.calls && prompt >= first * GROWTH.factor && prompt - first >= GROWTH.tokens;
  };

  const suspicionsOf = (row: UsageRecord): Suspicion[] => {
    const { userId, sessionId, turnId } = row;
    const [prompt, completion] = [Number(row.promptTokens), Number(row.completionTokens)];
    const startMs = Math.floor(holdTimeMsOf(row) / WATCH_MS.bucket) * WATCH_MS.bucket;
    const suspicions: Suspicion[] = [];
    const subjects = [
      { scope: "user", id: userId },
      { scope: "session", id: sessionId },
    ] as const;
    for (const subject of subjects) {
      if (subject.id === "") continue;
      const value = addTokens(subject, startMs, prompt + completion);
      if (value < LIMITS.token_burst.floor) continue;
      suspicions.push({ kind: "token_burst", subject, sessionId, at: String(startMs), value });
    }
    if (row.correctsRecordId !== "") return suspicions;
    const [user, session] = subjects;
    if (userId !== "" && turnId !== "") {
      const value = addCall(userId, turnId);
      if (value >= LIMITS.call_loop.floor) {
        suspicions.push({ kind: "call_loop", subject: user, sessionId, at: turnId, value });
      }
    }
    if (sessionId !== "" && grow(sessionId, prompt, completion)) {
      suspicions.push({ kind: "prompt_growth", subject: session, sessionId, at: "", value: prompt });
    }
    return suspicions;
  };

  return {
    observe(row) {
      const found = suspicionsOf(row);
      for (const suspicion of found) suspected.set(suspicionName(suspicion), suspicion);
      return found.length > 0;
    },

    history({ kind, subject, at }) {
      switch (kind) {
        case "token_burst":
          return historyBefore(buckets.get(`${subject.scope}:${subject.id}`) ?? new Map(), Number(at));
        case "call_loop":
          return [...(turns.get(subject.id) ?? [])].flatMap(([turn, calls]) => (turn === at ? [] : calls));
        case "prompt_growth":
          return [];
      }
    },

    suspicions: () => [...suspected.values()],

    judge(suspicion, isAnomaly) {
      if (suspected.get(suspicionName(suspicion))?.value !== suspicion.value) return false;
      suspected.delete(suspicionName(suspicion));
      const known = raised.get(anomalyName(suspicion));
      if (!isAnomaly || (known !== undefined && known.openTimeMs > now() - WATCH_MS.open)) return false;
      if (known === undefined && raised.size >= MOST_ANOMALIES) return false;
      raised.set(anomalyName(suspicion), { ...suspicion, openTimeMs: now() });
      return true;
    },

    anomalies() {
      for (const [name, { openTimeMs }] of raised) if (openTimeMs <= now() - WATCH_MS.open) raised.delete(name);
      return [...raised.values()];
    },
  };
}
