import { configuredBudgets } from "../../src/accounts/budget-lookup.ts";
import { createMemoryAccountStore } from "../../src/accounts/memory-account-store.ts";
import { describeAccountContract } from "./account-contract.ts";

describeAccountContract("in process", {
  start: async () => {},
  open: async (budgets = []) => createMemoryAccountStore({ budgets: configuredBudgets(budgets) }),
  stop: async () => {},
});
