import type { ComponentChildren } from "preact";

// Drawn here: the page loads nothing from elsewhere. Each is decoration; the button around it has the name.

export const MenuIcon = () => (
  <Icon>
    <path d="M4 7h16M4 12h16M4 17h10" />
  </Icon>
);

export const PlusIcon = () => (
  <Icon>
    <path d="M12 5v14M5 12h14" />
  </Icon>
);

export const CostsIcon = () => (
  <Icon>
    <path d="M4 20h16M7 16v-5M12 16V5M17 16v-8" />
  </Icon>
);

export const DocsIcon = () => (
  <Icon>
    <path d="M12 6.5C10 5 7.5 4.5 4 5v13c3.5-.5 6 0 8 1.5 2-1.5 4.5-2 8-1.5V5c-3.5-.5-6 0-8 1.5zM12 6.5v13" />
  </Icon>
);

export const TrashIcon = () => (
  <Icon>
    <path d="M5 7h14M10 7V5h4v2M7 7l1 12h8l1-12M10.5 11v5M13.5 11v5" />
  </Icon>
);

export const SendIcon = () => (
  <Icon>
    <path d="M12 19V5M6 11l6-6 6 6" />
  </Icon>
);

export const ToolIcon = () => (
  <Icon>
    <path d="M14.5 6.5a4 4 0 0 1 5-1.2l-2.6 2.6 1.2 1.2 2.6-2.6a4 4 0 0 1-5.3 5L8.6 18.3a1.7 1.7 0 0 1-2.4 0l-.5-.5a1.7 1.7 0 0 1 0-2.4l6.8-6.8a4 4 0 0 1 2-2.1z" />
  </Icon>
);

export const ShieldIcon = () => (
  <Icon>
    <path d="M12 3l7 3v5c0 4.5-3 8-7 10-4-2-7-5.5-7-10V6zM9 9l6 6M15 9l-6 6" />
  </Icon>
);

export const ArrowIcon = () => (
  <Icon>
    <path d="M5 12h14M13 6l6 6-6 6" />
  </Icon>
);

export const StopIcon = () => (
  <Icon>
    <rect x="7" y="7" width="10" height="10" rx="2" fill="currentColor" stroke="none" />
  </Icon>
);

function Icon({ children }: { children: ComponentChildren }) {
  return (
    <svg class="icon" viewBox="0 0 24 24" aria-hidden="true" focusable="false">
      {children}
    </svg>
  );
}
