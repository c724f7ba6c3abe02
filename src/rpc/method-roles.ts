import type { DescMethod } from "@bufbuild/protobuf";
import { Failure } from "../failure.ts";
import { hasRole, type Principal, type Role } from "../identity/principal.ts";

/** The role that each RPC of ours needs; a test holds the table to the descriptors. Other services are for everybody. */
export const METHOD_ROLES: Readonly<Record<string, Readonly<Record<string, Role>>>> = {
  "parley.chat.v1.ChatService": {
    Chat: "chat",
    StreamChat: "chat",
    ResumeTurn: "chat",
    GetTurn: "chat",
    CancelTurn: "chat",
    PreviewChat: "chat",
  },
  "parley.chat.v1.SessionService": {
    CreateSession: "chat",
    GetSession: "chat",
    ListSessions: "chat",
    UpdateSession: "chat",
    DeleteSession: "chat",
    ListMessages: "chat",
  },
  "parley.usage.v1.UsageService": {
    QueryUsage: "usage:read",
    ExportUsage: "usage:read",
    ListBudgets: "usage:read",
    SetBudget: "admin",
    ListPrices: "usage:read",
    RepriceUsage: "admin",
  },
};

/** Whether an RPC is for those only whom we know. */
export function needsPrincipal(method: DescMethod): boolean {
  return METHOD_ROLES[method.parent.typeName] !== undefined;
}

/** ROLE_MISSING: the principal may not call this RPC. One that the table forgot is nobody's. */
export function checkRole(method: DescMethod, principal: Principal): void {
  const role = METHOD_ROLES[method.parent.typeName]?.[method.name];
  if (role === undefined || !hasRole(principal, role)) throw new Failure("ROLE_MISSING");
}
