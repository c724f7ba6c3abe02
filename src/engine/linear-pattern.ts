import { RE2JS } from "re2js";

/** A regular expression that is matched in time that grows with the text's length alone, whatever the expression. */
export interface LinearPattern {
  test(text: string): boolean;
}

/** Compiles an expression as RE2 knows them. Throws where it knows none: look-around and back-references among them. */
export function linearPattern(
  pattern: string,
  { ignoreCase = false }: { readonly ignoreCase?: boolean } = {},
): LinearPattern {
  return RE2JS.compile(RE2JS.translateRegExp(pattern), ignoreCase ? RE2JS.CASE_INSENSITIVE : 0);
}
