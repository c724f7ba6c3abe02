import { useEffect, useRef, useState } from "preact/hooks";

/** Who speaks. A change takes effect with Enter or on leaving the field; an empty field goes back to what it was. */
export function UserField({ userId, onChange }: { userId: string; onChange(userId: string): void }) {
  const [text, setText] = useState(userId);
  const field = useRef<HTMLInputElement>(null);
  useEffect(() => setText(userId), [userId]);

  const commit = (): void => {
    const next = text.trim();
    setText(next === "" ? userId : next);
    if (next !== "") onChange(next);
  };
  return (
    <form
      class="user"
      onSubmit={(event) => {
        event.preventDefault();
        field.current?.blur();
      }}
    >
      <label for="user-id">You are</label>
      <input
        ref={field}
        id="user-id"
        value={text}
        maxLength={256}
        autocomplete="off"
        spellcheck={false}
        onInput={(event) => setText(event.currentTarget.value)}
        onBlur={commit}
        onKeyDown={(event) => {
          if (event.key !== "Escape") return;
          event.preventDefault();
          setText(userId);
        }}
      />
    </form>
  );
}
