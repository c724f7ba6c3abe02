import type { ConsoleMemory } from "./console-model.ts";
import { parseCostsAddress } from "./costs-address.ts";

const USER_KEY = "parley.user";
const DEFAULT_USER = "me";
const ADDRESS = /^#\/sessions\/([A-Za-z0-9._-]{1,128})$/;

/** The user id in localStorage, the open session in the address, so that a reload and a bookmark come back to it. */
export function createBrowserMemory(): ConsoleMemory {
  return {
    readUserId() {
      // Storage that is forbidden throws; the page works without.
      try {
        return window.localStorage.getItem(USER_KEY) || DEFAULT_USER;
      } catch {
        return DEFAULT_USER;
      }
    },
    writeUserId(userId) {
      try {
        window.localStorage.setItem(USER_KEY, userId);
      } catch {}
    },
    readView: () => (parseCostsAddress(window.location.hash) === undefined ? "session" : "costs"),
    readAddress: () => ADDRESS.exec(window.location.hash)?.[1] ?? "",
    writeAddress(sessionId, { replace } = { replace: false }) {
      const url = sessionId === "" ? window.location.pathname : `#/sessions/${sessionId}`;
      window.history[replace ? "replaceState" : "pushState"](null, "", url);
    },
  };
}
