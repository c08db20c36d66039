/** Line icons on a grid of 24, drawn for this page. */
const PATHS = {
  wallet:
    "M4 7.5A2.5 2.5 0 0 1 6.5 5H18v3M4 7.5V17a2.5 2.5 0 0 0 2.5 2.5H20V8H6.5A2.5 2.5 0 0 1 4 7.5ZM16 13.75h.01",
  inbox: "M4 13.5 6.5 5.5h11L20 13.5V18.5H4v-5Zm0 0h4.5l1.25 2.25h4.5l1.25-2.25H20",
  check: "m5 12.5 4.5 4.5L19 7.5",
  shield:
    "M12 3.5 5 6v5.5c0 4.25 2.9 7.35 7 9 4.1-1.65 7-4.75 7-9V6l-7-2.5Zm-3 8.25 2.25 2.25L15.25 10",
  settings: "M4 7h9m4 0h3M4 17h3m4 0h9M15 4.75v4.5M9 14.75v4.5",
  sun: "M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8Zm0-5v2m0 14v2M3 12h2m14 0h2M5.6 5.6 7 7m10 10 1.4 1.4M5.6 18.4 7 17M17 7l1.4-1.4",
  moon: "M19.5 14.5A8 8 0 0 1 9.5 4.5a8 8 0 1 0 10 10Z",
  copy: "M9 9h10.5v10.5H9zM15 9V4.5H4.5V15H9",
  lock: "M6 10.5h12v9H6zM8.5 10.5V8a3.5 3.5 0 0 1 7 0v2.5",
  unlock: "M6 10.5h12v9H6zM8.5 10.5V8a3.5 3.5 0 0 1 6.7-1.4",
  key: "M8 11.5a4 4 0 1 0 0 8 4 4 0 0 0 0-8Zm3-.5 8-6.5m-4 3.25 2.5 3",
  send: "M5 12h13m-5.5-6L18.5 12l-6 6",
  receive: "M12 5v13m-6-5.5 6 6 6-6",
  pen: "m5 19 1-4L16.5 4.5l3 3L9 18l-4 1Z",
  document: "M7 3.5h7l4 4v13H7zM14 3.5v4h4M10 12h5m-5 4h5",
  close: "m6 6 12 12M18 6 6 18",
  back: "m14.5 6-6 6 6 6",
  warning: "M12 4 3 19.5h18L12 4Zm0 6v4.5m0 2.25v.01",
  error: "M12 3.5a8.5 8.5 0 1 0 0 17 8.5 8.5 0 0 0 0-17Zm0 4.5v5m0 2.75v.01",
  info: "M12 3.5a8.5 8.5 0 1 0 0 17 8.5 8.5 0 0 0 0-17Zm0 7.5v5m0-7.75v.01",
  good: "M12 3.5a8.5 8.5 0 1 0 0 17 8.5 8.5 0 0 0 0-17Zm-3.75 8.75 2.5 2.5 5-5.25",
  download: "M12 4v11m-4.5-4.5L12 15l4.5-4.5M5 19.5h14",
  refresh: "M19 12a7 7 0 1 1-2.05-4.95L19 9m0-4.5V9h-4.5",
  eye: "M3 12s3.25-6 9-6 9 6 9 6-3.25 6-9 6-9-6-9-6Zm9-2.5a2.5 2.5 0 1 0 0 5 2.5 2.5 0 0 0 0-5Z",
  plus: "M12 5v14M5 12h14",
  device: "M8 3.5h8v17H8zM11 17.5h2",
  server: "M5 5h14v6H5zm0 8h14v6H5zm3-5h.01M8 16h.01",
  person: "M12 4.5a3.5 3.5 0 1 0 0 7 3.5 3.5 0 0 0 0-7Zm-6.5 15c.5-3.5 3-5 6.5-5s6 1.5 6.5 5",
  file: "M7 3.5h7l4 4v13H7zM14 3.5v4h4",
} as const;

export type IconName = keyof typeof PATHS;

export function Icon({ name }: { name: IconName }) {
  return (
    <svg
      viewBox="0 0 24 24"
      fill="none"
      stroke="currentColor"
      stroke-width="1.75"
      stroke-linecap="round"
      stroke-linejoin="round"
      aria-hidden="true"
    >
      <path d={PATHS[name]} />
    </svg>
  );
}

/** Two rings that share a part: neither signs alone. */
export function Logo() {
  return (
    <svg viewBox="0 0 32 32" fill="none" aria-hidden="true" class="logo">
      <circle cx="12" cy="16" r="8" class="logo-one" />
      <circle cx="20" cy="16" r="8" class="logo-two" />
    </svg>
  );
}
