import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { UsageSource } from "../../gen/parley/chat/v1/token_usage_pb.js";
import { CallOutcome, UsageRecordSchema } from "../../gen/parley/usage/v1/usage_record_pb.js";
import type { AccountStore } from "../../src/accounts/account-store.ts";

const HOUR_MS = 3_600_000;

const TEAMS = ["red", "blue", "green"];
const MODELS = ["gpt-4o", "gpt-4o-mini", "o3"];
const AGENTS = ["writer", "critic"];

/**
 * A ledger of the last 22 hours, the same each time but for its days: three teams with two users each, their sessions,
 * turns of two agents, and calls of some micro dollars. Amounts that floating point numbers cannot add up are among them.
 */
export async function spend(accounts: Pick<AccountStore, "settle">, { tenant = "default" } = {}) {
  const nowMs = Date.now();
  let at = 0;
  for (let hour = 22; hour >= 0; hour -= 1) {
    for (const [index, team] of TEAMS.entries()) {
      // The day has its ups and downs.
      const turns = 1 + ((hour * (index + 2)) % 4);
      for (let turn = 0; turn < turns; turn += 1) {
        const userId = `${team}-user-${(hour + turn) % 2}`;
        const sessionId = `${team}-session-${(hour + turn) % 5}`;
        const turnId = `${sessionId}.turn-${hour}-${turn}`;
        for (const agent of AGENTS) {
          at += 1;
          await settle(accounts, {
            tenant,
            team,
            userId,
            sessionId,
            turnId,
            agent,
            useCase: index === 2 ? "" : "support",
            model: MODELS[(hour + turn + index) % 3] ?? "",
            recordId: `${turnId}/${agent}`,
            promptTokens: BigInt(400 + at * 7),
            completionTokens: BigInt(100 + at),
            costMicroUsd: BigInt(10_003 + at * 131 * (index + 1)),
            holdTime: timestampFromMs(nowMs - hour * HOUR_MS),
          });
        }
      }
    }
  }
}

/** One more call, answered and counted. */
export async function settle(
  accounts: Pick<AccountStore, "settle">,
  init: MessageInitShape<typeof UsageRecordSchema>,
): Promise<void> {
  const record = create(UsageRecordSchema, {
    tenant: "default",
    version: "0.0.0-test",
    priceVersion: "test",
    usageSource: UsageSource.PROVIDER,
    outcome: CallOutcome.OK,
    holdTime: timestampFromMs(Date.now()),
    ...init,
  });
  await accounts.settle(record);
}
