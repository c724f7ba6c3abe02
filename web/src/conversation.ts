import { OnDisconnect } from "../../gen/parley/chat/v1/chat_service_pb.js";
import { FinishReason, TurnState as ServerTurnState } from "../../gen/parley/chat/v1/turn_pb.js";
import { type Cell, createCell, type WritableCell } from "./cell.ts";
import { EMPTY_HISTORY, type History, readLatest, readOlder } from "./history.ts";
import type { ParleyClients } from "./parley-clients.ts";
import { type Problem, problemOf } from "./problem.ts";
import { afterEvent, countsOf, newTurn, type TurnState, turnsOfHistory } from "./turn-state.ts";

/** One session as it is open in this page. Its turn goes on while another session is looked at. */
export interface Conversation {
  readonly state: Cell<ConversationState>;
  /** What is written and not sent. */
  readonly draft: WritableCell<string>;
  /** Runs a turn to its end; does nothing while one runs. Never rejects: what goes wrong is in the state. */
  send(message: string, options: { agentTeam: string }): Promise<void>;
  /** Closes the running turn's stream, which ends the turn. */
  stop(): void;
  /** Reads the end of the history. */
  open(): Promise<void>;
  /** Reads one more page of the history. */
  loadOlder(): Promise<void>;
}

export interface ConversationState {
  /** Empty until the service names it: with the first turn. */
  readonly sessionId: string;
  readonly history: History;
  /** The history is being read. */
  readonly loading: boolean;
  /** The history could not be read. */
  readonly problem?: Problem;
  /** Turns of this page that came after the history. */
  readonly live: readonly TurnState[];
  readonly running: boolean;
}

export interface ConversationPorts {
  readonly clients: ParleyClients;
  readonly userId: string;
  /** Called when a turn begins, with its session, and when it has ended. */
  changed(sessionId: string): void;
}

export function createConversation(sessionId: string, { clients, userId, changed }: ConversationPorts): Conversation {
  const state = createCell<ConversationState>({
    sessionId,
    history: EMPTY_HISTORY,
    loading: false,
    live: [],
    running: false,
  });
  const draft = createCell("");
  let turnsBegun = 0;
  let stopping = new AbortController();

  const update = (change: Partial<ConversationState>): void => state.set({ ...state.get(), ...change });
  const updateLast = (change: (turn: TurnState) => TurnState): void => {
    update({ live: state.get().live.map((turn, at, all) => (at === all.length - 1 ? change(turn) : turn)) });
  };
  const read = async (work: () => Promise<History>): Promise<void> => {
    const { problem: _, ...rest } = state.get();
    state.set({ ...rest, loading: true });
    try {
      const history = await work();
      update({ history, loading: false });
    } catch (error) {
      update({ loading: false, problem: problemOf(error) });
    }
  };

  return {
    state,
    draft,
    open: () => read(() => readLatest(clients, state.get().sessionId, new AbortController().signal)),
    loadOlder: () => read(() => readOlder(clients, state.get().sessionId, state.get().history)),
    stop: () => stopping.abort(),

    async send(message, { agentTeam }) {
      if (state.get().running) return;
      stopping = new AbortController();
      const { signal } = stopping;
      const sentMs = performance.now();
      // A failed turn is not in the session's history; the message that was given back takes its place.
      const live = state.get().live.filter((turn) => !leftNothing(turn));
      update({ running: true, live: [...live, newTurn({ key: `live-${++turnsBegun}`, question: message })] });
      draft.set("");
      const current = (): TurnState | undefined => state.get().live.at(-1);
      try {
        const events = clients.chat.streamChat(
          {
            sessionId: state.get().sessionId,
            message,
            userId,
            agentTeam,
            onDisconnect: OnDisconnect.CANCEL,
            ...(state.get().sessionId === "" ? { metadata: { title: titleOf(message) } } : {}),
          },
          { signal },
        );
        for await (const response of events) {
          updateLast((turn) => afterEvent(turn, response));
          if (response.event.case === "turnStarted") {
            update({ sessionId: response.event.value.sessionId });
            changed(response.event.value.sessionId);
          }
        }
      } catch (error) {
        const stopped = signal.aborted;
        const explained = (current()?.finishReason ?? FinishReason.UNSPECIFIED) !== FinishReason.UNSPECIFIED;
        if (stopped) updateLast((turn) => ({ ...turn, finishReason: FinishReason.CANCELLED }));
        else if (!explained || current()?.finishReason === FinishReason.ERROR) {
          updateLast((turn) => ({ ...turn, problem: problemOf(error) }));
        }
      }
      updateLast((turn) => ({ ...turn, phase: "ended", elapsedMs: performance.now() - sentMs }));
      update({ running: false });
      const ended = current();
      if (ended !== undefined && leftNothing(ended) && draft.get() === "") draft.set(message);
      if (signal.aborted && ended !== undefined && ended.turnId !== "") {
        const usage = await usageOfStopped(clients, ended.turnId);
        if (usage !== undefined) {
          update({ live: state.get().live.map((turn) => (turn.turnId === ended.turnId ? { ...turn, usage } : turn)) });
        }
      }
      changed(state.get().sessionId);
    },
  };
}

/** All turns that are known here, oldest first. */
export function turnsOf({ history, live }: ConversationState): TurnState[] {
  const fresh = new Set(live.map((turn) => turn.turnId).filter((id) => id !== ""));
  return [...turnsOfHistory(history.messages).filter((turn) => !fresh.has(turn.turnId)), ...live];
}

/** The turn ended so that the session's history has nothing of it, and the message should be said again. */
function leftNothing(turn: TurnState): boolean {
  if (turn.phase !== "ended") return false;
  return turn.problem !== undefined || turn.finishReason === FinishReason.ROLLED_BACK;
}

/** Longest title of a session in code points. */
const TITLE_CODE_POINTS = 60;

/** A session is called by how it began. */
function titleOf(message: string): string {
  const [line = ""] = message.trim().split(/[\r\n]/, 1);
  const points = [...line];
  return points.length <= TITLE_CODE_POINTS ? line : `${points.slice(0, TITLE_CODE_POINTS - 1).join("")}…`;
}

/** A stopped stream brings no turn_completed: ask, until the turn has ended, for a second at most. */
async function usageOfStopped(clients: ParleyClients, turnId: string): Promise<TurnState["usage"]> {
  for (let attempt = 0; attempt < 5; attempt++) {
    try {
      const { turn } = await clients.chat.getTurn({ turnId });
      if (turn?.state === ServerTurnState.FINISHED)
        return { ...countsOf(turn.tokenUsage), costMicroUsd: turn.costMicroUsd };
    } catch {
      return undefined;
    }
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
  return undefined;
}
