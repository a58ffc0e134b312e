/** What a cipher state has to come out with, with no line of ours. */

type Bytes = Uint8Array<ArrayBuffer>;

/** AES-GCM by the number of its message. */
export async function aes(
  way: "encrypt" | "decrypt",
  raw: Bytes,
  n: bigint,
  text: Bytes,
) {
  const key = await crypto.subtle.importKey("raw", raw, "AES-GCM", false, [
    way,
  ]);
  const iv = new Uint8Array(12);
  new DataView(iv.buffer).setBigUint64(4, n);
  return new Uint8Array(
    await crypto.subtle[way]({ name: "AES-GCM", iv }, key, text),
  );
}

/** `REKEY(k)` of the Noise specification, section 4.2. */
export async function rekeyed(raw: Bytes): Promise<Bytes> {
  const block = await aes("encrypt", raw, 2n ** 64n - 1n, new Uint8Array(32));
  return block.slice(0, 32);
}
