/** Files that the user drops or chooses: single files, several files, or a folder with all below it. */

export interface Dropped {
  files: File[];
  /** The folder that each file lies in. */
  parents: string[];
  /** The folder's name, where it was one. */
  folder: string | null;
}

const MAX_FILES = 20000;

export async function fromDrop(transfer: DataTransfer): Promise<Dropped> {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry()).filter((entry) => entry !== null);
  const files: File[] = entries.length === 0 ? [...transfer.files] : [];
  const parents = files.map(() => "");
  for (const entry of entries) await collect(entry, files, parents);
  const folder = entries.length === 1 && entries[0]!.isDirectory ? entries[0]!.name : null;
  return { files, parents, folder };
}

export function fromInput(input: HTMLInputElement): Dropped {
  const files = [...(input.files ?? [])];
  const path = files[0]?.webkitRelativePath ?? "";
  const parents = files.map((file) => parentOf(file.webkitRelativePath));
  return { files, parents, folder: path.includes("/") ? path.split("/")[0]! : null };
}

function parentOf(path: string): string {
  return path.slice(0, Math.max(0, path.lastIndexOf("/")));
}

async function collect(entry: FileSystemEntry, files: File[], parents: string[]): Promise<void> {
  if (files.length >= MAX_FILES) throw new Error(`a folder of at most ${MAX_FILES} files is read: drop the folder of one scan`);
  if (entry.isFile) {
    files.push(await new Promise<File>((done, failed) => (entry as FileSystemFileEntry).file(done, failed)));
    parents.push(parentOf(entry.fullPath.slice(1)));
    return;
  }
  const reader = (entry as FileSystemDirectoryEntry).createReader();
  for (;;) {
    const some = await new Promise<FileSystemEntry[]>((done, failed) => reader.readEntries(done, failed));
    if (some.length === 0) return;
    for (const inner of some) await collect(inner, files, parents);
  }
}
