/**
 * Archives as `tar` and npm unpack them, the same on every machine.
 *
 * @module
 */

/** A file of an archive. */
export interface TarFile {
  /** Where it comes to lie: a relative path of up to 100 bytes. */
  path: string;
  data: Uint8Array<ArrayBuffer>;
  /** Whether it is a program: its mode is 0755 then, else 0644. */
  isProgram: boolean;
}

const BLOCK = 512;

/** Another day each time would be another archive; npm takes this one, too. */
const MODIFIED = Date.UTC(1985, 9, 26, 8, 15) / 1000;

/** Archives files in a folder, compressed by gzip. */
export async function tarball(
  folder: string,
  files: TarFile[],
): Promise<Uint8Array<ArrayBuffer>> {
  const parts = files.flatMap((file) => [
    header({ ...file, path: `${folder}/${file.path}` }),
    file.data,
    new Uint8Array(-file.data.length & BLOCK - 1),
  ]);
  const tar = new Blob([...parts, new Uint8Array(2 * BLOCK)]).stream();
  const gzip = tar.pipeThrough(new CompressionStream("gzip"));
  return await new Response(gzip).bytes();
}

/** The header of POSIX (`ustar`): numbers are octal digits, an end is a NUL. */
function header({ path, data, isProgram }: TarFile): Uint8Array<ArrayBuffer> {
  const block = new Uint8Array(BLOCK);
  const put = (at: number, text: string) =>
    block.set(new TextEncoder().encode(text), at);
  const octal = (value: number, digits: number) =>
    value.toString(8).padStart(digits, "0");
  if (path.length > 100) throw new Error(`Cannot archive ${path}: too long`);
  put(0, path);
  put(100, octal(isProgram ? 0o755 : 0o644, 7));
  // The owner and the group are root.
  put(108, octal(0, 7));
  put(116, octal(0, 7));
  put(124, octal(data.length, 11));
  put(136, octal(MODIFIED, 11));
  // The sum counts itself as spaces.
  put(148, " ".repeat(8));
  put(156, "0");
  put(257, "ustar\0" + "00");
  put(148, octal(block.reduce((sum, byte) => sum + byte), 6) + "\0 ");
  return block;
}
