import fc from "fast-check";
import { expect, test } from "vitest";
import { createTerminationFilter, stripTermination } from "../../src/engine/termination-filter.ts";

const MARKER = "TERMINATE";

/** What is said, what may be shown of it, and whether it mentions the marker. */
const cases: [said: string, shown: string, mentioned: boolean][] = [
  ["", "", false],
  ["Hello.", "Hello.", false],
  ["TERMINATE", "", true],
  ["Hello. TERMINATE", "Hello.", true],
  ["Hello.\n\nTERMINATE", "Hello.", true],
  ["Hello.\n\nTERMINATE \n", "Hello.", true],
  ["Hello. TERMINATE.", "Hello..", true],
  ["Hello.TERMINATE", "Hello.", true],
  ["**TERMINATE**", "****", true],
  ["TERMINATE and on", " and on", true],
  ["Say TERMINATE to end", "Say to end", true],
  ["TERMINATE TERMINATE", "", true],
  ["a TERMINATE\nTERMINATE  ", "a", true],
  ["a TERMINATE b TERMINATE c", "a b c", true],
  ["TERMINATED", "TERMINATED", false],
  ["TERMINATE_NOW", "TERMINATE_NOW", false],
  ["TERMINATE2", "TERMINATE2", false],
  ["EXTERMINATE", "EXTERMINATE", false],
  ["_TERMINATE", "_TERMINATE", false],
  ["9TERMINATE", "9TERMINATE", false],
  ["TERMINATETERMINATE", "TERMINATETERMINATE", false],
  ["TERMTERMINATE", "TERMTERMINATE", false],
  ["TERM TERMINATE", "TERM", true],
  ["TERMINATED TERMINATE", "TERMINATED", true],
  ["terminate", "terminate", false],
  ["TERM", "TERM", false],
  ["TERMINAT", "TERMINAT", false],
  ["Hello. TERMIN", "Hello. TERMIN", false],
  ["ends in spaces  ", "ends in spaces  ", false],
  ["  \n ", "  \n ", false],
  ["éTERMINATE", "é", true],
  ["👍TERMINATE👍", "👍👍", true],
  ["no-break\u00a0TERMINATE", "no-break", true],
];

test.each(cases)("%j is shown as %j (mentioned: %j)", (said, shown, mentioned) => {
  expect(stripTermination(said, MARKER)).toBe(shown);
  expect(filtered([said])).toEqual({ shown, mentioned });
});

test.each(cases)(
  "%j cut into single characters, and cut once at every place, is shown as %j",
  (said, shown, mentioned) => {
    expect(filtered([...said])).toEqual({ shown, mentioned });
    for (let cut = 0; cut <= said.length; cut++) {
      expect(filtered([said.slice(0, cut), said.slice(cut)]), `cut at ${cut}`).toEqual({ shown, mentioned });
    }
  },
);

/** Texts full of near misses: whole markers, their beginnings, word characters and white space. */
const piece = fc.constantFrom(
  MARKER,
  "TERM",
  "TERMINAT",
  "E",
  "T",
  "INATE",
  "D",
  "_",
  "x",
  ".",
  "é",
  " ",
  "\n",
  "\t",
  "  ",
);
const cutText = fc.array(
  fc.array(piece, { maxLength: 4 }).map((pieces) => pieces.join("")),
  { maxLength: 12 },
);

test("the pieces put together are the filter applied to the whole, however the text is cut", () => {
  fc.assert(
    fc.property(cutText, fc.array(fc.nat({ max: 60 }), { maxLength: 20 }), (pieces, places) => {
      const said = pieces.join("");
      const whole = filtered([said]);
      expect(filtered(pieces)).toEqual(whole);
      expect(filtered(cutAt(said, places))).toEqual(whole);
    }),
    { numRuns: 2_000 },
  );
});

test("the filter does what two regular expressions do on the whole text", () => {
  fc.assert(
    fc.property(cutText, (pieces) => {
      const said = pieces.join("");
      const mention = new RegExp(`\\s*(?<![A-Za-z0-9_])${MARKER}(?![A-Za-z0-9_])`, "g");
      const mentioned = mention.test(said);
      const last = new RegExp(`(?<![A-Za-z0-9_])${MARKER}\\s+$`);
      const shown = said.replace(last, MARKER).replace(mention, "");
      expect(filtered(pieces)).toEqual({ shown, mentioned });
    }),
    { numRuns: 2_000 },
  );
});

test("what was shown is never taken back, and no more is held than white space and one marker", () => {
  fc.assert(
    fc.property(cutText, (pieces) => {
      const filter = createTerminationFilter(MARKER);
      const whole = stripTermination(pieces.join(""), MARKER);
      let shown = "";
      let said = "";
      for (const text of pieces) {
        said += text;
        shown += filter.push(text);
        expect(whole.startsWith(shown)).toBe(true);
        const settled = stripTermination(said, MARKER);
        const held = settled.startsWith(shown) ? settled.slice(shown.length) : said.slice(shown.length);
        expect(held.trimStart().length).toBeLessThanOrEqual(MARKER.length);
      }
    }),
    { numRuns: 500 },
  );
});

test("text that cannot become the marker is shown at once", () => {
  const filter = createTerminationFilter(MARKER);
  expect(filter.push("Hello")).toBe("Hello");
  expect(filter.push(", world")).toBe(", world");
  expect(filter.push(" TERM")).toBe("");
  expect(filter.push("S")).toBe(" TERMS");
  expect(filter.end()).toEqual({ rest: "", mentioned: false });
});

test("without a marker everything passes", () => {
  const filter = createTerminationFilter("");
  expect(filter.push("say TERMINATE ")).toBe("say TERMINATE ");
  expect(filter.end()).toEqual({ rest: "", mentioned: false });
  expect(stripTermination(" TERMINATE ", "")).toBe(" TERMINATE ");
});

test.each([
  ["[DONE]", "All done. [DONE]", "All done."],
  [".*", "a .* b", "a b"],
  ["THE END", "So it was. THE END\n", "So it was."],
  ["aab", "aaab aab", "aaab"],
  ["$&", "costs $& now", "costs now"],
])("the marker %j is plain text, not a pattern", (marker, said, shown) => {
  expect(stripTermination(said, marker)).toBe(shown);
  const filter = createTerminationFilter(marker);
  expect([...said].map((character) => filter.push(character)).join("") + filter.end().rest).toBe(shown);
});

function filtered(pieces: readonly string[]): { shown: string; mentioned: boolean } {
  const filter = createTerminationFilter(MARKER);
  const shown = pieces.map((text) => filter.push(text)).join("");
  const { rest, mentioned } = filter.end();
  return { shown: shown + rest, mentioned };
}

function cutAt(text: string, places: readonly number[]): string[] {
  const cuts = [0, ...places.map((place) => Math.min(place, text.length)).toSorted((a, b) => a - b), text.length];
  return cuts.slice(1).map((end, index) => text.slice(cuts[index], end));
}
