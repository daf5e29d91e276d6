/** Raw deflate for writing: pako, at the settings of QEMU. */

/** QEMU's: distances beyond 4 KiB are more than its reader takes. */
const WINDOW_BITS = 12;
const MEMORY_LEVEL = 9;
const LEVEL = 6;

/** One cluster as a raw deflate stream. */
export async function deflateCluster(cluster: Uint8Array): Promise<Uint8Array> {
  const { deflateRaw } = await import('pako');
  return deflateRaw(cluster, { level: LEVEL, windowBits: WINDOW_BITS, memLevel: MEMORY_LEVEL });
}
