import { createMemoryRollups } from "../../sidecar/rollups-memory.ts";
import { createMemoryAccountStore } from "../../src/accounts/memory-account-store.ts";
import { describeRollupContract } from "./rollups-contract.ts";

describeRollupContract("in process", {
  start: async () => {},
  async open() {
    const accounts = createMemoryAccountStore();
    return { accounts, rollups: createMemoryRollups({ accounts }) };
  },
  stop: async () => {},
});
