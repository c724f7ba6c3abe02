import { createMemoryStore } from "../../src/store/memory-store.ts";
import { describeStoreContract } from "./store-contract.ts";

describeStoreContract("in process", {
  start: async () => {},
  open: async (options) => createMemoryStore(options),
  stop: async () => {},
});
