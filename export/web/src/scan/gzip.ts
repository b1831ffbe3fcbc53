/** Bytes of a file from its start on, through the browser's own gzip where the name says so, never more than are asked for. */

import { AGAIN, InputError } from "./volume";
import { pythonBytes, thousands } from "./words";

const MAX_TRAILING_BYTES = 64 * 2 ** 20;

export class Reader {
  private readonly stream: ReadableStreamDefaultReader<Uint8Array>;
  private pending: Uint8Array[] = [];
  private read = 0; // bytes that left the stream
  private passed = 0; // bytes before the first one that is pending

  constructor(
    private readonly file: File,
    private readonly gzipped: boolean,
  ) {
    const raw = file.stream() as ReadableStream<BufferSource>;
    const bytes = gzipped ? raw.pipeThrough(new DecompressionStream("gzip") as ReadableWritablePair<Uint8Array, BufferSource>) : raw;
    this.stream = (bytes as ReadableStream<Uint8Array>).getReader();
  }

  /** The first `count` bytes, or fewer where the file ends; they stay to be read. */
  async take(count: number): Promise<Uint8Array> {
    while (this.read < count && (await this.more()));
    const out = new Uint8Array(Math.min(count, this.read));
    this.copy(out, 0);
    return out;
  }

  /** `count` bytes from `start` on, or fewer where the file ends. */
  async span(start: number, count: number): Promise<Uint8Array> {
    const out = new Uint8Array(count);
    let filled = 0;
    for (;;) {
      filled = Math.max(filled, this.copy(out, start));
      this.passed = this.read;
      this.pending = [];
      if (filled >= count || !(await this.more())) break;
    }
    return filled === count ? out : out.slice(0, filled);
  }

  /** To the end, where gzip compares its checksum. Far behind `wanted` bytes, the header that says so is damaged. */
  async toTheEnd(wanted: number): Promise<void> {
    const limit = wanted + MAX_TRAILING_BYTES;
    while (this.read <= limit && (await this.more())) {
      this.passed = this.read;
      this.pending = [];
    }
    if (this.read > limit) {
      const words = `it goes on for more than ${thousands(MAX_TRAILING_BYTES)} bytes behind what its header says; ${AGAIN}`;
      throw new InputError(`${this.file.name}: cannot be read as NIfTI: ${words}`);
    }
  }

  async close(): Promise<void> {
    await this.stream.cancel().catch(() => undefined);
  }

  /** Copies what is pending of the bytes from `start` on; returns up to where `out` is filled. */
  private copy(out: Uint8Array, start: number): number {
    let at = this.passed;
    let filled = 0;
    for (const chunk of this.pending) {
      const from = Math.max(0, start - at);
      const to = Math.min(chunk.length, start + out.length - at);
      if (from < to) {
        out.set(chunk.subarray(from, to), at + from - start);
        filled = at + to - start;
      }
      at += chunk.length;
    }
    return filled;
  }

  private async more(): Promise<boolean> {
    try {
      const { done, value } = await this.stream.read();
      if (done) return false;
      this.pending.push(value);
      this.read += value.length;
      return true;
    } catch (error) {
      throw new InputError(`${this.file.name}: cannot be read as NIfTI: ${await this.reason(error)}`);
    }
  }

  private async reason(error: unknown): Promise<string> {
    const message = error instanceof Error ? error.message : String(error);
    if (!this.gzipped) return message;
    const start = new Uint8Array(await this.file.slice(0, 2).arrayBuffer());
    if (start[0] !== 0x1f || start[1] !== 0x8b) return `Not a gzipped file (${pythonBytes(start)}); ${AGAIN}`;
    return /truncat|end/i.test(message)
      ? `Compressed file ended before the end-of-stream marker was reached; ${AGAIN}`
      : `its gzip data are damaged; ${AGAIN}`;
  }
}
