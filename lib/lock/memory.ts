/**
 * How the memory of messages is given back, and kept from being given back too
 * far: a session makes and drops a block of 64 KiB several times for each frame.
 *
 * @module
 */

/**
 * A block of so many bytes, once freed, teaches glibc's allocator to keep twice
 * as much (mallopt(3), `M_MMAP_THRESHOLD`). Untaught, it returns what WebCrypto
 * frees to the system after each call, and the next call faults it in again, page
 * by page: that costs a fifth of the speed. Other allocators do not mind.
 */
const LESSON = 4 * 1024 * 1024;

let isTaught = false;

/** Up to this length, in bytes, the collector has no trouble. */
const SMALL = 4096;

/**
 * Gives a buffer's memory back at once. Left to the collector, tens of megabytes
 * of dead buffers push the live ones out of the CPU's caches: that costs a third
 * of the speed.
 */
export function free({ buffer }: Uint8Array<ArrayBuffer>): void {
  // Node 20 cannot.
  if (!buffer.transfer) return;
  if (!isTaught) new ArrayBuffer(LESSON).transfer(0);
  isTaught = true;
  if (buffer.byteLength > SMALL) buffer.transfer(0);
}
