/** Hands bytes to the browser as a file to be saved. */
export function save(bytes: Uint8Array, name: string): void {
  const url = URL.createObjectURL(
    new Blob([new Uint8Array(bytes)], { type: "application/octet-stream" }),
  );
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  // The browser has opened the URL once the click is handled.
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}
