import { type Random, seededRandom } from "./random.ts";

/** Replicas of the service that share one Redis. */
export const REPLICAS = 3;

/** A lease that nobody renews is kept this long, in milliseconds: short, so that a seed takes seconds. */
export const LEASE_MS = 600;

/** What happens to a service and by its clients, and when. Made from a seed alone. */
export interface Schedule {
  readonly seed: number;
  /** Sessions that are there from the beginning. */
  readonly sessions: readonly string[];
  /** Those who spend pay from its budget. */
  readonly useCase: string;
  /** In the order of their time. */
  readonly actions: readonly Action[];
}

export type Action = (TurnAction | TurnTouch | Fault | DeleteAction | SpendAction) & {
  /** Milliseconds after the beginning. */
  readonly atMs: number;
};

/** A client asks for a turn and reads it, on other replicas where one fails. */
export interface TurnAction {
  readonly kind: "turn";
  /** Unique over all seeds; stands in the message. */
  readonly name: string;
  /** The replica that is asked first, and the one that each further copy of the call asks is the next. */
  readonly replica: number;
  /** Undefined: a new session. */
  readonly session: string | undefined;
  readonly unary: boolean;
  readonly team: "fast" | "slow";
  readonly onBusy: "enqueue" | "reject" | "interrupt" | "rollback";
  /** The turn is to end when its client goes. */
  readonly endsWithCall: boolean;
  /** Has an idempotency key, so that a call that failed is repeated. */
  readonly keyed: boolean;
  /** The same call at the same time, so many times; more than one only with a key. */
  readonly copies: number;
  /** The client goes away after so many events. */
  readonly dropAfter: number | undefined;
  /** Whether it comes back to read on. */
  readonly comesBack: boolean;
  /** A client that hears nothing for this long reads on elsewhere, in milliseconds. */
  readonly patienceMs: number;
  /** Index of the wire that it speaks. */
  readonly wire: number;
}

/** Somebody does something with the turn that a TurnAction of this name asked for. */
export interface TurnTouch {
  /** `read`: a further reader, from after some of the events that are known; `retry`: the same request with its key. */
  readonly kind: "cancel" | "read" | "retry";
  readonly name: string;
  readonly replica: number;
  /** With `read`: how much of what is known is skipped, in percent. */
  readonly skipPercent: number;
}

export interface DeleteAction {
  readonly kind: "delete";
  readonly session: string;
  readonly replica: number;
}

/** A client calls a model at the cost of a budget that affords one call at a time, and a few in all. */
export interface SpendAction {
  readonly kind: "spend";
  readonly name: string;
  readonly replica: number;
}

export type Fault =
  | { readonly kind: "kill" | "drain"; readonly replica: number }
  | { readonly kind: "pause"; readonly replica: number; readonly forMs: number }
  | { readonly kind: "redis-restart" }
  | { readonly kind: "redis-pause"; readonly forMs: number };

/** How often what happens: weights of the faults, and shares of turns in percent. */
export interface Profile {
  readonly faults: Readonly<Record<Fault["kind"], number>>;
  /** Least and most faults of a schedule. */
  readonly faultCount: readonly [least: number, most: number];
  readonly keyedPercent: number;
  readonly retries: readonly [least: number, most: number];
}

/** A bit of everything. */
export const EVERYTHING: Profile = {
  faults: { kill: 5, pause: 4, drain: 2, "redis-restart": 2, "redis-pause": 1 },
  faultCount: [1, 4],
  keyedPercent: 40,
  retries: [0, 3],
};

const NO_FAULTS: Profile["faults"] = { kill: 0, pause: 0, drain: 0, "redis-restart": 0, "redis-pause": 0 };

/** Replicas die amid their turns. */
export const KILLS: Profile = { ...EVERYTHING, faults: { ...NO_FAULTS, kill: 1 }, faultCount: [3, 4] };

/** Replicas stand still for longer than their leases. */
export const PAUSES: Profile = { ...EVERYTHING, faults: { ...NO_FAULTS, pause: 1 }, faultCount: [3, 4] };

/** Nothing fails, and clients ask twice. */
export const RETRIES: Profile = { ...EVERYTHING, faultCount: [0, 0], keyedPercent: 90, retries: [3, 5] };

/** All that happens begins within this time, in milliseconds. */
const SCHEDULE_MS = 2_400;

/** Makes the schedule of a seed: always the same one. */
export function scheduleOf(seed: number, profile: Profile = EVERYTHING): Schedule {
  const random = seededRandom(seed);
  const sessions = Array.from({ length: random.int(2, 4) }, (_, index) => `soak-${seed}-${index}`);
  const turns = Array.from({ length: random.int(8, 14) }, (_, index) =>
    turnAction(`${seed}-${index}`, { random, sessions, profile }),
  );
  const touches = Array.from({ length: random.int(3, 8) }, () => touchOf(random, turns));
  const keyed = turns.filter((turn) => turn.keyed);
  const retries = keyed.length === 0 ? 0 : random.int(...profile.retries);
  const actions: Action[] = [
    ...turns,
    ...touches,
    ...Array.from({ length: retries }, () => ({ ...touchOf(random, keyed), kind: "retry" as const })),
    ...Array.from({ length: random.int(...profile.faultCount) }, () => ({
      ...faultOf(random, profile),
      atMs: random.int(150, SCHEDULE_MS),
    })),
  ];
  const [deleted, ...kept] = sessions;
  if (deleted !== undefined && kept.length > 0 && random.chance(0.3)) {
    actions.push({ kind: "delete", session: deleted, replica: anyReplica(random), atMs: random.int(500, SCHEDULE_MS) });
  }
  // Last, so that a seed's other actions are what they were without it.
  const spends = random.int(4, 10);
  for (let index = 0; index < spends; index++) {
    const spend = { kind: "spend", name: `${seed}-${index}`, replica: anyReplica(random) } as const;
    actions.push({ ...spend, atMs: random.int(0, SCHEDULE_MS) });
  }
  return { seed, sessions, useCase: `spend-${seed}`, actions: actions.toSorted((a, b) => a.atMs - b.atMs) };
}

/** The schedule as a person reads it, an action a line. */
export function describeSchedule({ seed, sessions, actions }: Schedule): string {
  const lines = actions.map(({ atMs, kind, ...rest }) => {
    const facts = Object.entries(rest).filter(([, value]) => value !== undefined && value !== false);
    return `${String(atMs).padStart(6)} ms  ${kind} ${facts.map(([name, value]) => `${name}=${value}`).join(" ")}`;
  });
  return [`seed ${seed}, sessions ${sessions.join(" ")}`, ...lines].join("\n");
}

/** What a client says in a turn: by it the model's calls are told apart. */
export function messageOf(name: string): string {
  return `soak turn ${name}`;
}

/** The user of all turns that are there for their bill. */
export const SPENDER = "spender";

/** What a client that spends says. */
export function spendMessageOf(name: string): string {
  return `soak spends ${name}`;
}

function turnAction(
  name: string,
  { random, sessions, profile }: { random: Random; sessions: readonly string[]; profile: Profile },
): TurnAction & { atMs: number } {
  const keyed = random.chance(profile.keyedPercent / 100);
  const drops = random.chance(0.35);
  return {
    kind: "turn",
    atMs: random.int(0, SCHEDULE_MS - 500),
    name,
    replica: anyReplica(random),
    session: random.chance(0.12) ? undefined : sessions[random.int(0, sessions.length - 1)],
    unary: random.chance(0.25),
    team: random.chance(0.6) ? "fast" : "slow",
    onBusy: random.chance(0.55) ? "enqueue" : random.pick(["reject", "interrupt", "rollback"]),
    endsWithCall: random.chance(0.15),
    keyed,
    copies: keyed && random.chance(0.5) ? random.int(2, 4) : 1,
    dropAfter: drops ? random.int(1, 25) : undefined,
    comesBack: random.chance(0.8),
    patienceMs: random.chance(0.5) ? 1_200 : 60_000,
    wire: random.int(0, 2),
  };
}

function touchOf(random: Random, turns: readonly (TurnAction & { atMs: number })[]): TurnTouch & { atMs: number } {
  const turn = turns[random.int(0, turns.length - 1)] as TurnAction & { atMs: number };
  return {
    kind: random.chance(0.35) ? "cancel" : "read",
    name: turn.name,
    replica: anyReplica(random),
    skipPercent: random.pick([0, 0, 50, 100]),
    atMs: turn.atMs + random.int(50, 1_500),
  };
}

function faultOf(random: Random, { faults }: Profile): Fault {
  const kinds = (Object.keys(faults) as Fault["kind"][]).flatMap((kind) =>
    Array<Fault["kind"]>(faults[kind]).fill(kind),
  );
  const kind = kinds[random.int(0, kinds.length - 1)] as Fault["kind"];
  const replica = anyReplica(random);
  // Half of the pauses end before the lease does.
  const forMs = random.chance(0.3) ? random.int(100, LEASE_MS) : random.int(2 * LEASE_MS, 4 * LEASE_MS);
  switch (kind) {
    case "kill":
    case "drain":
      return { kind, replica };
    case "pause":
      return { kind, replica, forMs };
    case "redis-restart":
      return { kind };
    case "redis-pause":
      return { kind, forMs: Math.min(forMs, 1_500) };
  }
}

function anyReplica(random: Random): number {
  return random.int(0, REPLICAS - 1);
}
