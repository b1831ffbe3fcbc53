/** The page's files: fetched from beside it, or taken from the page itself where everything is one HTML file. */

/** name: of a file beside the page, such as `model.onnx`. */
export async function asset(name: string): Promise<ArrayBuffer> {
  const inside = document.getElementById(`file:${name}`);
  if (inside) return embedded(inside.textContent ?? "");
  const response = await fetch(new URL(name, document.baseURI));
  if (!response.ok) throw new Error(`${name}: cannot be loaded: ${response.status} ${response.statusText}`);
  return response.arrayBuffer();
}

/** A script's address within the page's own origin and policy. */
export async function scriptUrl(name: string): Promise<string> {
  return URL.createObjectURL(new Blob([await asset(name)], { type: "text/javascript" }));
}

export function isSingleFile(): boolean {
  return document.querySelector('[id^="file:"]') !== null;
}

/** Base64 of gzip, as `attunet web` writes it. */
function embedded(base64: string): Promise<ArrayBuffer> {
  const bytes = Uint8Array.from(atob(base64.trim()), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
}
