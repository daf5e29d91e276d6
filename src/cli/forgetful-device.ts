/** Character devices as targets of images: what is written there is not there when it is read. */
import { isQcow2Error, Qcow2Error } from '../base/errors.ts';
import type { NodeFileStorage } from '../storage/node-file.ts';
import { errnoOf } from './errno.ts';

/** What every qcow2 image begins with. */
const MAGIC = Uint8Array.of(0x51, 0x46, 0x49, 0xfb);

/**
 * Tries a header on what is neither a file nor a block device.
 * @throws Qcow2Error in the words of QEMU, which writes one and then opens the image
 */
export function refuseForgetful(file: NodeFileStorage): void {
  if (file.kind !== 'other') return;
  try {
    file.write(0, MAGIC);
  } catch (cause) {
    if (!isQcow2Error(cause)) throw cause;
    throw new Qcow2Error(cause.code, `Could not write qcow2 header: ${errnoOf(cause).text}`);
  }
  const found = new Uint8Array(MAGIC.length);
  const isKept =
    file.read(0, found) === found.length && found.every((byte, i) => byte === MAGIC[i]);
  if (!isKept) throw new Qcow2Error('NOT_QCOW2', 'Image is not in qcow2 format');
}
