/** Text as it was said, never as markup. Fenced code is set apart; all other whitespace stands. */
export function MessageText({ text }: { text: string }) {
  return (
    <div class="text">
      {partsOf(text).map((part, at) =>
        part.code ? (
          <pre key={at} class="code">
            <code>{part.text}</code>
          </pre>
        ) : (
          <p key={at}>{part.text}</p>
        ),
      )}
    </div>
  );
}

/** Cuts at lines of three backticks. A fence that is not closed yet is code to the end: the rest is still coming. */
function partsOf(text: string): { readonly code: boolean; readonly text: string }[] {
  const parts: { code: boolean; lines: string[] }[] = [{ code: false, lines: [] }];
  for (const line of text.split("\n")) {
    const code = parts.at(-1)?.code === true;
    const fence = code ? /^\s*```\s*$/.test(line) : /^\s*```[^`]*$/.test(line);
    if (fence) parts.push({ code: !code, lines: [] });
    else parts.at(-1)?.lines.push(line);
  }
  return parts
    .map(({ code, lines }) => ({ code, text: code ? lines.join("\n") : lines.join("\n").replace(/^\n+|\n+$/g, "") }))
    .filter((part) => part.text !== "");
}
