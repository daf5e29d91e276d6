/**
 * The gate: who opens a file that is named inside an image. An image may come from anyone, and a
 * name in it may be any path, so the library opens none by itself: the caller passes a gate, and
 * the default one refuses.
 */
import type { Awaitable } from '../base/awaitable.ts';
import { Qcow2Error } from '../base/errors.ts';
import type { Storage } from '../storage/storage.ts';

/** A file that an image asks for. */
export interface GateRequest {
  readonly kind: 'backing' | 'data-file';
  /** The name as stored in the image. Untrusted. */
  readonly name: string;
  /** The name of the storage that holds the image which asks. */
  readonly from: string;
  /** The image will write to the file: the data file of one that is opened for writing. */
  readonly writable: boolean;
}

/** Opens what an image names, or throws. The image that asked closes the storage. */
export type Gate = (request: GateRequest) => Awaitable<Storage>;

/** The default: refuses every name with the code REFUSED. */
export const closedGate: Gate = ({ kind, name, from }) => {
  const what = kind === 'backing' ? 'backing file' : 'data file';
  throw new Qcow2Error('REFUSED', `'${from}' names the ${what} '${name}', and no gate opens it`);
};
