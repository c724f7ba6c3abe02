import { createHash } from "node:crypto";
import { readdir, readFile } from "node:fs/promises";
import type { IncomingMessage, ServerResponse } from "node:http";
import type { Http2ServerRequest, Http2ServerResponse } from "node:http2";
import { extname, join, relative, sep } from "node:path";

type PageRequest = IncomingMessage | Http2ServerRequest;
type PageResponse = ServerResponse | Http2ServerResponse;

/** Resolves to false, with the response untouched, where the path is none of its own. */
export type PageHandler = (request: PageRequest, response: PageResponse) => Promise<boolean>;

/**
 * Serves the files of a build.
 *
 * The build is read into memory once, when it is first asked for, and stays what it was then: a page never gets the
 * files of two builds. Requests are looked up by whole path, so that no path leads out of the directory.
 */
export function createStaticFiles({
  directory,
  root,
  imageSources = "'self'",
  notBuilt,
}: {
  /** Folder with the build. */
  directory: string;
  /** Path of the folder for whoever asks, with a slash at its end. */
  root: string;
  /** Where its images may come from, as a content security policy has it. Default: its own origin. */
  imageSources?: string;
  /** What the page at the root says while there is no build: how to make one. HTML. */
  notBuilt: string;
}): PageHandler {
  const options = { imageSources };
  let build: Promise<ReadonlyMap<string, StaticFile>> | undefined;
  const files = async (): Promise<ReadonlyMap<string, StaticFile>> => {
    build ??= readBuild(directory, root);
    const read = await build;
    // It may be built later.
    if (!read.has(root)) build = undefined;
    return read;
  };

  return async (request, response) => {
    const path = pathOf(request);
    const folder = `${path}/`;
    if (!folder.startsWith(root)) return false;
    const read = await files();
    if (folder === root || read.has(folder)) {
      (response as ServerResponse).writeHead(301, { location: folder, "content-length": 0 });
      response.end();
      return true;
    }
    const file = read.get(path);
    if (file !== undefined) sendFile(file, request, response, options);
    else if (path === root) sendFile(missing(notBuilt), request, response, options);
    else return false;
    return true;
  };
}

interface StaticFile {
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
};

/** What the documentation links to is source text, to be read and not to be downloaded. */
const OTHER_CONTENT_TYPE = "text/plain; charset=utf-8";

/** Everything from this origin, nothing inline, no frames around the page. */
const contentSecurityPolicy = (imageSources: string): string =>
  [
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    `img-src ${imageSources}`,
    "connect-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
  ].join("; ");

/** Vite puts a hash of the content into the names below /assets/: such a name never gets another content. */
const IMMUTABLE = "public, max-age=31536000, immutable";
const ASK_EACH_TIME = "no-cache";

function missing(html: string): StaticFile {
  const page = `<!doctype html><html lang="en"><meta charset="utf-8"><title>Parley</title>${html}</html>\n`;
  return { ...fileOf("index.html", Buffer.from(page)), status: 503, cacheControl: "no-store" };
}

export function fileOf(name: string, content: Buffer): StaticFile {
  return {
    status: 200,
    content,
    etag: `"${createHash("sha256").update(content).digest("base64url").slice(0, 22)}"`,
    contentType: CONTENT_TYPES[extname(name)] ?? OTHER_CONTENT_TYPE,
    cacheControl: name.startsWith("assets/") ? IMMUTABLE : ASK_EACH_TIME,
  };
}

/** The files by the path they are asked for with; empty where there is no build. */
async function readBuild(directory: string, root: string): Promise<ReadonlyMap<string, StaticFile>> {
  const files = new Map<string, StaticFile>();
  let entries: Awaited<ReturnType<typeof listFiles>>;
  try {
    entries = await listFiles(directory);
    for (const path of entries) {
      const name = relative(directory, path).split(sep).join("/");
      // A folder's page is asked for by the folder.
      files.set(root + name.replace(/(^|\/)index\.html$/, "$1"), fileOf(name, await readFile(path)));
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

/** The path without its query; names in a build need no escapes, so that an escaped path is none of its. */
export function pathOf({ url = "/" }: PageRequest): string {
  const path = url.split("?", 1)[0] ?? "/";
  return path.replace(/\/index\.html$/, "/");
}

export function sendFile(
  file: StaticFile,
  request: PageRequest,
  response: PageResponse,
  { imageSources = "'self'" }: { imageSources?: string } = {},
): void {
  // The two compat classes have the same methods; TypeScript cannot call a union of overloads.
  const reply = response as ServerResponse;
  reply.setHeader("content-security-policy", contentSecurityPolicy(imageSources));
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
