/** The header of a LUKS container: all that there is to know of it without a passphrase. */
import { LUKS_HEADER_BYTES, type LuksHeader, parseLuksHeader } from '../../format/luks-header.ts';
import type { Storage } from '../../storage/storage.ts';

/**
 * Reads a container's header.
 * @throws Qcow2Error CORRUPT, UNSUPPORTED
 */
export async function readLuksContainer(storage: Storage): Promise<LuksHeader> {
  const bytes = new Uint8Array(LUKS_HEADER_BYTES);
  await storage.read(0, bytes);
  return parseLuksHeader(bytes, 0);
}
