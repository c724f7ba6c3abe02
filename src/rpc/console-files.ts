import { createHash } from "node:crypto";
import { readdir, readFile } from "node:fs/promises";
import type { IncomingMessage, ServerResponse } from "node:http";
import type { Http2ServerRequest, Http2ServerResponse } from "node:http2";
import { extname, join, relative, sep } from "node:path";

/** What the console is told at `/console-config.json`. */
export interface ConsoleConfig {
  readonly version: string;
  readonly track: string;
  /** Answers come from the simulated model; the console labels them so. */
  readonly simulatedModel: boolean;
  /** Name of the default model. */
  readonly model: string;
  /** Names of the agent teams. */
  readonly teams: readonly string[];
  /** Names of each team's agents, by the team's name. */
  readonly agents?: Readonly<Record<string, readonly string[]>>;
  /** Sessions live as long as the process only; the console says so. Default: false. */
  readonly embeddedStore?: boolean;
}

export type ConsoleRequest = IncomingMessage | Http2ServerRequest;
export type ConsoleResponse = ServerResponse | Http2ServerResponse;

/**
 * Serves the web console: the files of its build at `/`, and its configuration. Resolves to false, with the response
 * untouched, where the path is none of these.
 *
 * The build is read into memory once, when it is first asked for, and stays what it was then: a page never gets the
 * files of two builds. Requests are looked up by whole path, so that no path leads out of the directory. While there is
 * no build, the page says how to make one.
 */
export function createConsoleFiles({
  directory,
  config,
}: {
  /** Folder with the build, `web/dist`. */
  directory: string;
  /** What the console is to be told now. */
  config: () => ConsoleConfig;
}): (request: ConsoleRequest, response: ConsoleResponse) => Promise<boolean> {
  const configFile = (): ConsoleFile =>
    fileOf("console-config.json", Buffer.from(JSON.stringify({ embeddedStore: false, ...config() })));
  let build: Promise<ReadonlyMap<string, ConsoleFile>> | undefined;
  const files = async (): Promise<ReadonlyMap<string, ConsoleFile>> => {
    build ??= readBuild(directory);
    const read = await build;
    // It may be built later.
    if (!read.has("/")) build = undefined;
    return read;
  };

  return async (request, response) => {
    const path = pathOf(request.url ?? "/");
    const file = path === "/console-config.json" ? configFile() : (await files()).get(path);
    if (file !== undefined) sendFile(file, request, response);
    else if (path === "/") sendFile(NOT_BUILT, request, response);
    else return false;
    return true;
  };
}

interface ConsoleFile {
  readonly status: 200 | 503;
  readonly content: Buffer;
  readonly etag: string;
  readonly contentType: string;
  readonly cacheControl: string;
}

const CONTENT_TYPES: Readonly<Record<string, string>> = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".json": "application/json; charset=utf-8",
  ".svg": "image/svg+xml",
  ".png": "image/png",
  ".ico": "image/x-icon",
  ".woff2": "font/woff2",
  ".txt": "text/plain; charset=utf-8",
};

/** Everything from this origin, nothing inline, no frames around the page. */
const CONTENT_SECURITY_POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "img-src 'self'",
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join("; ");

/** Vite puts a hash of the content into the names below /assets/: such a name never gets another content. */
const IMMUTABLE = "public, max-age=31536000, immutable";
const ASK_EACH_TIME = "no-cache";

const NOT_BUILT: ConsoleFile = {
  ...fileOf(
    "index.html",
    Buffer.from(
      '<!doctype html><html lang="en"><meta charset="utf-8"><title>Parley</title>' +
        "<h1>The console is not built</h1><p>Run <code>npm run build:console</code>, then load this page again. " +
        "The service itself works without it: call it by gRPC, gRPC-Web or Connect.</p></html>\n",
    ),
  ),
  status: 503,
  cacheControl: "no-store",
};

function fileOf(name: string, content: Buffer): ConsoleFile {
  return {
    status: 200,
    content,
    etag: `"${createHash("sha256").update(content).digest("base64url").slice(0, 22)}"`,
    contentType: CONTENT_TYPES[extname(name)] ?? "application/octet-stream",
    cacheControl: name.startsWith("assets/") ? IMMUTABLE : ASK_EACH_TIME,
  };
}

/** The files by the path they are asked for with; empty where there is no build. */
async function readBuild(directory: string): Promise<ReadonlyMap<string, ConsoleFile>> {
  const files = new Map<string, ConsoleFile>();
  let entries: Awaited<ReturnType<typeof listFiles>>;
  try {
    entries = await listFiles(directory);
    for (const path of entries) {
      const name = relative(directory, path).split(sep).join("/");
      files.set(name === "index.html" ? "/" : `/${name}`, fileOf(name, await readFile(path)));
    }
  } catch (error) {
    // No folder, or one that a build is rewriting at this moment.
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
    return new Map();
  }
  return files;
}

async function listFiles(directory: string): Promise<string[]> {
  const entries = await readdir(directory, { recursive: true, withFileTypes: true });
  return entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
}

/** The path without its query; names in a build need no escapes, so that an escaped path is none of ours. */
function pathOf(url: string): string {
  const path = url.split("?", 1)[0] ?? "/";
  return path === "/index.html" ? "/" : path;
}

function sendFile(file: ConsoleFile, request: ConsoleRequest, response: ConsoleResponse): void {
  // The two compat classes have the same methods; TypeScript cannot call a union of overloads.
  const reply = response as ServerResponse;
  reply.setHeader("content-security-policy", CONTENT_SECURITY_POLICY);
  reply.setHeader("x-content-type-options", "nosniff");
  reply.setHeader("referrer-policy", "no-referrer");
  if (request.method !== "GET" && request.method !== "HEAD") {
    reply.writeHead(405, { allow: "GET, HEAD", "content-length": 0 });
    reply.end();
    return;
  }
  reply.setHeader("cache-control", file.cacheControl);
  if (file.status === 200) {
    reply.setHeader("etag", file.etag);
    if (matches(request.headers["if-none-match"], file.etag)) {
      reply.writeHead(304);
      reply.end();
      return;
    }
  }
  reply.writeHead(file.status, { "content-type": file.contentType, "content-length": file.content.byteLength });
  if (request.method === "HEAD") reply.end();
  else reply.end(file.content);
}

function matches(ifNoneMatch: string | undefined, etag: string): boolean {
  if (ifNoneMatch === undefined) return false;
  return ifNoneMatch.split(",").some((tag) => tag.trim() === "*" || tag.trim().replace(/^W\//, "") === etag);
}
