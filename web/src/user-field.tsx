import { useEffect, useState } from "preact/hooks";

/** Who speaks. A change takes effect with Enter or on leaving the field; an empty field goes back to what it was. */
export function UserField({ userId, onChange }: { userId: string; onChange(userId: string): void }) {
  const [text, setText] = useState(userId);
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
        commit();
      }}
    >
      <label for="user-id">You are</label>
      <input
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
