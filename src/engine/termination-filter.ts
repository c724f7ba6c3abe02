/** Strips a termination text from a reply as it streams. */
export interface TerminationFilter {
  /** Takes the next piece; returns what may be shown of all so far and was not yet: maybe nothing. */
  push(text: string): string;
  /** Ends the reply; returns what was held back and may be shown, and whether the termination text was said. */
  end(): { readonly rest: string; readonly mentioned: boolean };
}

/**
 * Strips every whole-word mention of `marker` with the white space before it, wherever the stream is cut. What may become
 * a mention is held back until it is known: white space, the marker's beginning, and the character after a whole marker,
 * since TERMINATED is a word of its own. White space after a mention stays only if more text follows.
 *
 * States: `held` is white space, then a prefix of the marker; `mentioned` says that a mention was stripped and nothing
 * but white space came since.
 */
export function createTerminationFilter(marker: string): TerminationFilter {
  if (marker === "") return { push: (text) => text, end: () => ({ rest: "", mentioned: false }) };
  let held = "";
  let inWord = false;
  let everMentioned = false;
  let justMentioned = false;

  const consume = (atEnd: boolean): string => {
    let shown = "";
    for (;;) {
      const space = leadingSpace(held);
      const rest = held.slice(space);
      if (rest === "") {
        if (!atEnd) return shown;
        // A mention at the end takes the white space around it along.
        shown += justMentioned ? "" : held;
        held = "";
        return shown;
      }
      const mayStart = space > 0 || !inWord;
      if (mayStart && rest.startsWith(marker)) {
        const next = rest[marker.length];
        if (next === undefined && !atEnd) return shown;
        if (next === undefined || !isWordCharacter(next)) {
          held = rest.slice(marker.length);
          everMentioned = true;
          justMentioned = true;
          inWord = false;
          continue;
        }
      } else if (mayStart && !atEnd && marker.startsWith(rest)) {
        return shown;
      }
      // The next character is text, and so is the rest of its word: show them with the white space before.
      let end = space + 1;
      inWord = isWordCharacter(rest[0] as string);
      if (inWord) end = endOfWord(held, end);
      shown += held.slice(0, end);
      justMentioned = false;
      held = held.slice(end);
    }
  };

  return {
    push(text) {
      held += text;
      return consume(false);
    },
    end() {
      return { rest: consume(true), mentioned: everMentioned };
    },
  };
}

/** The filter applied to a whole text. */
export function stripTermination(text: string, marker: string): string {
  const filter = createTerminationFilter(marker);
  return filter.push(text) + filter.end().rest;
}

function leadingSpace(text: string): number {
  return text.length - text.trimStart().length;
}

function endOfWord(text: string, start: number): number {
  let end = start;
  while (end < text.length && isWordCharacter(text[end] as string)) end++;
  return end;
}

function isWordCharacter(character: string): boolean {
  const code = character.charCodeAt(0);
  return (
    (code >= 97 && code <= 122) || // a to z
    (code >= 65 && code <= 90) || // A to Z
    (code >= 48 && code <= 57) || // 0 to 9
    character === "_"
  );
}
