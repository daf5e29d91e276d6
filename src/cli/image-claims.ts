/**
 * What commands claim the files of images for: the table of what QEMU 7.2's tools lock.
 *
 *   file        inspected      read           converted      written        resized
 *   qcow2       – | w r        c | w r        c | w r        c w r | w r    c w r | w r
 *   data file   –              c | r          c | w r        c w r | r      c w r | r
 *   raw, luks   –              c |            c | w r        c w |          c w r |
 *
 *   c consistent read · w write · r resize;  what is used | what others are kept from
 *
 * While key slots of a container change, nobody else may read or write it.
 * With force-share (`-U`) a file is read and nobody is kept from anything.
 */
import { Qcow2Error } from '../base/errors.ts';
import { isQcow2 } from '../format/header.ts';
import { type Claim, claimFile } from '../storage/native-lock.ts';
import type { NodeFileStorage } from '../storage/node-file.ts';

/**
 * What a command does with an image: looks at its metadata, reads it, converts it, writes it, gives
 * it another size.
 */
export type ImageUse = 'inspect' | 'read' | 'convert' | 'write' | 'resize';

/** What those behind an image are claimed for: whatever becomes of it, they are only read. */
export function useBehind(use: ImageUse): ImageUse {
  return use === 'write' || use === 'resize' ? 'read' : use;
}

/** What of an image a file is. */
export type ImagePart = 'qcow2' | 'raw' | 'data-file';

const NONE: Claim = { uses: [], shuts: [] };
const SHARED: Claim = { uses: ['consistent read'], shuts: [] };
const READ: Claim = { uses: ['consistent read'], shuts: ['write', 'resize'] };
const ALL: Claim['uses'] = ['consistent read', 'write', 'resize'];
const QCOW2_WRITE: Claim = { uses: ALL, shuts: ['write', 'resize'] };
const DATA_WRITE: Claim = { uses: ALL, shuts: ['resize'] };

/** What a raw file, or a target that is written like one, is claimed for. */
export const RAW_WRITE: Claim = { uses: ['consistent read', 'write'], shuts: [] };

/** What a container is claimed for, besides, while its key slots change. */
export const KEY_SLOTS: Claim = {
  uses: RAW_WRITE.uses,
  shuts: ['consistent read', 'write'],
};

const CLAIMS: Record<ImageUse, Record<ImagePart, Claim>> = {
  inspect: { qcow2: { uses: [], shuts: ['write', 'resize'] }, raw: NONE, 'data-file': NONE },
  read: {
    qcow2: READ,
    raw: SHARED,
    'data-file': { uses: ['consistent read'], shuts: ['resize'] },
  },
  convert: { qcow2: READ, raw: READ, 'data-file': READ },
  write: { qcow2: QCOW2_WRITE, raw: RAW_WRITE, 'data-file': DATA_WRITE },
  resize: { qcow2: QCOW2_WRITE, raw: { uses: ALL, shuts: [] }, 'data-file': DATA_WRITE },
};

/** How an image's files are claimed. */
export interface ClaimOptions {
  readonly use: ImageUse;
  /** What the image itself is, and not a data file of it; undefined: its first bytes say. */
  readonly part?: Exclude<ImagePart, 'data-file'> | 'luks' | undefined;
  /** `-U`: others may write what we read. */
  readonly forceShare?: boolean | undefined;
}

/**
 * Claims a file of an image until it is closed.
 * @param part what of an image it is; undefined: raw or qcow2, as its first bytes say
 * @throws Qcow2Error BUSY; UNSUPPORTED for what force-share does not go with
 */
export function claimImageFile(
  file: NodeFileStorage,
  given: ImagePart | 'luks' | undefined,
  { use, forceShare = false }: ClaimOptions,
): void {
  // In QEMU a container has nothing that others could change behind its back.
  const part = given === 'luks' ? 'raw' : given;
  if (forceShare && useBehind(use) !== use) {
    const message = 'force-share=on can only be used with read-only images';
    throw new Qcow2Error('UNSUPPORTED', message);
  }
  // A device without size or position: others may have it open as much as they like.
  if (file.kind === 'other') return;
  if (forceShare) {
    if (use !== 'inspect') claimFile(file, SHARED);
    return;
  }
  const claim = CLAIMS[use][part ?? probePart(file)];
  if (claim !== NONE) claimFile(file, claim);
}

function probePart(file: NodeFileStorage): ImagePart {
  const head = new Uint8Array(8);
  const bytes = head.subarray(0, file.read(0, head));
  return isQcow2(bytes) ? 'qcow2' : 'raw';
}
