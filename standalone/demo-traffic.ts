import { setTimeout as sleep } from "node:timers/promises";

// The traffic of the demonstration: the same each time.

/** How much faster than the wall's the demonstration's clock runs. */
const SPEED = 60;

/** A turn that somebody of a team asks for. */
export interface DemoTurn {
  /** Who pays. */
  readonly team: string;
  readonly isCanary: boolean;
  readonly userId: string;
  /** Whether it goes on in the user's last session. */
  readonly goesOn: boolean;
  readonly agentTeam: string;
  readonly useCase: string;
  readonly message: string;
}

interface DemoTeam {
  readonly team: string;
  readonly agentTeam: string;
  readonly useCases: readonly string[];
  readonly users: readonly string[];
  /** Of a hundred turns. */
  readonly share: number;
  readonly words: number;
}

const SUPPORT: DemoTeam = {
  team: "support",
  agentTeam: "helpdesk",
  useCases: ["billing", "returns", ""],
  users: ["tom", "uma", "vera", "wim", "xenia"],
  share: 60,
  words: 25,
};

const TEAMS: readonly DemoTeam[] = [
  {
    team: "editorial",
    agentTeam: "newsroom",
    useCases: ["article", "headline"],
    users: ["ada", "grace", "linus"],
    share: 25,
    words: 60,
  },
  {
    team: "research",
    agentTeam: "analysis",
    useCases: ["market", "paper"],
    users: ["marie", "niels"],
    share: 15,
    words: 90,
  },
  SUPPORT,
];

/** The ledger's clock in the demonstration; it never goes back. */
interface DemoClock {
  now(): number;
  /** It stands this many hours behind the wall's. */
  lieBack(hours: number): void;
  /** It runs 60 times as fast as the wall's, and has caught up with it when `seconds` have gone by. */
  catchUp(seconds: number): void;
}

export function createDemoClock(): DemoClock {
  let behindMs = 0;
  let caughtUpMs = 0;
  return {
    now: () => Date.now() - behindMs - Math.max(0, caughtUpMs - Date.now()) * (SPEED - 1),
    lieBack(hours) {
      behindMs = hours * HOUR_MS;
    },
    catchUp(seconds) {
      behindMs = 0;
      caughtUpMs = Date.now() + seconds * 1_000;
    },
  };
}

/** Whom turns come from: the same ones in the same order each time. */
export function createDemoTraffic(): {
  /** All turns of an hour of the day, in UTC: few by night, many in the afternoon. */
  ofHour(hour: number): DemoTurn[];
  /** Turns as time goes by: more in the middle than at the ends. */
  live(seconds: number): AsyncGenerator<DemoTurn, void>;
} {
  const random = numbersFrom(7);
  const oneOf = <T>(choices: readonly T[]): T => choices[Math.floor(random() * choices.length)] as T;
  const turn = (): DemoTurn => {
    let share = random() * 100;
    const { team, agentTeam, users, useCases, words } =
      TEAMS.find((each) => {
        share -= each.share;
        return share < 0;
      }) ?? SUPPORT;
    return {
      team,
      agentTeam,
      isCanary: random() < 0.1,
      userId: oneOf(users),
      useCase: oneOf(useCases),
      // The simulated model repeats what it is told: agents that tell each other so all day would never end.
      goesOn: random() < 0.6 && agentTeam !== "newsroom",
      message: Array.from({ length: Math.ceil(words * (0.4 + random())) }, () => oneOf(WORDS)).join(" "),
    };
  };
  return {
    ofHour(hour) {
      const length = Math.round(9 + 33 * Math.max(0, Math.sin((Math.PI * (hour - 6)) / 15)));
      return Array.from({ length }, turn);
    },
    async *live(seconds) {
      const startMs = Date.now();
      for (let atMs = 0; atMs < seconds * 1_000; atMs += STEP_MS) {
        await sleep(Math.max(0, startMs + atMs - Date.now()));
        if (random() < 0.2 + 0.3 * Math.sin((Math.PI * atMs) / (seconds * 1_000))) yield turn();
      }
    },
  };
}

/** Between two turns at the busiest, in milliseconds. */
const STEP_MS = 100;

const HOUR_MS = 3_600_000;

const WORDS = "the bill is late and who knows what became of our order since we asked about it last week".split(" ");

/** Numbers from 0 to 1, the same for each seed: https://en.wikipedia.org/wiki/Linear_congruential_generator#Parameters_in_common_use */
function numbersFrom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}
