import { Failure } from "./failure.ts";
import { connectRedis } from "./store/redis-connection.ts";
import { SCHEMA_VERSION } from "./store/stored-formats.ts";
import { schemaRefusal, writtenSchema } from "./store/written-schema.ts";

// `parley state check`: may this release run on the Redis of REDIS_URL? The chart asks before an upgrade.
const USAGE = `Usage: parley state check

  Exit code 0: this release can read what is stored in the Redis of REDIS_URL, and the one before can read what this one
  writes. 1: it is too far from what is stored, or Redis does not answer.
`;

process.exitCode = await main(process.argv.slice(2));

async function main(args: string[]): Promise<number> {
  if (args.join(" ") !== "check") return say(USAGE, 2);
  const url = process.env.REDIS_URL;
  if (url === undefined || url === "") return say("REDIS_URL is not set.\n", 2);
  try {
    const connection = connectRedis(url);
    try {
      const written = await writtenSchema(connection);
      const refusal = schemaRefusal({ own: SCHEMA_VERSION, written });
      if (refusal !== undefined) return say(`${refusal}\n`, 1);
      return say(`Stored formats: ${written ?? "none"} in Redis, ${SCHEMA_VERSION} in this release. It may run.\n`);
    } finally {
      await connection.close();
    }
  } catch (error) {
    if (error instanceof Failure) return say("Redis does not answer.\n", 1);
    return say(`${error instanceof Error ? error.message : "That did not work."}\n`, 2);
  }
}

function say(text: string, exitCode = 0): number {
  (exitCode === 0 ? process.stdout : process.stderr).write(text);
  return exitCode;
}
