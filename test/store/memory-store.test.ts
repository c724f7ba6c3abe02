import { createMemoryStore } from "../../src/store/memory-store.ts";
import { describeStoreContract } from "./store-contract.ts";
import { describeTurnsContract, type SharedStoreSubject } from "./turns-contract.ts";

const subject: SharedStoreSubject = {
  start: async () => {},
  open: async (options) => createMemoryStore(options),
  // Its state is this process's: there is nothing to join.
  join: async (_, opened) => opened,
  stop: async () => {},
};

describeStoreContract("in process", subject);
describeTurnsContract("in process", subject);
