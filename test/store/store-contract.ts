import { create, type JsonObject } from "@bufbuild/protobuf";
import { timestampNow } from "@bufbuild/protobuf/wkt";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from "vitest";
import { Role } from "../../gen/parley/chat/v1/message_pb.js";
import type { Session } from "../../gen/parley/chat/v1/session_pb.js";
import { FinishReason, TurnState } from "../../gen/parley/chat/v1/turn_pb.js";
import { type MessageRecord, MessageRecordSchema } from "../../gen/parley/storage/v1/message_record_pb.js";
import { type TurnLogEntry, TurnLogEntrySchema } from "../../gen/parley/storage/v1/turn_log_pb.js";
import { TurnRecordSchema } from "../../gen/parley/storage/v1/turn_record_pb.js";
import { Failure, type FailureReason } from "../../src/failure.ts";
import {
  type BeginOutcome,
  type Lease,
  MAX_LOG_EVENTS,
  type NewTurn,
  type SessionPosition,
  type Store,
  type TurnCommit,
} from "../../src/turns/ports.ts";
import { newTurnRef } from "../../src/turns/turn-id.ts";
import { eventually } from "../support/eventually.ts";

/** What a contract run needs of an adapter. */
export interface StoreSubject {
  /** Called once before all cases. */
  start(): Promise<void>;
  /** A store on empty state. */
  open(options: { ttlMs: number; leaseMs: number }): Promise<Store>;
  stop(): Promise<void>;
}

const tenant = "acme";
const LONG = { ttlMs: 60_000, leaseMs: 10_000 } as const;

/** What every store must do, whatever it is made of. */
export function describeStoreContract(name: string, subject: StoreSubject): void {
  describe(`the store contract: ${name}`, () => {
    const opened: Store[] = [];
    let store: Store;
    const open = async (options: { ttlMs: number; leaseMs: number }): Promise<Store> => {
      const fresh = await subject.open(options);
      opened.push(fresh);
      return fresh;
    };
    beforeAll(() => subject.start(), 60_000);
    afterAll(() => subject.stop(), 60_000);
    beforeEach(async () => {
      store = await open(LONG);
    });
    afterEach(async () => {
      await Promise.all(opened.splice(0).map((used) => used.close()));
    });

    describe("sessions", () => {
      it("answers when it is asked whether it does", async () => {
        await expect(store.ping()).resolves.toBeUndefined();
      });

      it("keeps what a session was made with", async () => {
        const metadata: JsonObject = { plan: "gold", nested: { list: [1, "two", null] } };
        const made = await store.createSession({ tenant, sessionId: "s1", userId: "ann", metadata, version: "1.2.3" });
        const read = await store.getSession({ tenant, sessionId: "s1" });
        expect(read).toEqual(made);
        expect(read).toMatchObject({ sessionId: "s1", userId: "ann", metadata, version: "1.2.3", messageCount: 0n });
        expect(read).toMatchObject({ costMicroUsd: 0n, tokenUsage: { promptTokens: 0, totalTokens: 0 } });
        expect(Math.abs(ms(made.createTime) - Date.now())).toBeLessThan(5_000);
        expect(ms(made.expireTime) - ms(made.createTime)).toBe(LONG.ttlMs);
        expect(made.updateTime).toEqual(made.createTime);
      });

      it("gives an id away once in a tenant, and again in another", async () => {
        await store.createSession({ tenant, sessionId: "s1", userId: "ann", version: "1" });
        await expectFailure(
          store.createSession({ tenant, sessionId: "s1", userId: "ann", version: "1" }),
          "SESSION_EXISTS",
        );
        await expectFailure(
          store.createSession({ tenant, sessionId: "s1", userId: "bob", version: "1" }),
          "SESSION_EXISTS",
        );
        await store.createSession({ tenant: "other", sessionId: "s1", userId: "bob", version: "1" });
        expect((await store.getSession({ tenant, sessionId: "s1" }))?.userId).toBe("ann");
        expect((await store.getSession({ tenant: "other", sessionId: "s1" }))?.userId).toBe("bob");
        expect(await idsOf(store, "bob")).toEqual([]);
        expect(await idsOf(store, "ann")).toEqual(["s1"]);
      });

      it("has no session that was never made", async () => {
        const ref = { tenant, sessionId: "none" };
        expect(await store.getSession(ref)).toBeUndefined();
        expect(await store.updateSession(ref, {})).toBeUndefined();
        expect(await store.listMessages(ref, { offset: 0, limit: 10 })).toBeUndefined();
        expect(await store.deleteSession(ref)).toBe(false);
        expect(await store.countActiveSessions()).toBe(0);
      });

      it("keeps names with braces, slashes, colons and emoji apart", async () => {
        const users = ["a}b", "a/b", "a:b", "{a}", "🦊 user", "*"];
        for (const [index, userId] of users.entries()) {
          await store.createSession({ tenant, sessionId: `s${index}`, userId, version: "1" });
        }
        for (const [index, userId] of users.entries()) {
          const [session, ...rest] = await store.listSessions({ tenant, userId, limit: 10 });
          expect(session).toMatchObject({ sessionId: `s${index}`, userId });
          expect(rest).toEqual([]);
        }
      });

      it("lists a user's sessions page by page, newest first, those of one millisecond too", async () => {
        const sessionIds = Array.from({ length: 23 }, (_, index) => `s${String(index).padStart(2, "0")}`);
        await Promise.all(sessionIds.map((sessionId) => makeSession(store, sessionId)));
        await store.createSession({ tenant, sessionId: "bobs", userId: "bob", version: "1" });
        const pages = await allPages(store, "ann", 5);
        expect(pages.map((page) => page.length)).toEqual([5, 5, 5, 5, 3]);
        const listed = pages.flat();
        expect(listed.map((session) => session.sessionId).toSorted()).toEqual(sessionIds);
        const inOrder = listed.toSorted(
          (a, b) => ms(b.createTime) - ms(a.createTime) || (a.sessionId < b.sessionId ? 1 : -1),
        );
        expect(listed).toEqual(inOrder);
      });

      it("goes on listing after a session that was deleted meanwhile", async () => {
        for (const sessionId of ["s1", "s2", "s3", "s4"]) await makeSession(store, sessionId);
        const [first, second] = await store.listSessions({ tenant, userId: "ann", limit: 2 });
        await store.deleteSession({ tenant, sessionId: second?.sessionId ?? "" });
        const rest = await store.listSessions({ tenant, userId: "ann", limit: 9, after: positionOf(second) });
        expect([first?.sessionId, ...rest.map((session) => session.sessionId)]).toEqual(["s4", "s2", "s1"]);
      });

      it("goes on listing after a session that was made anew meanwhile", async () => {
        for (const sessionId of ["s1", "s2", "s3"]) await makeSession(store, sessionId);
        const [first, second] = await store.listSessions({ tenant, userId: "ann", limit: 2 });
        await store.deleteSession({ tenant, sessionId: "s2" });
        const remade = await eventually(async () => {
          const session = await makeSession(store, "s2");
          if (ms(session.createTime) > ms(first?.createTime)) return session;
          await store.deleteSession({ tenant, sessionId: "s2" });
          throw new Error("still the same millisecond");
        });
        const rest = await store.listSessions({ tenant, userId: "ann", limit: 9, after: positionOf(second) });
        expect(rest.map((session) => session.sessionId)).toEqual(["s1"]);
        expect((await idsOf(store, "ann"))[0]).toBe(remade.sessionId);
      });

      it("replaces and removes metadata and nothing else", async () => {
        const made = await makeSession(store, "s1", { a: 1 });
        const updated = await store.updateSession({ tenant, sessionId: "s1" }, { b: [true] });
        expect(updated).toMatchObject({
          userId: "ann",
          version: "1",
          createTime: made.createTime,
          metadata: { b: [true] },
        });
        expect(updated?.metadata).not.toHaveProperty("a");
        expect(ms(updated?.expireTime)).toBeGreaterThanOrEqual(ms(made.expireTime));
        const cleared = await store.updateSession({ tenant, sessionId: "s1" }, undefined);
        expect(cleared?.metadata).toBeUndefined();
        expect(await store.getSession({ tenant, sessionId: "s1" })).toEqual(cleared);
      });

      it("does not hand out what it keeps", async () => {
        const metadata: JsonObject = { a: 1 };
        const made = await makeSession(store, "s1", metadata);
        metadata.a = 2;
        if (made.metadata !== undefined) made.metadata.a = 3;
        expect((await store.getSession({ tenant, sessionId: "s1" }))?.metadata).toEqual({ a: 1 });
      });

      it("removes a session with its history and its turns", async () => {
        await makeSession(store, "s1");
        const lease = await beginAndCommit(store, "s1", ["hello", "hi"]);
        expect(await store.deleteSession({ tenant, sessionId: "s1" })).toBe(true);
        expect(await store.deleteSession({ tenant, sessionId: "s1" })).toBe(false);
        expect(await store.getSession({ tenant, sessionId: "s1" })).toBeUndefined();
        expect(await store.getTurn(lease)).toBeUndefined();
        expect(await store.readLog(lease, 0n, 10)).toBeUndefined();
        expect(await idsOf(store, "ann")).toEqual([]);
        await makeSession(store, "s1");
        expect(await store.listMessages({ tenant, sessionId: "s1" }, { offset: 0, limit: 10 })).toEqual([]);
        expect(await store.getTurn(lease)).toBeUndefined();
      });

      it("has no session whose time is over, and nothing of it in one that takes its id", async () => {
        const short = await open({ ttlMs: 150, leaseMs: 1_000 });
        await makeSession(short, "s1");
        const lease = await beginAndCommit(short, "s1", ["hello", "hi"]);
        await vi.waitFor(async () => expect(await short.getSession(lease)).toBeUndefined(), WAIT);
        expect(await short.getTurn(lease)).toBeUndefined();
        expect(await short.readLog(lease, 0n, 10)).toBeUndefined();
        expect(await short.listMessages(lease, { offset: 0, limit: 9 })).toBeUndefined();
        expect(await idsOf(short, "ann")).toEqual([]);
        await makeSession(short, "s1");
        expect(await short.listMessages(lease, { offset: 0, limit: 9 })).toEqual([]);
        expect(await short.getTurn(lease)).toBeUndefined();
        expect(await short.getSession(lease)).toMatchObject({ messageCount: 0n, tokenUsage: { totalTokens: 0 } });
      });

      it("lives on with its turns while it is used", async () => {
        const short = await open({ ttlMs: 600, leaseMs: 1_000 });
        const made = await makeSession(short, "s1");
        const first = await beginAndCommit(short, "s1", ["one"]);
        // Used every 200 ms or so until three lives have passed.
        await vi.waitFor(
          async () => {
            await short.updateSession({ tenant, sessionId: "s1" }, {});
            expect(Date.now()).toBeGreaterThan(ms(made.createTime) + 1_800);
          },
          { timeout: 10_000, interval: 150 },
        );
        expect(await short.getTurn(first)).toMatchObject({ state: TurnState.FINISHED });
        expect(await short.readLog(first, 0n, 9)).toHaveLength(2);
        expect(await short.listMessages(first, { offset: 0, limit: 9 })).toHaveLength(1);
        expect(await short.countActiveSessions()).toBe(1);
        expect(await idsOf(short, "ann")).toEqual(["s1"]);
      });

      it("is prolonged by a turn and by a lease that is renewed", async () => {
        const short = await open({ ttlMs: 1_500, leaseMs: 5_000 });
        const made = await makeSession(short, "s1");
        await eventually(() => expect(Date.now()).toBeGreaterThan(ms(made.createTime) + 50));
        const { lease } = await begin(short, newTurn("s1"));
        const begun = await short.getSession(lease);
        expect(ms(begun?.expireTime)).toBeGreaterThan(ms(made.expireTime));
        await vi.waitFor(
          async () => {
            await short.renewLease(lease);
            expect(Date.now()).toBeGreaterThan(ms(made.createTime) + 3_500);
          },
          { timeout: 10_000, interval: 50 },
        );
        expect(ms((await short.getSession(lease))?.expireTime)).toBeGreaterThan(Date.now());
        await short.commitTurn(lease, commit(2n));
        expect(await short.countActiveSessions()).toBe(1);
      });
    });

    describe("the count of active sessions", () => {
      it("follows what is made, deleted, made anew and expires", async () => {
        const short = await open({ ttlMs: 1_500, leaseMs: 1_000 });
        await makeSession(short, "s1");
        await makeSession(short, "s2");
        await short.createSession({ tenant: "other", sessionId: "s1", userId: "ann", version: "1" });
        expect(await short.countActiveSessions()).toBe(3);
        await begin(short, { ...newTurn("s3"), createSession: true });
        expect(await short.countActiveSessions()).toBe(4);
        await short.deleteSession({ tenant, sessionId: "s1" });
        expect(await short.countActiveSessions()).toBe(3);
        await short.deleteSession({ tenant, sessionId: "s1" });
        await makeSession(short, "s1");
        expect(await short.countActiveSessions()).toBe(4);
        await vi.waitFor(async () => expect(await short.countActiveSessions()).toBe(0), WAIT);
        expect(await short.getSession({ tenant, sessionId: "s1" })).toBeUndefined();
        await makeSession(short, "s1");
        expect(await short.countActiveSessions()).toBe(1);
      });

      it("is not moved by what is refused", async () => {
        await makeSession(store, "s1");
        await expectFailure(
          store.createSession({ tenant, sessionId: "s1", userId: "bob", version: "1" }),
          "SESSION_EXISTS",
        );
        await expectFailure(
          store.createSession({ tenant, sessionId: "s1", userId: "ann", version: "1" }),
          "SESSION_EXISTS",
        );
        await expectFailure(store.beginTurn(newTurn("none")), "SESSION_NOT_FOUND");
        await expectFailure(store.beginTurn({ ...newTurn("s1"), userId: "bob" }), "SESSION_NOT_FOUND");
        await store.updateSession({ tenant, sessionId: "none" }, {});
        expect(await store.countActiveSessions()).toBe(1);
      });

      it("stays right when sessions are made, used and deleted at once", async () => {
        const sessionIds = ["a", "b", "c", "d"];
        await Promise.all(
          Array.from({ length: 200 }, async (_, index) => {
            const sessionId = sessionIds[index % sessionIds.length] ?? "a";
            const ref = { tenant, sessionId };
            if (index % 3 === 0) await makeSession(store, sessionId).catch(ignoreFailure);
            else if (index % 3 === 1) await store.deleteSession(ref);
            else await store.beginTurn(newTurn(sessionId)).catch(ignoreFailure);
          }),
        );
        const alive = await Promise.all(sessionIds.map((sessionId) => store.getSession({ tenant, sessionId })));
        const there = alive.filter((session) => session !== undefined).map((session) => session.sessionId);
        expect(await store.countActiveSessions()).toBe(there.length);
        expect((await idsOf(store, "ann")).toSorted()).toEqual(there);
      });
    });

    describe("a turn", () => {
      it("begins in its session, for its owner only", async () => {
        await makeSession(store, "s1");
        await expectFailure(store.beginTurn({ ...newTurn("s1"), userId: "bob" }), "SESSION_NOT_FOUND");
        await expectFailure(store.beginTurn(newTurn("s2")), "SESSION_NOT_FOUND");
        const turn = newTurn("s1");
        const { lease, window } = await begin(store, turn);
        expect(lease).toMatchObject({ tenant, sessionId: "s1", turnId: turn.turnId });
        expect(lease.nonce).toContain(turn.nonce);
        expect(window).toEqual([]);
        expect(await store.getTurn(turn)).toMatchObject({
          turnId: turn.turnId,
          sessionId: "s1",
          state: TurnState.RUNNING,
          finishReason: FinishReason.UNSPECIFIED,
          lastSequence: 1n,
          createTime: turn.record.createTime,
        });
        expect(await store.readLog(turn, 0n, 10)).toEqual([turn.firstEntry]);
      });

      it("makes its session, with its metadata", async () => {
        const turn = newTurn("new");
        turn.record.metadata = { plan: "gold" };
        await begin(store, { ...turn, createSession: true, version: "9" });
        expect(await store.getSession(turn)).toMatchObject({ userId: "ann", version: "9", metadata: { plan: "gold" } });
        expect(await idsOf(store, "ann")).toEqual(["new"]);
      });

      it("makes its session with the history that it brings; a session that is there keeps its own", async () => {
        const earlier = ["one", "two", "three"].map(message);
        const turn = { ...newTurn("brought"), createSession: true, windowMessages: 2, earlier };
        const first = await begin(store, turn);
        expect(first.window.map(({ message }) => message?.content)).toEqual(["two", "three"]);
        expect(await begin(store, turn)).toEqual(first);
        const texts = async () =>
          (await store.listMessages(turn, { offset: 0, limit: 10 }))?.map(({ content }) => content);
        expect(await texts()).toEqual(["one", "two", "three"]);
        expect((await store.getSession(turn))?.messageCount).toBe(3n);
        await store.commitTurn(first.lease, commit(2n));
        const after = await texts();
        expect(after?.slice(0, 3)).toEqual(["one", "two", "three"]);
        expect((await store.getSession(turn))?.messageCount).toBe(BigInt(after?.length ?? 0));
        await begin(store, { ...newTurn("brought"), createSession: true, earlier });
        expect(await texts()).toEqual(after);
      });

      it("begins once, however often it is asked to", async () => {
        await makeSession(store, "s1");
        const turn = newTurn("s1");
        const first = await begin(store, turn);
        expect(await begin(store, turn)).toEqual(first);
        await store.append(first.lease, entries(2n, 3n));
        expect((await store.getTurn(turn))?.lastSequence).toBe(3n);
        expect(await store.beginTurn({ ...turn, nonce: "another" })).toEqual({ state: "exists" });
        await store.commitTurn(first.lease, commit(4n));
        expect(await store.beginTurn(turn)).toEqual({ state: "exists" });
      });

      it("knows no turn that never began", async () => {
        await makeSession(store, "s1");
        const ref = newTurnRef({ tenant, sessionId: "s1" });
        expect(await store.getTurn(ref)).toBeUndefined();
        expect(await store.readLog(ref, 0n, 10)).toBeUndefined();
        await store.leaveQueue(ref);
        expect(await store.stopTurn(ref, FinishReason.CANCELLED)).toBeUndefined();
        expect(await store.getTurn(ref)).toBeUndefined();
      });

      it("appends in order, once, and without a gap", async () => {
        await makeSession(store, "s1");
        const turn = newTurn("s1");
        const { lease } = await begin(store, turn);
        await store.append(lease, entries(2n, 4n));
        await store.append(lease, entries(2n, 4n));
        await store.append(lease, entries(3n, 6n));
        await expectFailure(store.append(lease, entries(8n, 9n)), "INTERNAL");
        await expectFailure(store.append(lease, [...entries(7n, 7n), ...entries(9n, 9n)]), "INTERNAL");
        expect(await store.readLog(turn, 0n, 100)).toEqual([turn.firstEntry, ...entries(2n, 6n)]);
        expect((await store.getTurn(turn))?.lastSequence).toBe(6n);
      });

      it("reads a log from any sequence, at most as much as asked for", async () => {
        await makeSession(store, "s1");
        const turn = newTurn("s1");
        const { lease } = await begin(store, turn);
        await store.append(lease, entries(2n, 12n));
        expect(await store.readLog(turn, 3n, 4)).toEqual(entries(4n, 7n));
        expect(await store.readLog(turn, 11n, 4)).toEqual(entries(12n, 12n));
        expect(await store.readLog(turn, 12n, 4)).toEqual([]);
        expect(await store.readLog(turn, 99n, 4)).toEqual([]);
      });

      it("trims a long log and says so to readers that come too late", async () => {
        await makeSession(store, "s1");
        const turn = newTurn("s1");
        const { lease } = await begin(store, turn);
        for (let first = 2; first < MAX_LOG_EVENTS + 5; first += 500) {
          await store.append(lease, entries(BigInt(first), BigInt(Math.min(first + 499, MAX_LOG_EVENTS + 5))));
        }
        await expectFailure(store.readLog(turn, 0n, 10), "TURN_LOG_TRIMMED");
        await expectFailure(store.readLog(turn, 4n, 10), "TURN_LOG_TRIMMED");
        expect(await store.readLog(turn, 5n, 2)).toEqual(entries(6n, 7n));
        expect((await store.getTurn(turn))?.lastSequence).toBe(BigInt(MAX_LOG_EVENTS + 5));
      });

      it("tells followers of each append in order, and only those of its turn", async () => {
        await makeSession(store, "s1");
        const turn = newTurn("s1");
        const { lease } = await begin(store, turn);
        const heard: bigint[] = [];
        const others: bigint[] = [];
        const unfollow = store.follow(turn, (news) => heard.push(...news.map(sequenceOf)));
        store.follow(newTurnRef({ tenant, sessionId: "s1" }), (news) => others.push(...news.map(sequenceOf)));
        const late: bigint[] = [];
        for (let first = 2n; first < 12n; first += 2n) await store.append(lease, entries(first, first + 1n));
        store.follow(turn, (news) => late.push(...news.map(sequenceOf)));
        await store.commitTurn(lease, commit(12n));
        unfollow();
        expect(heard).toEqual([2n, 3n, 4n, 5n, 6n, 7n, 8n, 9n, 10n, 11n, 12n]);
        expect(late).toEqual([12n]);
        expect(others).toEqual([]);
      });

      it("tells followers only what is stored", async () => {
        await makeSession(store, "s1");
        const turn = newTurn("s1");
        const { lease } = await begin(store, turn);
        const heard: bigint[] = [];
        store.follow(turn, (news) => heard.push(...news.map(sequenceOf)));
        await expectFailure(store.append({ ...lease, nonce: "stale" }, entries(2n, 3n)), "LEASE_LOST");
        await expectFailure(store.append(lease, entries(5n, 6n)), "INTERNAL");
        expect(heard).toEqual([]);
      });

      it("counts the usage that its log records while it runs", async () => {
        await makeSession(store, "s1");
        const turn = newTurn("s1");
        const { lease } = await begin(store, turn);
        const used = [usageEntry(2n, 10, 5, 7n), usageEntry(3n, 1, 2, 3n)];
        await store.append(lease, used);
        await store.append(lease, used);
        expect(await store.getTurn(turn)).toMatchObject({
          tokenUsage: { promptTokens: 11, completionTokens: 7, totalTokens: 18 },
          costMicroUsd: 10n,
        });
      });
    });

    describe("a commit", () => {
      it("ends the turn and adds to history and counters, once", async () => {
        const made = await makeSession(store, "s1");
        const turn = newTurn("s1");
        const { lease } = await begin(store, turn);
        await store.append(lease, entries(2n, 3n));
        const end = commit(4n, {
          texts: ["hello", "hi there"],
          promptTokens: 30,
          completionTokens: 12,
          costMicroUsd: 99n,
        });
        await store.commitTurn(lease, end);
        await store.commitTurn(lease, end);
        expect(await store.getTurn(turn)).toMatchObject({
          state: TurnState.FINISHED,
          finishReason: FinishReason.STOP,
          lastSequence: 4n,
          tokenUsage: { promptTokens: 30, completionTokens: 12, totalTokens: 42 },
          costMicroUsd: 99n,
        });
        const session = await store.getSession(turn);
        expect(session).toMatchObject({
          messageCount: 2n,
          tokenUsage: { promptTokens: 30, completionTokens: 12, totalTokens: 42 },
          costMicroUsd: 99n,
        });
        expect(ms(session?.updateTime)).toBeGreaterThanOrEqual(ms(made.updateTime));
        expect(await store.readLog(turn, 0n, 10)).toEqual([turn.firstEntry, ...entries(2n, 3n), ...end.entries]);
        const messages = await store.listMessages(turn, { offset: 0, limit: 10 });
        expect(messages).toEqual(end.messages.map((record) => record.message));
      });

      it("counts amounts that do not fit a double or an int32", async () => {
        await makeSession(store, "s1");
        const cost = 4_000_000_000_000_000_001n;
        for (const costMicroUsd of [cost, cost]) {
          const { lease } = await begin(store, newTurn("s1"));
          await store.commitTurn(lease, commit(2n, { costMicroUsd, promptTokens: 2_000_000_000, completionTokens: 1 }));
        }
        expect(await store.getSession({ tenant, sessionId: "s1" })).toMatchObject({
          costMicroUsd: 2n * cost,
          tokenUsage: { promptTokens: 2_147_483_647, completionTokens: 2, totalTokens: 2_147_483_647 },
        });
      });

      it("pages through the history, oldest first", async () => {
        await makeSession(store, "s1");
        for (let index = 0; index < 3; index += 1) await beginAndCommit(store, "s1", [`q${index}`, `a${index}`]);
        const texts = async (offset: number, limit: number) =>
          (await store.listMessages({ tenant, sessionId: "s1" }, { offset, limit }))?.map((message) => message.content);
        expect(await texts(0, 4)).toEqual(["q0", "a0", "q1", "a1"]);
        expect(await texts(4, 4)).toEqual(["q2", "a2"]);
        expect(await texts(6, 4)).toEqual([]);
        expect(await texts(0, 0)).toEqual([]);
      });

      it("feeds the newest messages to the next turn", async () => {
        await makeSession(store, "s1");
        for (let index = 0; index < 3; index += 1) await beginAndCommit(store, "s1", [`q${index}`, `a${index}`]);
        const { lease, window } = await begin(store, { ...newTurn("s1"), windowMessages: 3 });
        expect(window.map(({ message, tokenCount }) => [message?.content, tokenCount])).toEqual([
          ["a1", 2],
          ["q2", 2],
          ["a2", 2],
        ]);
        await store.commitTurn(lease, commit(2n));
        expect((await begin(store, { ...newTurn("s1"), windowMessages: 0 })).window).toEqual([]);
      });

      it("keeps text of any kind as it is", async () => {
        await makeSession(store, "s1");
        const text = "naïve 🦊\u0000\r\n\u202e \ud83d\udc69\u200d\ud83d\ude80";
        await beginAndCommit(store, "s1", [text]);
        const [message] = (await store.listMessages({ tenant, sessionId: "s1" }, { offset: 0, limit: 1 })) ?? [];
        expect(message?.content).toBe(text);
      });
    });

    describe("the lease", () => {
      it("is one turn's at a time, and the next one's epoch is higher", async () => {
        await makeSession(store, "s1");
        const first = await begin(store, newTurn("s1"));
        const second = newTurn("s1");
        expect(await store.beginTurn(second)).toEqual({ state: "queued", position: 1 });
        await store.commitTurn(first.lease, commit(2n));
        const { lease } = await begin(store, second);
        expect(lease.epoch).toBeGreaterThan(first.lease.epoch);
      });

      it("refuses every write of a stale epoch or nonce", async () => {
        await makeSession(store, "s1");
        const { lease } = await begin(store, newTurn("s1"));
        const stale = [
          { ...lease, epoch: lease.epoch - 1 },
          { ...lease, epoch: lease.epoch + 1 },
          { ...lease, nonce: "another" },
          { ...lease, nonce: "" },
        ];
        for (const wrong of stale) {
          await expectFailure(store.append(wrong, entries(2n, 2n)), "LEASE_LOST");
          await expectFailure(store.commitTurn(wrong, commit(2n, { texts: ["void"] })), "LEASE_LOST");
          await expectFailure(store.renewLease(wrong), "LEASE_LOST");
        }
        expect((await store.getTurn(lease))?.lastSequence).toBe(1n);
        expect((await store.getSession(lease))?.messageCount).toBe(0n);
        await store.renewLease(lease);
        await store.append(lease, entries(2n, 2n));
      });

      it("is over with the commit", async () => {
        await makeSession(store, "s1");
        const lease = await beginAndCommit(store, "s1", ["one"]);
        await expectFailure(store.append(lease, entries(3n, 3n)), "LEASE_LOST");
        await expectFailure(store.renewLease(lease), "LEASE_LOST");
        await expectFailure(store.commitTurn({ ...lease, nonce: "another" }, commit(2n)), "LEASE_LOST");
      });

      it("is over when its session is deleted, also when one takes its id", async () => {
        await makeSession(store, "s1");
        const { lease } = await begin(store, newTurn("s1"));
        await store.deleteSession(lease);
        await expectFailure(store.append(lease, entries(2n, 2n)), "SESSION_DELETED");
        await expectFailure(store.commitTurn(lease, commit(2n)), "SESSION_DELETED");
        await expectFailure(store.renewLease(lease), "SESSION_DELETED");
        await makeSession(store, "s1");
        const next = await begin(store, newTurn("s1"));
        await expectFailure(store.append(lease, entries(2n, 2n)), "SESSION_DELETED");
        await expectFailure(store.commitTurn(lease, commit(2n)), "SESSION_DELETED");
        await expectFailure(store.renewLease(lease), "SESSION_DELETED");
        await store.append(next.lease, entries(2n, 2n));
      });

      it("that is renewed or appended to does not run out", async () => {
        const quick = await open({ ttlMs: 60_000, leaseMs: 400 });
        await makeSession(quick, "s1");
        const { lease } = await begin(quick, newTurn("s1"));
        const startMs = Date.now();
        let sequence = 1n;
        const waiting = newTurn("s1");
        await vi.waitFor(
          async () => {
            if (sequence % 2n === 0n) await quick.renewLease(lease);
            else await quick.append(lease, entries(sequence + 1n, sequence + 1n));
            sequence = (await quick.getTurn(lease))?.lastSequence ?? 0n;
            expect((await quick.beginTurn(waiting)).state).toBe("queued");
            await quick.renewLease(lease);
            expect(Date.now() - startMs).toBeGreaterThan(1_000);
          },
          { timeout: 10_000, interval: 50 },
        );
      });
    });

    describe("the queue", () => {
      it("is first in, first out, and tells each its place", async () => {
        await makeSession(store, "s1");
        let running = (await begin(store, newTurn("s1"))).lease;
        const waiting = [newTurn("s1"), newTurn("s1"), newTurn("s1")];
        for (const [index, turn] of waiting.entries()) {
          expect(await store.beginTurn(turn)).toEqual({ state: "queued", position: index + 1 });
        }
        for (const [index, turn] of waiting.entries()) {
          await store.commitTurn(running, commit(2n));
          for (const [behind, later] of waiting.slice(index + 1).entries()) {
            expect(await store.beginTurn(later)).toEqual({ state: "queued", position: behind + 1 });
          }
          expect(await store.beginTurn(newTurn("s1"))).toMatchObject({ state: "queued" });
          running = (await begin(store, turn)).lease;
          expect((await store.beginTurn(newTurn("s1"))).state).toBe("queued");
        }
      });

      it("refuses when as many wait as may", async () => {
        await makeSession(store, "s1");
        const { lease } = await begin(store, newTurn("s1"));
        const waiting = Array.from({ length: 16 }, () => newTurn("s1"));
        for (const turn of waiting) expect((await store.beginTurn(turn)).state).toBe("queued");
        const refusal = await expectFailure(store.beginTurn(newTurn("s1")), "SESSION_QUEUE_FULL");
        expect(refusal.facts.retryAfterMs).toBeGreaterThan(0);
        expect(await store.beginTurn(waiting[15] ?? newTurn("s1"))).toEqual({ state: "queued", position: 16 });
        await store.commitTurn(lease, commit(2n));
        await begin(store, waiting[0] ?? newTurn("s1"));
        expect(await store.beginTurn(newTurn("s1"))).toEqual({ state: "queued", position: 16 });
      });

      it("closes up behind one that leaves", async () => {
        await makeSession(store, "s1");
        const { lease } = await begin(store, newTurn("s1"));
        const [first, second] = [newTurn("s1"), newTurn("s1")];
        await store.beginTurn(first);
        expect(await store.beginTurn(second)).toEqual({ state: "queued", position: 2 });
        await store.leaveQueue(first);
        expect(await store.beginTurn(second)).toEqual({ state: "queued", position: 1 });
        await store.commitTurn(lease, commit(2n));
        await begin(store, second);
      });

      it("forgets a place that nobody asks for any more", async () => {
        await makeSession(store, "s1");
        const { lease } = await begin(store, newTurn("s1"));
        const [gone, patient] = [newTurn("s1"), newTurn("s1")];
        await store.beginTurn(gone);
        expect(await store.beginTurn(patient)).toEqual({ state: "queued", position: 2 });
        await store.commitTurn(lease, commit(2n));
        expect(await store.beginTurn(patient)).toEqual({ state: "queued", position: 1 });
        await vi.waitFor(async () => expect((await store.beginTurn(patient)).state).toBe("begun"), {
          timeout: 9_000,
          interval: 100,
        });
      }, 15_000);
    });
  });
}

/** Longer than anything that is waited for. */
const WAIT = { timeout: 10_000, interval: 25 } as const;

export function newTurn(sessionId: string, ofTenant = tenant): NewTurn {
  const ref = newTurnRef({ tenant: ofTenant, sessionId });
  return {
    ...ref,
    createSession: false,
    userId: "ann",
    version: "1",
    record: create(TurnRecordSchema, { schemaVersion: 1, userId: "ann", message: "hello", createTime: timestampNow() }),
    firstEntry: create(TurnLogEntrySchema, {
      schemaVersion: 1,
      event: { sequence: 1n, event: { case: "turnStarted", value: { sessionId, turnId: ref.turnId } } },
    }),
    nonce: crypto.randomUUID(),
    maxQueue: 16,
    windowMessages: 10,
    onBusy: "enqueue",
  };
}

export async function begin(store: Store, turn: NewTurn): Promise<Extract<BeginOutcome, { state: "begun" }>> {
  const outcome = await store.beginTurn(turn);
  if (outcome.state !== "begun") throw new Error(`the turn is ${outcome.state}`);
  return outcome;
}

export async function beginAndCommit(store: Store, sessionId: string, texts: readonly string[]): Promise<Lease> {
  const { lease } = await begin(store, newTurn(sessionId));
  await store.commitTurn(lease, commit(2n, { texts }));
  return lease;
}

/** Text deltas with the sequences `first` to `last`. */
export function entries(first: bigint, last: bigint): TurnLogEntry[] {
  return Array.from({ length: Number(last - first) + 1 }, (_, index) =>
    create(TurnLogEntrySchema, {
      schemaVersion: 1,
      event: { sequence: first + BigInt(index), event: { case: "textDelta", value: { agent: "a", text: "x" } } },
    }),
  );
}

export function commit(
  sequence: bigint,
  { texts = [], ...amounts }: Partial<TurnCommit> & { texts?: readonly string[] } = {},
): TurnCommit {
  return {
    entries: [ending(sequence, FinishReason.STOP)],
    messages: texts.map(message),
    finishReason: FinishReason.STOP,
    promptTokens: 1,
    completionTokens: 1,
    costMicroUsd: 0n,
    ...amounts,
  };
}

function ending(sequence: bigint, finishReason = FinishReason.ERROR): TurnLogEntry {
  return create(TurnLogEntrySchema, {
    schemaVersion: 1,
    event: { sequence, event: { case: "turnCompleted", value: { finishReason } } },
  });
}

export function usageEntry(
  sequence: bigint,
  promptTokens: number,
  completionTokens: number,
  costMicroUsd: bigint,
): TurnLogEntry {
  const tokenUsage = { promptTokens, completionTokens, totalTokens: promptTokens + completionTokens };
  return create(TurnLogEntrySchema, {
    schemaVersion: 1,
    event: { sequence, event: { case: "usageRecorded", value: { tokenUsage, costMicroUsd } } },
  });
}

export function message(content: string): MessageRecord {
  return create(MessageRecordSchema, {
    schemaVersion: 1,
    tokenCount: content.length,
    message: { messageId: crypto.randomUUID(), role: Role.USER, content, createTime: timestampNow() },
  });
}

async function makeSession(store: Store, sessionId: string, metadata?: JsonObject): Promise<Session> {
  return store.createSession({ tenant, sessionId, userId: "ann", version: "1", ...(metadata && { metadata }) });
}

async function allPages(store: Store, userId: string, limit: number): Promise<Session[][]> {
  const pages: Session[][] = [];
  for (let last: Session | undefined; ; last = pages.at(-1)?.at(-1)) {
    const page = await store.listSessions({ tenant, userId, limit, ...(last && { after: positionOf(last) }) });
    if (page.length === 0) return pages;
    pages.push(page);
  }
}

async function idsOf(store: Store, userId: string): Promise<string[]> {
  return (await store.listSessions({ tenant, userId, limit: 100 })).map((session) => session.sessionId);
}

export async function expectFailure(promise: Promise<unknown>, reason: FailureReason): Promise<Failure> {
  const outcome = await promise.then(
    () => "nothing was refused",
    (error: unknown) => error,
  );
  if (!(outcome instanceof Failure)) throw new Error(`expected the failure ${reason}`, { cause: outcome });
  expect(outcome.reason).toBe(reason);
  return outcome;
}

function ignoreFailure(error: unknown): void {
  if (!(error instanceof Failure) || error.reason === "INTERNAL") throw error;
}

function positionOf(session: Session | undefined): SessionPosition {
  return { createTimeMs: ms(session?.createTime), sessionId: session?.sessionId ?? "" };
}

function ms(timestamp: { seconds: bigint; nanos: number } | undefined): number {
  return Number(timestamp?.seconds ?? 0n) * 1_000 + Math.floor((timestamp?.nanos ?? 0) / 1e6);
}

function sequenceOf(entry: TurnLogEntry): bigint {
  return entry.event?.sequence ?? 0n;
}
