import { describe, expect, it } from "vitest";
import type { KeyClaim } from "../../src/turns/ports.ts";
import type { StoresUnderTest } from "./turns-contract.ts";

const CLAIM: KeyClaim = { tenant: "acme", userId: "ann", key: "k1", requestHash: "h1", turnId: "t1" };

/** Idempotency keys. */
export function describeKeys(stores: StoresUnderTest): void {
  describe("an idempotency key", () => {
    it("is its first claim's, for everybody who comes later", async () => {
      const { store } = stores;
      const other = await stores.join();
      expect(await store.claimKey(CLAIM)).toEqual({ turnId: "t1", requestHash: "h1", state: "new" });
      const later = { turnId: "t1", requestHash: "h1", state: "claimed" };
      expect(await store.claimKey(CLAIM)).toEqual(later);
      expect(await other.claimKey({ ...CLAIM, turnId: "t2", requestHash: "h2" })).toEqual(later);
    });

    it("is claimed once, however many come at once", async () => {
      const other = await stores.join();
      const claims = await Promise.all(
        Array.from({ length: 100 }, (_, index) =>
          (index % 2 === 0 ? stores.store : other).claimKey({ ...CLAIM, turnId: `t${index}` }),
        ),
      );
      expect(claims.filter(({ state }) => state === "new")).toHaveLength(1);
      expect(new Set(claims.map(({ turnId }) => turnId)).size).toBe(1);
    });

    it("is a user's of a tenant, whatever the names look like", async () => {
      const { store } = stores;
      const owners = [
        { userId: "ann", key: "k1" },
        { userId: "ann", key: "k2" },
        { userId: "bob", key: "k1" },
        { userId: "ann:k1", key: "" },
        { userId: "ann", key: "k1}" },
        { userId: "a", key: "nnk1" },
        { tenant: "other", userId: "ann", key: "k1" },
      ];
      for (const owner of owners) expect((await store.claimKey({ ...CLAIM, ...owner })).state).toBe("new");
    });

    it("says how far its turn has come, and never goes back", async () => {
      const { store } = stores;
      const stateOf = async () => (await store.claimKey({ ...CLAIM, turnId: "t9" })).state;
      await store.claimKey(CLAIM);
      await store.markKey({ ...CLAIM, turnId: "t9" }, "begun");
      expect(await stateOf()).toBe("claimed");
      await store.markKey(CLAIM, "admitted");
      expect(await stateOf()).toBe("admitted");
      await store.markKey(CLAIM, "begun");
      await store.markKey(CLAIM, "admitted");
      expect(await stateOf()).toBe("begun");
    });

    it("is free again when its turn was refused, but not when that has begun or is another's", async () => {
      const { store } = stores;
      await store.releaseKey(CLAIM);
      await store.claimKey(CLAIM);
      await store.releaseKey({ ...CLAIM, turnId: "t9" });
      expect((await store.claimKey(CLAIM)).state).toBe("claimed");
      await store.markKey(CLAIM, "admitted");
      await store.releaseKey(CLAIM);
      expect(await store.claimKey({ ...CLAIM, turnId: "t2", requestHash: "h2" })).toEqual({
        turnId: "t2",
        requestHash: "h2",
        state: "new",
      });
      await store.markKey({ ...CLAIM, turnId: "t2" }, "begun");
      await store.releaseKey({ ...CLAIM, turnId: "t2" });
      expect((await store.claimKey(CLAIM)).state).toBe("begun");
    });

    it("that nobody claimed is nothing that could be marked", async () => {
      await stores.store.markKey(CLAIM, "begun");
      expect((await stores.store.claimKey(CLAIM)).state).toBe("new");
    });
  });
}
