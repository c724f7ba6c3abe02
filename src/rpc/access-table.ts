import type { DescMethod } from "@bufbuild/protobuf";
import { ChatService } from "../../gen/parley/chat/v1/chat_service_pb.js";
import { SessionService } from "../../gen/parley/chat/v1/session_service_pb.js";
import { UsageService } from "../../gen/parley/usage/v1/usage_service_pb.js";
import type { Role } from "../identity/principal.ts";

/** Services whose RPCs take credentials. Health and reflection take none: they tell nothing of anybody. */
const GUARDED: ReadonlySet<string> = new Set(
  [ChatService, SessionService, UsageService].map(({ typeName }) => typeName),
);

/** RPCs of UsageService that change something; all its others read. */
const ADMIN_METHODS: ReadonlySet<string> = new Set([
  UsageService.method.setBudget.name,
  UsageService.method.repriceUsage.name,
]);

/** The role that an RPC takes; undefined: none, not even credentials. An RPC that is new in a guarded service is guarded. */
export function roleNeededFor({ parent, name }: Pick<DescMethod, "parent" | "name">): Role | undefined {
  if (!GUARDED.has(parent.typeName)) return undefined;
  if (parent.typeName !== UsageService.typeName) return "chat";
  return ADMIN_METHODS.has(name) ? "admin" : "usage:read";
}
