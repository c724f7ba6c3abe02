import type { SentTurn } from "./sent-turn.ts";

/** Turns that have not ended, as far as this browser knows: a page that is loaded again goes on with them. */
export interface TurnMemory {
  /** The turns of a session, in the order in which they were sent. */
  of(sessionId: string): SentTurn[];
  has(sent: SentTurn): boolean;
  keep(sent: SentTurn): void;
  /** Says whether it was there: the first of several tabs that see a turn's end. */
  forget(sent: SentTurn): boolean;
}

const PREFIX = "parley.turn/";

/** The service forgets idempotency keys, and most sessions, after as many milliseconds. */
const LIFE_MS = 86_400_000;

/** Keeps an item per turn, so that two tabs never write the same one over each other. Storage that is forbidden throws; the page works without. */
export function createTurnMemory(storage: () => Storage = () => window.localStorage): TurnMemory {
  const tried = <T>(work: (storage: Storage) => T, otherwise: T): T => {
    try {
      return work(storage());
    } catch {
      return otherwise;
    }
  };
  return {
    of(sessionId) {
      return tried((items) => {
        const names = Object.keys(items).filter((name) => name.startsWith(PREFIX));
        const turns = names.flatMap((name): SentTurn[] => {
          const sent = parse(items.getItem(name));
          if (sent !== undefined && Date.now() - sent.sentMs < LIFE_MS) return [sent];
          items.removeItem(name);
          return [];
        });
        return turns.filter((sent) => sent.sessionId === sessionId).sort((a, b) => a.sentMs - b.sentMs);
      }, []);
    },
    has: (sent) => tried((items) => items.getItem(PREFIX + sent.key) !== null, true),
    keep: (sent) => tried((items) => items.setItem(PREFIX + sent.key, JSON.stringify(sent)), undefined),
    forget: (sent) =>
      tried((items) => {
        const there = items.getItem(PREFIX + sent.key) !== null;
        items.removeItem(PREFIX + sent.key);
        return there;
      }, false),
  };
}

/** What a former release of this page wrote, or a hand, may be anything. */
function parse(item: string | null): SentTurn | undefined {
  try {
    const told = JSON.parse(item ?? "") as Partial<Record<keyof SentTurn, unknown>>;
    // Former releases knew of no approvals.
    const { key, userId, sessionId, turnId, message, approvals = [], agentTeam, interrupts, sentMs } = told;
    const texts = [key, userId, sessionId, turnId, message, agentTeam];
    if (texts.some((text) => typeof text !== "string")) return undefined;
    if (!Array.isArray(approvals) || typeof interrupts !== "boolean" || typeof sentMs !== "number") return undefined;
    return { ...told, approvals } as SentTurn;
  } catch {
    return undefined;
  }
}
