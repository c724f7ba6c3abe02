import { type Cell, createCell } from "./cell.ts";
import { type Conversation, createConversation } from "./conversation.ts";
import type { ParleyClients } from "./parley-clients.ts";
import type { Problem } from "./problem.ts";
import { createSessionList, type SessionList } from "./session-list.ts";

/** What the whole page is about: a user, that user's sessions, the one that is open. */
export interface ConsoleModel {
  readonly state: Cell<ConsoleState>;
  setUser(userId: string): void;
  openSession(sessionId: string): void;
  newSession(): void;
  /** Deletes a session and leaves it, if it is open. */
  deleteSession(sessionId: string): Promise<Problem | undefined>;
  /** Opens what the address names; for the browser's back and forward. */
  followAddress(): void;
}

export interface ConsoleState {
  readonly userId: string;
  readonly list: SessionList;
  readonly conversation: Conversation;
}

/** Where the page keeps what outlives it. */
export interface ConsoleMemory {
  readUserId(): string;
  writeUserId(userId: string): void;
  /** Session that the address names; empty: none. */
  readAddress(): string;
  /** `replace`: without a new entry in the browser's history. */
  writeAddress(sessionId: string, options?: { replace: boolean }): void;
}

export function createConsoleModel({
  clients,
  memory,
}: {
  clients: ParleyClients;
  memory: ConsoleMemory;
}): ConsoleModel {
  /** Open conversations of the user; their turns go on while another is looked at. */
  let open = new Map<string, Conversation>();

  const begin = (userId: string, list: SessionList, sessionId: string): Conversation => {
    const known = open.get(sessionId);
    if (known !== undefined && sessionId !== "") return known;
    const conversation = createConversation(sessionId, {
      clients,
      userId,
      changed(named) {
        if (named === "") return;
        open.set(named, conversation);
        if (state.get().conversation === conversation && memory.readAddress() !== named)
          memory.writeAddress(named, { replace: true });
        if (state.get().list === list) void list.refresh();
      },
    });
    if (sessionId !== "") {
      open.set(sessionId, conversation);
      void conversation.open();
    }
    return conversation;
  };

  const firstUser = memory.readUserId();
  const firstList = createSessionList({ clients, userId: firstUser });
  const state = createCell<ConsoleState>({
    userId: firstUser,
    list: firstList,
    conversation: begin(firstUser, firstList, memory.readAddress()),
  });
  void firstList.refresh();

  const show = (sessionId: string): void => {
    const { userId, list, conversation } = state.get();
    if (conversation.state.get().sessionId === sessionId && sessionId !== "") return;
    state.set({ userId, list, conversation: begin(userId, list, sessionId) });
  };

  return {
    state,
    setUser(userId) {
      if (userId === "" || userId === state.get().userId) return;
      for (const conversation of open.values()) conversation.stop();
      state.get().conversation.stop();
      open = new Map();
      memory.writeUserId(userId);
      memory.writeAddress("");
      const list = createSessionList({ clients, userId });
      state.set({ userId, list, conversation: begin(userId, list, "") });
      void list.refresh();
    },
    openSession(sessionId) {
      if (memory.readAddress() !== sessionId) memory.writeAddress(sessionId);
      show(sessionId);
    },
    newSession() {
      if (memory.readAddress() !== "") memory.writeAddress("");
      show("");
    },
    async deleteSession(sessionId) {
      const problem = await state.get().list.remove(sessionId);
      if (problem !== undefined) return problem;
      open.get(sessionId)?.stop();
      open.delete(sessionId);
      if (state.get().conversation.state.get().sessionId === sessionId) {
        memory.writeAddress("", { replace: true });
        show("");
      }
      return undefined;
    },
    followAddress: () => {
      const sessionId = memory.readAddress();
      if (state.get().conversation.state.get().sessionId !== sessionId) show(sessionId);
    },
  };
}
