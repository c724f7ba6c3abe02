import { parseArgs } from "node:util";
import { timestampDate } from "@bufbuild/protobuf/wkt";
import { Failure } from "./failure.ts";
import { API_KEY_CACHE_MS } from "./identity/api-key-authenticator.ts";
import { type ApiKeyStore, apiKeyId, makeApiKey, revokeApiKey } from "./identity/api-keys.ts";
import { ROLES } from "./identity/principal.ts";
import { createRedisApiKeyStore } from "./identity/redis-api-key-store.ts";
import { connectRedis } from "./store/redis-connection.ts";

// `npm run keys`: makes, lists and revokes API keys in the Redis of REDIS_URL, as durably as REDIS_DURABILITY says.
const USAGE = `Usage: npm run keys -- <command>

  make [--tenant default] [--team …] [--user …] [--use-cases a,b] [--roles chat] [--note …]
                  Makes a key and shows it, this once. Without --user it needs the role chat:on_behalf
                  to chat. Roles, separated by commas: ${ROLES.join(", ")}.
  list            Lists all keys: id, whose, what for. The keys themselves are stored nowhere.
  revoke <id>     Revokes a key; after ${API_KEY_CACHE_MS / 1_000} seconds no process accepts it.
`;

process.exitCode = await main(process.argv.slice(2));

async function main(args: string[]): Promise<number> {
  const url = process.env.REDIS_URL;
  try {
    const { values, positionals } = parseArgs({
      args,
      allowPositionals: true,
      options: {
        tenant: { type: "string", default: "default" },
        team: { type: "string", default: "" },
        user: { type: "string", default: "" },
        "use-cases": { type: "string", default: "" },
        roles: { type: "string", default: "chat" },
        note: { type: "string", default: "" },
      },
    });
    const [command, id, ...rest] = positionals;
    if (rest.length > 0 || (id !== undefined) !== (command === "revoke")) return say(USAGE, 2);
    if (command !== "make" && command !== "list" && command !== "revoke") return say(USAGE, 2);
    if (url === undefined || url === "") return say("REDIS_URL is not set: keys are kept in Redis.\n", 2);
    const unknown = wordsOf(values.roles).filter((role) => !ROLES.some((known) => known === role));
    if (unknown.length > 0) return say(`There is no role ${unknown.join(", ")}; there are ${ROLES.join(", ")}.\n`, 2);
    const durability = process.env.REDIS_DURABILITY === "replica" ? "replica" : "local";
    const connection = connectRedis(url, { durability });
    try {
      const keys = createRedisApiKeyStore(connection);
      if (command === "list") return await list(keys);
      if (command === "revoke") {
        const revoked = await revokeApiKey(keys, id ?? "");
        return revoked ? say(`Revoked ${id}.\n`) : say(`There is no key ${id}.\n`, 1);
      }
      const made = await makeApiKey(keys, {
        tenant: values.tenant,
        team: values.team,
        userId: values.user,
        useCases: wordsOf(values["use-cases"]),
        roles: wordsOf(values.roles),
        note: values.note,
      });
      process.stderr.write(`Key ${made.id}, shown this once:\n`);
      process.stdout.write(`${made.key}\n`);
      return 0;
    } finally {
      await connection.close();
    }
  } catch (error) {
    if (error instanceof Failure) return say("Redis does not answer.\n", 1);
    return say(`${error instanceof Error ? error.message : "That did not work."}\n`, 2);
  }
}

async function list(keys: ApiKeyStore): Promise<number> {
  const rows = (await keys.list()).map(({ keyHash, record }) => {
    const made = record.createTime === undefined ? "" : timestampDate(record.createTime).toISOString();
    const { tenant, team, userId, roles, useCases, note } = record;
    return [apiKeyId(keyHash), made, tenant, team, userId, roles.join(","), useCases.join(","), note];
  });
  const head = ["id", "made", "tenant", "team", "user", "roles", "use cases", "note"];
  const table = [head, ...rows.toSorted(([, a = ""], [, b = ""]) => (a < b ? -1 : 1))];
  for (const row of table) process.stdout.write(`${row.map((cell) => cell || "-").join("\t")}\n`);
  return 0;
}

function say(text: string, exitCode = 0): number {
  (exitCode === 0 ? process.stdout : process.stderr).write(text);
  return exitCode;
}

function wordsOf(list: string): string[] {
  return list.split(",").filter((word) => word !== "");
}
