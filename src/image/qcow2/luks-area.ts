/**
 * The LUKS header of an encrypted image, where the header extension says that it is. What is wrong
 * with it is of no interest before there is a passphrase for it, so that opening an image does not
 * look at it.
 */
import { Qcow2Error } from '../../base/errors.ts';
import { LUKS_HEADER_BYTES, type LuksHeader, parseLuksHeader } from '../../format/luks-header.ts';
import { readFully } from '../../storage/read-fully.ts';
import type { Storage } from '../../storage/storage.ts';
import type { Metadata } from './open.ts';

/** A LUKS header, and the range of the file that is for it and its key slots. */
export interface LuksArea {
  readonly at: number;
  readonly areaBytes: number;
  readonly header: LuksHeader;
}

/**
 * Reads an image's LUKS header; undefined where it has none.
 * @throws Qcow2Error CORRUPT, UNSUPPORTED
 */
export async function readLuksArea(
  storage: Storage,
  { extensions }: Metadata,
): Promise<LuksArea | undefined> {
  if (!extensions.cryptoHeader) return undefined;
  const { offset: at, length: areaBytes } = extensions.cryptoHeader;
  if (areaBytes < LUKS_HEADER_BYTES) {
    throw new Qcow2Error('CORRUPT', 'Request for data outside of extension header', at);
  }
  // Past the end of the file there are zeros, which are no LUKS header.
  const bytes = new Uint8Array(LUKS_HEADER_BYTES);
  await readFully(storage, at, bytes);
  return { at, areaBytes, header: parseLuksHeader(bytes, at) };
}
