import type { ModelName } from "./workload.ts";

/** What the load client is told to do, one command at a time. */
export type LoadCommand =
  /** Runs `turns` turns one after another in each of `sessions` new sessions; answers with their ids. */
  | { readonly kind: "fill"; readonly baseUrl: string; readonly sessions: number; readonly turns: number }
  /** Keeps `clients` clients busy for `durationMs`, each going round its own share of the sessions. */
  | {
      readonly kind: "load";
      readonly baseUrl: string;
      readonly rpc: "Chat" | "StreamChat";
      readonly model: ModelName;
      readonly clients: number;
      readonly durationMs: number;
      /** None: the server keeps no sessions. */
      readonly sessionIds: readonly string[];
      /** Readers at another replica, who follow each turn from its first event; default: none. */
      readonly readers?: { readonly baseUrl: string; readonly perTurn: number };
    }
  /** Runs this many streams one after another, going round the sessions. */
  | {
      readonly kind: "turns";
      readonly baseUrl: string;
      readonly turns: number;
      readonly sessionIds: readonly string[];
    }
  /** Opens streams beyond those that are open, until each has its first text; they stay open. */
  | {
      readonly kind: "open";
      readonly baseUrl: string;
      readonly streams: number;
      readonly sessionIds: readonly string[];
    }
  /** Follows the turns of the streams that were opened last, at another replica, one after another; stays as they do. */
  | { readonly kind: "follow"; readonly baseUrl: string; readonly turns: number }
  /** Waits for the end of all streams that are open. */
  | { readonly kind: "drain" };

/** What comes back. */
export interface LoadResult {
  /** Sessions that were filled. */
  readonly sessionIds: readonly string[];
  /** Turns that ended within the time. */
  readonly turnsInTime: number;
  /** All turns that ended. */
  readonly turns: number;
  /** Time from each call to its first text, in milliseconds, ascending; unary calls have none. */
  readonly firstTextMs: readonly number[];
  /** Time from each call to its first event, in milliseconds, ascending; unary calls have none. */
  readonly firstEventMs: readonly number[];
  /** Events that came by streams: to the readers elsewhere where there are any, else to who began the turns. */
  readonly events: number;
}

/** A command went wrong; the sentence says how. */
export interface LoadFailure {
  readonly failure: string;
}
