import { newIdempotencyKey, type Parley, type TurnEvent } from "../../client/client.ts";
import type { Headroom } from "../../gen/parley/chat/v1/headroom_pb.js";
import { FinishReason } from "../../gen/parley/chat/v1/turn_pb.js";
import { type Cell, createCell, type WritableCell } from "./cell.ts";
import { EMPTY_HISTORY, type History, readLatest, readOlder } from "./history.ts";
import { type Problem, problemOf } from "./problem.ts";
import type { Approval, SentTurn } from "./sent-turn.ts";
import { lockTurn, type Tabs } from "./tabs.ts";
import { type FollowEnd, followTurn } from "./turn-follower.ts";
import type { TurnMemory } from "./turn-memory.ts";
import {
  afterEvent,
  approvalsText,
  isRefusedMessage,
  newTurn,
  questionsOf,
  type TurnState,
  turnsOfHistory,
} from "./turn-state.ts";

/** One session as it is open in this page. Its turns go on while another session is looked at, and without this page. */
export interface Conversation {
  readonly state: Cell<ConversationState>;
  /** What is written and not sent. */
  readonly draft: WritableCell<string>;
  /** Whether somebody looks at it. */
  readonly watched: WritableCell<boolean>;
  /** Sends a message; while an answer comes it waits, or interrupts. What goes wrong is in the state. */
  send(message: string, options: { agentTeam: string; interrupts: boolean }): void;
  /** Answers tool calls that wait for approval; the team goes on. */
  approve(approvals: readonly Approval[]): void;
  /** Ends the turn that is answering, else takes back the message that waits first. */
  stop(): void;
  /** Takes back a message whose turn has not begun. */
  takeBack(key: string): void;
  /** Follows a turn again that nothing was heard of for too long. */
  retry(key: string): void;
  /** Shows a turn that another tab has sent or begun. */
  follow(sent: SentTurn): void;
  /** Another tab saw a turn's end, or took its message back. */
  heardOfEnd(sent: SentTurn): void;
  /** Shows the turns that are remembered, and reads the end of the history. */
  open(): Promise<void>;
  /** Reads one more page of the history. */
  loadOlder(): Promise<void>;
  /** Follows no turn any more; the turns go on. */
  leave(): void;
}

export interface ConversationState {
  /** Empty until the service names it: with the first turn. */
  readonly sessionId: string;
  readonly history: History;
  /** The history is being read. */
  readonly loading: boolean;
  /** What is left of each budget that binds the user here; empty: of none, or nobody has said. */
  readonly headroom: readonly Headroom[];
  /** The history could not be read. */
  readonly problem?: Problem;
  /** The history's newest turn, read from its log: the history knows nothing of tool calls, questions and costs. */
  readonly newest?: TurnState;
  /** Turns that came after the history was read, in their order: those that have begun, then those that wait. */
  readonly live: readonly TurnState[];
}

export interface ConversationPorts {
  readonly parley: Parley;
  readonly userId: string;
  readonly memory: TurnMemory;
  readonly tabs: Pick<Tabs, "tell">;
  /** Called when a turn begins, with its session, and when it has ended; empty: its session was not named. */
  changed(sessionId: string): void;
}

/** A message that nobody has begun a turn of for so long, in milliseconds, is given back instead of being sent. */
const STALE_MS = 600_000;

/** A turn as it is followed here, until its end. */
interface Following {
  sent: SentTurn;
  /** Aborted when it is no longer to be followed. */
  readonly over: AbortController;
  /** It was sent from this page: what comes to nothing goes back to the field. */
  readonly mine: boolean;
  /** This page knows how long it took. */
  readonly timed: boolean;
  begun: boolean;
  /** The service has told its place in the queue. */
  placed: boolean;
  /** It is to be ended as soon as it begins. */
  unwanted: boolean;
}

export function createConversation(sessionId: string, ports: ConversationPorts): Conversation {
  const { parley, userId, memory, tabs, changed } = ports;
  const state = createCell<ConversationState>({
    sessionId,
    history: EMPTY_HISTORY,
    loading: false,
    headroom: [],
    live: [],
  });
  const draft = createCell("");
  const watched = createCell(true);
  const followings = new Map<string, Following>();
  /** Turns that were given up, for another try. */
  const givenUp = new Map<string, SentTurn>();

  const update = (change: Partial<ConversationState>): void => state.set({ ...state.get(), ...change });
  const setLive = (live: readonly TurnState[]): void => update({ live });
  const find = (key: string): TurnState | undefined => state.get().live.find((turn) => turn.key === key);
  const updateTurn = (key: string, change: (turn: TurnState) => TurnState): void =>
    setLive(state.get().live.map((turn) => (turn.key === key ? change(turn) : turn)));

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
  const readHistory = async (): Promise<void> => {
    await read(() => readLatest(parley, state.get().sessionId));
    await readNewest();
  };

  /** Reads the newest turn's log; where it cannot be had, what the history has of the turn stands. */
  const readNewest = async (): Promise<void> => {
    const told = turnsOfHistory(state.get().history.messages).at(-1);
    if (told === undefined || state.get().live.some(({ turnId }) => turnId === told.turnId)) return;
    try {
      let newest: TurnState = { ...told, steps: [] };
      for await (const event of parley.turns.resumeTurn({ turnId: told.turnId, afterSequence: 0n })) {
        newest = { ...afterEvent(newest, event), phase: "ended", agentAtWork: "" };
      }
      if (newest.finishReason !== FinishReason.UNSPECIFIED) update({ newest });
    } catch {
      // Its log was trimmed, or the service is away.
    }
  };

  /** A figure beside the point: where it cannot be had, the last one stands. */
  const readHeadroom = async (): Promise<void> => {
    const request = { userId, sessionId: state.get().sessionId, message: "?" };
    const preview = await parley.turns.previewChat(request).catch(() => undefined);
    if (preview !== undefined) update({ headroom: preview.headroom });
  };

  const begin = (sent: SentTurn, { mine, timed }: { mine: boolean; timed: boolean }): void => {
    const over = new AbortController();
    followings.set(sent.key, { sent, over, mine, timed, begun: false, placed: false, unwanted: false });
    if (find(sent.key) === undefined) {
      const turn = newTurn({ key: sent.key, question: sent.message || approvalsText(sent.approvals) });
      const { live } = state.get();
      const first = sent.interrupts || sent.turnId !== "" ? live.findIndex(isWaiting) : -1;
      const begun = sent.turnId === "" ? {} : ({ turnId: sent.turnId, phase: "answering" } as const);
      setLive(live.toSpliced(first === -1 ? live.length : first, 0, { ...turn, ...begun }));
    }
    followWhatMay();
  };

  /** Follows what has begun; of what waits the first only, as the rest would wait behind it, and what interrupts. */
  const followWhatMay = (): void => {
    const active = state.get().live.filter(isActive);
    const [firstWaiting] = active.filter(isWaiting);
    active.forEach((turn, ahead) => {
      const following = followings.get(turn.key);
      if (following === undefined) return;
      const { sent } = following;
      const inSession = sent.sessionId !== "" || state.get().sessionId !== "";
      const may = turn === firstWaiting || (inSession && (sent.turnId !== "" || sent.interrupts));
      if (isWaiting(turn) && !following.placed && turn.turnsAhead !== ahead) {
        updateTurn(turn.key, (waits) => ({ ...waits, turnsAhead: ahead, phase: ahead === 0 ? "sending" : "queued" }));
      }
      if (!may || following.begun) return;
      following.begun = true;
      if (sent.sessionId === "") following.sent = { ...sent, sessionId: state.get().sessionId };
      if (following.sent.sessionId !== sent.sessionId) share(following.sent);
      void run(following);
    });
  };

  const share = (sent: SentTurn): void => {
    memory.keep(sent);
    tabs.tell({ kind: "turn", sent });
  };

  const run = async (following: Following): Promise<void> => {
    const { over, mine } = following;
    let unlock = (): void => undefined;
    if (following.sent.turnId === "") {
      unlock = await lockTurn(following.sent, over.signal).catch(() => unlock);
      if (over.signal.aborted) return unlock();
      // The tab that had the lock before may have seen the message refused.
      if (!mine && !memory.has(following.sent)) {
        unlock();
        return drop(following);
      }
    }
    const end = await followTurn(following.sent, {
      parley,
      signal: over.signal,
      watched,
      onEvent(event) {
        heard(following, event);
        if (event.event.case === "turnStarted") unlock();
      },
      onConnection(connection) {
        const disconnected = connection === "lost";
        if (find(following.sent.key)?.disconnected === disconnected) return;
        updateTurn(following.sent.key, (turn) => ({ ...turn, disconnected }));
        if (disconnected && following.unwanted) withdraw(following);
      },
    });
    if (!over.signal.aborted) await ended(following, end);
    unlock();
  };

  const heard = (following: Following, response: TurnEvent): void => {
    const { event } = response;
    updateTurn(following.sent.key, (turn) => afterEvent(turn, response));
    if (event.case === "turnQueued") following.placed = true;
    if (event.case !== "turnStarted") return;
    const known = following.sent.turnId !== "";
    following.sent = { ...following.sent, sessionId: event.value.sessionId, turnId: event.value.turnId };
    update({ sessionId: event.value.sessionId });
    moveAheadOfWaiting(following.sent.key);
    if (!known) {
      share(following.sent);
      changed(event.value.sessionId);
    }
    followWhatMay();
    if (following.unwanted) void cancel(following);
  };

  /** A turn that has begun stands before those that wait; not before what interrupts, which is told of on another connection. */
  const moveAheadOfWaiting = (key: string): void => {
    const { live } = state.get();
    const from = live.findIndex((turn) => turn.key === key);
    const to = live.findIndex((turn) => isWaiting(turn) && followings.get(turn.key)?.sent.interrupts !== true);
    const turn = live[from];
    if (turn !== undefined && to !== -1 && to < from) setLive(live.toSpliced(from, 1).toSpliced(to, 0, turn));
  };

  const ended = async (following: Following, { problem, mayRetry = false, gone }: FollowEnd): Promise<void> => {
    const { sent, mine, timed, over } = following;
    over.abort();
    followings.delete(sent.key);
    if (mayRetry) givenUp.set(sent.key, sent);
    else if (memory.forget(sent)) tabs.tell({ kind: "turn-ended", sent });
    updateTurn(sent.key, ({ problem: _, elapsedMs: __, ...turn }) => ({
      ...turn,
      phase: "ended",
      disconnected: false,
      stopping: false,
      agentAtWork: "",
      mayRetry,
      ...(timed ? { elapsedMs: Date.now() - sent.sentMs } : {}),
      ...(problem === undefined ? {} : { problem }),
    }));
    if (gone) await readInstead(sent);
    const turn = find(sent.key);
    if (mine && turn !== undefined && leftNothing(turn) && draft.get() === "") draft.set(sent.message);
    followWhatMay();
    changed(state.get().sessionId);
    void readHeadroom();
  };

  /** A turn that cannot be read any more is in the history, or gone without a trace. */
  const readInstead = async ({ key, turnId }: SentTurn): Promise<void> => {
    await readHistory();
    const known = state.get().history.messages.some((message) => message.turnId === turnId);
    if (known || find(key)?.steps.length === 0) setLive(state.get().live.filter((turn) => turn.key !== key));
  };

  /** Follows a turn no more and shows nothing of it. */
  const drop = ({ sent, over }: Following): void => {
    over.abort();
    followings.delete(sent.key);
    setLive(state.get().live.filter((turn) => turn.key !== sent.key));
    followWhatMay();
  };

  /** Gives up a turn's place in the queue: its call is closed, in whichever tab it is. */
  const withdraw = (following: Following): void => {
    const { sent, over } = following;
    over.abort();
    followings.delete(sent.key);
    memory.forget(sent);
    tabs.tell({ kind: "turn-ended", sent });
    updateTurn(sent.key, (turn) => ({
      ...turn,
      phase: "ended",
      disconnected: false,
      stopping: false,
      finishReason: FinishReason.CANCELLED,
    }));
    if (draft.get() === "") draft.set(sent.message);
    followWhatMay();
    changed(state.get().sessionId);
  };

  /** Asks the service to end a turn, until it hears. The turn's own end comes with its events. */
  const cancel = async ({ sent, over }: Following): Promise<void> => {
    updateTurn(sent.key, (turn) => ({ ...turn, stopping: true }));
    const { turnId } = sent;
    const options = { signal: over.signal, maxRetryDelayMs: 0 };
    await parley
      .retry((call) => parley.turns.cancelTurn({ turnId }, call), options)
      .catch(() => updateTurn(sent.key, (turn) => ({ ...turn, stopping: false })));
  };

  const submit = (asked: Pick<SentTurn, "message" | "approvals" | "agentTeam" | "interrupts">): void => {
    const { sessionId, live } = state.get();
    const sent: SentTurn = { key: newIdempotencyKey(), userId, sessionId, turnId: "", ...asked, sentMs: Date.now() };
    // A failed turn is not in the session's history; the message that was given back takes its place.
    setLive(live.filter((turn) => !leftNothing(turn)));
    if (asked.message !== "") draft.set("");
    if (sent.sessionId !== "") share(sent);
    begin(sent, { mine: true, timed: true });
  };

  return {
    state,
    draft,
    watched,
    loadOlder: () => read(() => readOlder(parley, state.get().sessionId, state.get().history)),

    send: (message, { agentTeam, interrupts }) => submit({ message, approvals: [], agentTeam, interrupts }),
    approve: (approvals) => submit({ message: "", approvals, agentTeam: "", interrupts: false }),
    stop() {
      const turn = state.get().live.find(isActive);
      const following = turn === undefined ? undefined : followings.get(turn.key);
      if (turn === undefined || following === undefined) return;
      const onItsWay = following.mine && turn.phase === "sending" && !turn.disconnected && !following.unwanted;
      if (turn.turnId !== "") {
        if (!turn.stopping) void cancel(following);
      } else if (onItsWay) {
        following.unwanted = true;
        updateTurn(turn.key, (sending) => ({ ...sending, stopping: true }));
      } else withdraw(following);
    },
    takeBack(key) {
      const following = followings.get(key);
      if (following !== undefined && following.sent.turnId === "") withdraw(following);
    },
    retry(key) {
      const sent = givenUp.get(key);
      if (sent === undefined) return;
      givenUp.delete(key);
      updateTurn(key, ({ problem: _, ...turn }) => ({
        ...turn,
        mayRetry: false,
        steps: [],
        phase: turn.turnId === "" ? "sending" : "answering",
      }));
      begin(sent, { mine: true, timed: false });
    },
    follow(sent) {
      const following = followings.get(sent.key);
      if (following === undefined) {
        if (find(sent.key) === undefined) begin(sent, { mine: false, timed: true });
      } else if (following.sent.turnId === "" && sent.turnId !== "") {
        following.over.abort();
        updateTurn(sent.key, (turn) => ({ ...turn, turnId: sent.turnId, phase: "answering", turnsAhead: 0 }));
        begin(sent, following);
      }
    },
    heardOfEnd(sent) {
      const following = followings.get(sent.key);
      if (following !== undefined) {
        if (following.sent.turnId === "" && sent.turnId === "") drop(following);
      } else if (sent.turnId !== "" && find(sent.key) === undefined) void readHistory();
    },
    async open() {
      for (const sent of memory.of(state.get().sessionId)) {
        if (followings.has(sent.key) || find(sent.key) !== undefined) continue;
        if (sent.turnId !== "" || Date.now() - sent.sentMs < STALE_MS) {
          begin(sent, { mine: false, timed: false });
        } else {
          memory.forget(sent);
          if (draft.get() === "") draft.set(sent.message);
        }
      }
      await readHistory();
    },
    leave() {
      for (const { over } of followings.values()) over.abort();
      followings.clear();
    },
  };
}

/** All turns that are known here, oldest first. */
export function turnsOf({ history, live, newest }: ConversationState): TurnState[] {
  const fresh = new Map([...(newest === undefined ? [] : [newest]), ...live].map((turn) => [turn.turnId, turn]));
  const told = turnsOfHistory(history.messages).map((turn) => fresh.get(turn.turnId) ?? turn);
  return [...told, ...live.filter((turn) => !told.includes(turn))];
}

/** The turn whose team waits for a person, if it does: of what came after it nothing is in the history. */
export function waitingTurnOf(turns: readonly TurnState[]): TurnState | undefined {
  const last = turns.findLast((turn) => !leftNothing(turn));
  if (last === undefined) return undefined;
  const { approvals, question } = questionsOf(last);
  return approvals.length > 0 || question !== undefined ? last : undefined;
}

export function isActive(turn: TurnState): boolean {
  return turn.phase !== "ended";
}

/** Its message was sent, and its turn has not begun. */
function isWaiting(turn: TurnState): boolean {
  return isActive(turn) && turn.turnId === "";
}

/** The turn ended so that the session's history has nothing of it, and the message should be said again. */
function leftNothing(turn: TurnState): boolean {
  if (turn.phase !== "ended" || turn.mayRetry) return false;
  if (turn.problem !== undefined || turn.turnId === "" || isRefusedMessage(turn)) return true;
  return turn.finishReason === FinishReason.ROLLED_BACK;
}
